"""Counts in sentences for people: "1 row was", "2,000 rows were"."""

from __future__ import annotations


def pluralize(count: int, singular: str, plural: str) -> str:
    """Returns `count` with thousands separators, followed by the words in singular or plural."""
    return f"{count:,} {singular if count == 1 else plural}"


def was_or_were(count: int) -> str:
    """Returns the verb that agrees with `count`, for a sentence such as "1 of 17 rows was refused"."""
    return "was" if count == 1 else "were"
