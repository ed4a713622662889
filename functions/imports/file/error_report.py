"""The error report: a CSV of every failed row as it stands in the file, with what was wrong behind its own columns.

Mended, it is uploaded again as it is: the importer knows the report's columns and skips them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import Engine, RowMapping, text

from functions.imports.file import validation
from functions.imports.file.validation import ImportFile, RefusedFile
from functions.imports.states import MAX_FILE_BYTES, Status
from shared.columns import BY_KEY, REPORT_HEADINGS, normalize_heading
from shared.errors import ObjectGone
from shared.formulas import escape_cell
from shared.messages import CellError

if TYPE_CHECKING:  # at run time they come with whoever makes the clients
    from shared.clients.bucket import Storage

# Rows with broken quotes have no certain cells: written as they were read, they would pass as good ones when uploaded
# again unmended. Without an identifier they are refused again.
WITHOUT_CELLS = ("text_after_quote", "unclosed_quote")
ROWS_AT_ONCE = 2000  # read and answered together: a file of 5 MB can hold a million refused rows

Refused = tuple[int, list[CellError]]


def report(service_database: Engine, storage: Storage, row: RowMapping) -> Iterator[bytes]:
    """The report of the import in `row`, in pieces of UTF-8 with a BOM; without cells where the file is gone."""
    file = file_of(storage, row)
    delimiter = file.delimiter if file else ","
    reason = "" if row["status"] == Status.COMPLETED else row["reason"]
    remaining = lines(file, refused_rows(service_database, row["uuid"], row["run"]), reason)
    yield b"\xef\xbb\xbf"
    while piece := list(islice(remaining, ROWS_AT_ONCE)):
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(piece)
        yield out.getvalue().encode()


def refused_rows(service_database: Engine, import_uuid: UUID, run: int) -> Iterator[Refused]:
    """Every failed row of a run, in the file's order; no connection is held between pages."""
    statement = text("""
        select row_number, errors from import_refused_rows
        where import_uuid = :import_uuid and run = :run and row_number > :last order by row_number limit :limit
    """)
    last = 0
    while True:
        page = {"import_uuid": import_uuid, "run": run, "last": last, "limit": ROWS_AT_ONCE}
        with service_database.connect() as service:
            found = service.execute(statement, page).all()
        if not found:
            return
        yield from ((row.row_number, msgspec.convert(row.errors, list[CellError])) for row in found)
        last = found[-1].row_number


def file_of(storage: Storage, row: RowMapping) -> ImportFile | None:
    """The import's file, or None when it is gone, too large to be read, or has no rows to show."""
    if row["size_bytes"] > MAX_FILE_BYTES:
        return None
    try:
        return validation.open_file(storage.read(row["object_path"], row["generation"]))
    except (ObjectGone, RefusedFile):
        return None


def lines(file: ImportFile | None, refused: Iterator[Refused], reason: str) -> Iterator[list[Any]]:
    """The report's lines. Where no row is at fault but the file as a whole, one line gives the reason."""
    if file is None:
        yield list(REPORT_HEADINGS)
        first = next(refused, None)
        if first is None:
            yield ["", "", "", reason]
            return
        yield from ([number, *explained(errors)] for number, errors in chain([first], refused))
        return
    ours = {normalize_heading(heading) for heading in REPORT_HEADINGS}
    kept = [position for position, heading in enumerate(file.heading) if normalize_heading(heading) not in ours]
    yield [*(file.heading[position] for position in kept), *REPORT_HEADINGS]
    cells_of = file.records()
    first = next(refused, None)
    if first is None and reason:
        yield [*[""] * len(kept), "", "", "", reason]
        return
    for number, errors in chain([first] if first else [], refused):
        cells = next((cells for row_number, cells in cells_of if row_number == number), [])
        if errors[0].code in WITHOUT_CELLS:
            cells = [""] * len(file.heading)
        # A row of more or fewer cells than the heading stays one, so that it is refused again unless it is mended.
        shown = [cells[position] for position in kept if position < len(cells)] + cells[len(file.heading) :]
        yield [*map(escape_cell, shown), number, *explained(errors)]


def explained(errors: list[CellError]) -> tuple[str, str, str]:
    """Columns, codes and sentences of one row."""
    columns = dict.fromkeys(error.column for error in errors if error.column)
    sentences = (f"{BY_KEY[e.column].heading}: {e.message}" if e.column in BY_KEY else e.message for e in errors)
    return ", ".join(columns), ", ".join(dict.fromkeys(e.code for e in errors)), " ".join(sentences)
