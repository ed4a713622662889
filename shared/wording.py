"""Counts in sentences for people: "1 row was", "2,000 rows were"."""

from __future__ import annotations


def pluralize(count: int, singular: str, plural: str) -> str:
    """`count` with thousands separators, followed by the words that agree with it."""
    return f"{count:,} {singular if count == 1 else plural}"


def was_or_were(count: int) -> str:
    """The verb that agrees with `count`, where other words stand between the two: "1 of 17 rows was"."""
    return "was" if count == 1 else "were"
