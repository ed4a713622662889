"""Exports: what can be taken away (`sources`), what of it is asked for (`requests`), its file (`writers`)."""
