"""What can be exported, for programs that let people choose: sources, their columns, and what may be asked of each."""

from __future__ import annotations

import msgspec

from functions.exports.source import Column, FileType, Operator, Source
from functions.exports.sources import SOURCES


class OfferedColumn(msgspec.Struct, frozen=True):
    """A column that can be exported, sorted and filtered by."""

    key: str
    heading: str  # in the file
    type: str
    sortable: bool
    operators: tuple[Operator, ...]  # of a filter; none: it cannot be filtered by


class OfferedSource(msgspec.Struct, frozen=True):
    """A kind of thing that can be exported."""

    key: str
    heading: str
    file_types: tuple[FileType, ...]
    parents: tuple[str, ...]  # what it can be narrowed to
    columns: tuple[OfferedColumn, ...]


class Offers(msgspec.Struct, frozen=True):
    """Everything that can be exported; a list as the others are, of one page."""

    items: tuple[OfferedSource, ...]
    next_cursor: None = None


def offers() -> Offers:
    """The sources in their order."""
    return Offers(tuple(offered(source) for source in SOURCES.values()))


def offered(source: Source) -> OfferedSource:
    """One source."""
    columns = tuple(offered_column(column) for column in source.columns)
    return OfferedSource(source.key, source.heading, source.file_types, tuple(source.parents), columns)


def offered_column(column: Column) -> OfferedColumn:
    """One column."""
    return OfferedColumn(column.key, column.heading, column.type.name, column.sortable, column.operators)
