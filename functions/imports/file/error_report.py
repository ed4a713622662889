"""The error report: a CSV of every failed row with its cells as in the file, followed by columns with its errors.

The merchant corrects it and uploads it again: the importer knows the report's own columns and skips them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import Engine, RowMapping, select

from functions.imports.file import validation
from functions.imports.file.validation import ImportFile, RefusedFile
from functions.imports.states import MAX_FILE_BYTES, Status
from shared.columns import BY_KEY, REPORT_HEADINGS, normalize_heading
from shared.errors import ObjectGone
from shared.formulas import escape_cell
from shared.messages import CellError
from shared.tables.service import import_refused_rows

if TYPE_CHECKING:  # the caller makes the clients, so this module need not load them
    from shared.clients.bucket import Storage

# Codes of rows with malformed quotes, whose cells are not certain. Repeated as they were read, they would pass as good
# rows when the report is uploaded uncorrected; without an identifier they are refused again.
CODES_WITHOUT_CELLS = ("text_after_quote", "unclosed_quote")
PAGE_ROWS = 2000  # read from the ledger and sent together: a file of 5 MB can have a million refused rows

Refused = tuple[int, list[CellError]]  # row number and errors


def stream_report(service_db: Engine, storage: Storage, row: RowMapping) -> Iterator[bytes]:
    """Streams the report of the import in `row`: UTF-8 with a byte order mark, without cells if the file is gone."""
    file = open_import_file(storage, row)
    delimiter = file.delimiter if file else ","
    reason = "" if row["status"] == Status.COMPLETED else row["reason"]
    remaining = build_lines(file, fetch_refused_rows(service_db, row["uuid"], row["run"]), reason)
    yield b"\xef\xbb\xbf"
    while lines := list(islice(remaining, PAGE_ROWS)):
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(lines)
        yield out.getvalue().encode()


def fetch_refused_rows(service_db: Engine, import_uuid: UUID, run: int) -> Iterator[Refused]:
    """Fetches every failed row of a run in the file's order. It holds no connection between two pages."""
    columns = import_refused_rows.c
    of_run = select(columns.row_number, columns.errors).where(columns.import_uuid == import_uuid, columns.run == run)
    last = 0
    while True:
        page = of_run.where(columns.row_number > last).order_by(columns.row_number).limit(PAGE_ROWS)
        with service_db.connect() as conn:
            rows = conn.execute(page).all()
        if not rows:
            return
        yield from ((row.row_number, msgspec.convert(row.errors, list[CellError])) for row in rows)
        last = rows[-1].row_number


def open_import_file(storage: Storage, row: RowMapping) -> ImportFile | None:
    """Opens the import's file. Returns None if the file is gone, too large to read, or refused as a whole."""
    if row["size_bytes"] > MAX_FILE_BYTES:
        return None
    try:
        return validation.open_file(storage.read(row["object_path"], row["generation"]))
    except (ObjectGone, RefusedFile):
        return None


def build_lines(file: ImportFile | None, refused: Iterator[Refused], reason: str) -> Iterator[list[Any]]:
    """Builds the lines of the report. If no row failed but the file as a whole, one line gives the reason."""
    if file is None:
        yield list(REPORT_HEADINGS)
        first = next(refused, None)
        if first is None:
            yield ["", "", "", reason]
            return
        yield from ([row_number, *describe_errors(errors)] for row_number, errors in chain([first], refused))
        return
    report_headings = {normalize_heading(heading) for heading in REPORT_HEADINGS}
    kept = [index for index, heading in enumerate(file.heading) if normalize_heading(heading) not in report_headings]
    yield [*(file.heading[index] for index in kept), *REPORT_HEADINGS]
    rows = file.read_rows()
    first = next(refused, None)
    if first is None and reason:
        yield [*[""] * len(kept), "", "", "", reason]
        return
    for refused_row_number, errors in chain([first] if first else [], refused):
        cells = next((cells for row_number, cells in rows if row_number == refused_row_number), [])
        if errors[0].code in CODES_WITHOUT_CELLS:
            cells = [""] * len(file.heading)
        # A row with more or fewer cells than the heading keeps them, so that it is refused again until it is corrected.
        kept_cells = [cells[index] for index in kept if index < len(cells)] + cells[len(file.heading) :]
        yield [*map(escape_cell, kept_cells), refused_row_number, *describe_errors(errors)]


def describe_errors(errors: list[CellError]) -> tuple[str, str, str]:
    """Returns the columns, the codes and the sentences of the errors of one row."""
    columns = dict.fromkeys(error.column for error in errors if error.column)
    codes = dict.fromkeys(error.code for error in errors)
    sentences = (
        f"{BY_KEY[error.column].heading}: {error.message}" if error.column in BY_KEY else error.message
        for error in errors
    )
    return ", ".join(columns), ", ".join(codes), " ".join(sentences)
