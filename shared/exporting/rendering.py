"""Renders an export: from the database straight into a sink, in one snapshot, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from shared.exporting.requests import CreateExport
from shared.exporting.source import FileType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

CONTENT_TYPES = {
    FileType.CSV: "text/csv; charset=utf-8",
    FileType.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    FileType.PDF: "application/pdf",
}


def content_type(file_type: str) -> str:
    """The media type of a file of `file_type` (in any case)."""
    return CONTENT_TYPES[FileType(file_type.upper())]


def ending(file_type: str) -> str:
    """The ending of its file's name, with the dot."""
    return f".{FileType(file_type.upper()).lower()}"


def render(  # noqa: PLR0917  # the order is the story: from where, what, to where
    product: Connection,
    webshop_uuid: UUID,
    request: CreateExport,
    identifiers: tuple[str, ...],
    sink: BinaryIO,
    progress: Callable[[int], None],
) -> int:
    """Writes the file of `request` to `sink` and returns its number of rows.

    `product` is a connection to the product database on which nothing was executed yet: the whole export is read in
    one transaction, REPEATABLE READ and READ ONLY, without a time limit. `identifiers` are the webshop's for buy
    orders. `progress` is called with the rows so far, about once a second while rows come; what it raises ends the
    render. The sink is written to in order, never closed, and holds a part of a file after any exception.

    Raises Problem 422 where the request cannot be given (any more), and DBAPIError where the database fails. After
    any exception the connection is not used again.
    """
    raise NotImplementedError
