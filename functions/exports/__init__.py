"""Exports: a table (`sources`), narrowed by a merchant's request (`requests`), becomes a file (`writers`)."""
