"""The types of all structs, resolved before threads use them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def resolve_types() -> None:
    """Resolves the types of every struct of the functions that is imported by now.

    msgspec does that when a struct is first decoded, and the process crashes when two threads do it at the same moment
    (0.22.0: a segmentation fault in 4 of 5 processes whose first 8 requests came at once). So it is done once, after
    the imports and before the first request.
    """
    for struct in find_subclasses(msgspec.Struct):
        if struct.__module__.startswith(("functions.", "shared.")):
            msgspec.json.Decoder(struct)


def find_subclasses(struct: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """All subclasses of `struct`, direct and indirect."""
    for subclass in struct.__subclasses__():
        yield subclass
        yield from find_subclasses(subclass)
