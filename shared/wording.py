"""Counts in sentences for people: "1 row was", "2,000 rows were"."""

from __future__ import annotations


def format_count(number: int, noun: str) -> str:
    """Writes a number with its noun in singular or plural: "1 row", "2,000 rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def was_or_were(number: int) -> str:
    """The verb that agrees with a number which other words separate from it: "1 of 17 rows was"."""
    return "was" if number == 1 else "were"
