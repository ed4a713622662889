"""Renders an export: streams its rows from the database to a file, in one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID

from functions.exports.queries import Progress, Rows, begin_snapshot
from functions.exports.requests import CreateExport, validate
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
    """Returns the media type of a file of `file_type`, which is in upper or lower case."""
    return CONTENT_TYPES[FileType(file_type.upper())]


def ending(file_type: str) -> str:
    """Returns the ending of the file's name, with the dot. `file_type` is in upper or lower case."""
    return f".{FileType(file_type.upper()).lower()}"


def render(  # noqa: PLR0917  # in the order of the flow: from where, what, to where
    conn: Connection,
    webshop_uuid: UUID,
    request: CreateExport,
    identifiers: tuple[str, ...],
    sink: BinaryIO,
    progress: Callable[[int], None],
) -> int:
    """Writes the file of `request` to `sink` and returns its number of rows.

    `conn` is a connection to the product database on which no statement was executed yet: the whole export is read in
    one transaction, REPEATABLE READ and READ ONLY, without a time limit. `identifiers` are those that the webshop
    chose for buy orders. `progress` is called with the number of rows so far, about once a second while rows arrive;
    what it raises ends the render. The sink is written in order, never closed, and holds an incomplete file after any
    exception.

    Raises Problem 422 when the request is not (or no longer) valid, and DBAPIError when the database fails. After any
    exception, discard the connection: it may be in the middle of a COPY.
    """
    selection = validate(request, identifiers)
    begin_snapshot(conn)
    write = load_writer(selection.file_type)
    return write(Rows(conn, webshop_uuid, selection), sink, Progress(progress))


def load_writer(file_type: FileType) -> Writer:
    """Returns the function that writes a file of this type. Its libraries are loaded now, only when they are used."""
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
