"""The error report: a CSV of every failed row as it stands in the file, with what was wrong behind its own columns.

Mended, it is uploaded again as it is: the importer knows the report's columns and skips them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, RowMapping, text

from shared.columns import BY_KEY, E_NOTATION, REPORT_HEADINGS, folded
from shared.errors import ObjectGone
from shared.imports import validation
from shared.imports.validation import ImportFile, RefusedFile
from shared.messages import CellError

if TYPE_CHECKING:  # at run time they come with whoever makes the clients
    from shared.clients.bucket import Storage

FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(rf"[+-]?[\d.,]+|{E_NOTATION}")  # a spreadsheet runs none of these
# Rows with broken quotes have no certain cells: written as they were read, they would pass as good ones when uploaded
# again unmended. Without an identifier they are refused again.
WITHOUT_CELLS = ("text_after_quote", "unclosed_quote")
ROWS_AT_ONCE = 1000  # of the answer's stream

Refused = tuple[int, list[CellError]]


def report(service: Connection, storage: Storage, row: RowMapping) -> Iterator[bytes]:
    """The report of the import in `row`, in pieces of UTF-8 with a BOM; without cells where the file is gone."""
    refused = refused_rows(service, row["uuid"], row["run"])
    file = file_of(storage, row)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=(file and file.delimiter) or ",", lineterminator="\r\n")
    out.write("\ufeff")
    for number, line in enumerate(lines(file, refused, row["reason"]), start=1):
        writer.writerow(line)
        if number % ROWS_AT_ONCE == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def refused_rows(service: Connection, import_uuid: UUID, run: int) -> list[Refused]:
    """Every failed row of a run, in the file's order."""
    statement = text("""
        select row_number, errors from import_refused_rows
        where import_uuid = :import_uuid and run = :run order by row_number
    """)
    found = service.execute(statement, {"import_uuid": import_uuid, "run": run})
    return [(row.row_number, msgspec.convert(row.errors, list[CellError])) for row in found]


def file_of(storage: Storage, row: RowMapping) -> ImportFile | None:
    """The import's file, or None when it is gone or has no rows to show."""
    try:
        return validation.open_file(storage.read(row["object_path"], row["generation"]))
    except (ObjectGone, RefusedFile):
        return None


def lines(file: ImportFile | None, refused: list[Refused], reason: str) -> Iterator[list[Any]]:
    """The report's lines. Where no row is at fault but the file as a whole, one line gives the reason."""
    if file is None:
        yield list(REPORT_HEADINGS)
        yield from ([number, *explained(errors)] for number, errors in refused)
        if not refused:
            yield ["", "", "", reason]
        return
    ours = {folded(heading) for heading in REPORT_HEADINGS}
    kept = [position for position, heading in enumerate(file.heading) if folded(heading) not in ours]
    yield [*(file.heading[position] for position in kept), *REPORT_HEADINGS]
    cells_of = file.records()
    for number, errors in refused:
        cells = next((cells for row_number, cells in cells_of if row_number == number), [])
        if errors[0].code in WITHOUT_CELLS:
            cells = [""] * len(file.heading)
        # A row of more or fewer cells than the heading stays one, so that it is refused again unless it is mended.
        shown = [cells[position] for position in kept if position < len(cells)] + cells[len(file.heading) :]
        yield [*map(harmless, shown), number, *explained(errors)]


def explained(errors: list[CellError]) -> tuple[str, str, str]:
    """Columns, codes and sentences of one row."""
    columns = dict.fromkeys(error.column for error in errors if error.column)
    sentences = (f"{BY_KEY[e.column].heading}: {e.message}" if e.column in BY_KEY else e.message for e in errors)
    return ", ".join(columns), ", ".join(dict.fromkeys(e.code for e in errors)), " ".join(sentences)


def harmless(cell: str) -> str:
    """The cell as it is, unless a spreadsheet would run it."""
    return f"'{cell}" if cell.startswith(FORMULA_START) and not NUMBER.fullmatch(cell) else cell
