"""Mailing buy orders: asking for it (`operations`), its record (`sends`), doing it (`attempt`), its `events`."""
