"""The catalog of export sources, with which a client lets its users choose: columns, types, operators, file types."""

from __future__ import annotations

import msgspec

from functions.exports.source import Column, FileType, Operator, Source
from functions.exports.sources import SOURCES


class CatalogColumn(msgspec.Struct, frozen=True):
    """A column that can be exported, sorted and filtered by."""

    key: str
    heading: str  # in the file
    type: str
    sortable: bool
    operators: tuple[Operator, ...]  # of a filter; empty when the column cannot be filtered by


class CatalogSource(msgspec.Struct, frozen=True):
    """A source that can be exported."""

    key: str
    heading: str
    file_types: tuple[FileType, ...]
    parents: tuple[str, ...]  # by which it can be narrowed
    columns: tuple[CatalogColumn, ...]


class Catalog(msgspec.Struct, frozen=True):
    """All sources: a list in the form of the API's other lists, with a single page."""

    items: tuple[CatalogSource, ...]
    next_cursor: None = None


def list_sources() -> Catalog:
    """Lists the sources in their order."""
    return Catalog(tuple(describe_source(source) for source in SOURCES.values()))


def describe_source(source: Source) -> CatalogSource:
    """Describes one source."""
    columns = tuple(describe_column(column) for column in source.columns)
    return CatalogSource(source.key, source.heading, source.file_types, tuple(source.parents), columns)


def describe_column(column: Column) -> CatalogColumn:
    """Describes one column."""
    return CatalogColumn(column.key, column.heading, column.type.name, column.sortable, column.operators)
