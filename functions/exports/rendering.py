"""Renders an export: from the database straight into a sink, in one snapshot, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from functions.exports.queries import Progress, Rows, begin_snapshot
from functions.exports.requests import CreateExport, checked
from functions.exports.source import FileType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    Writer = Callable[[Rows, BinaryIO, Progress], int]  # returns the number of rows

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
    any exception the connection is to be thrown away: it may stand in the middle of a COPY.
    """
    selection = checked(request, identifiers)
    begin_snapshot(product)
    return writer_of(selection.file_type)(Rows(product, webshop_uuid, selection), sink, Progress(progress))


def writer_of(file_type: FileType) -> Writer:
    """The function that writes a file of this type. What it needs is loaded now: not every export draws a PDF."""
    match file_type:
        case FileType.CSV:
            from functions.exports.writers import csv_file

            return csv_file.write
        case FileType.XLSX:
            from functions.exports.writers import xlsx_file

            return xlsx_file.write
        case FileType.PDF:
            from functions.exports.writers import pdf_file

            return pdf_file.write
