"""Writes CSV. PostgreSQL prints the lines, and Python passes them on unchanged.

The file is UTF-8 with a byte order mark, without which spreadsheets assume an older encoding. An empty cell is either
an empty text or no value.
"""

from __future__ import annotations

import codecs
import csv
import io
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import Text, cast, func

from functions.exports.source import BOOLEAN, CODE, TEXT, TIMESTAMP, Column
from shared.formulas import escape_formula_sql

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from functions.exports.queries import Progress, Rows

TIMESTAMP_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'


def write(rows: Rows, sink: BinaryIO, progress: Progress) -> int:
    """Writes the file to `sink` and returns the number of rows."""
    selection = rows.selection
    sink.write(codecs.BOM_UTF8 + format_heading(selection.columns, selection.delimiter))

    def receive(lines: list[bytes]) -> None:
        sink.write(b"".join(lines))
        progress.add(len(lines))

    cells = [format_cell(column) for column in selection.columns]
    if len(cells) == 1:
        # Most readers skip an empty line. So in a file of one column an empty cell is written as two quotes.
        cells = [func.coalesce(cast(cells[0], Text), "")]
    rows.copy(cells, f"format csv, delimiter '{selection.delimiter}'", receive)
    return progress.rows


def format_heading(columns: tuple[Column, ...], delimiter: str) -> bytes:
    """Returns the first line. Its line end is the one that PostgreSQL writes."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(column.heading for column in columns)
    return line.getvalue().encode()


def format_cell(column: Column) -> ColumnElement[Any]:
    """Returns the SQL that prints a cell of this column."""
    if column.type in (TEXT, CODE):
        return escape_formula_sql(column.value, is_code=column.type is CODE)
    if column.type is BOOLEAN:
        return cast(column.value, Text)  # COPY prints a boolean as t or f
    if column.type is TIMESTAMP:
        return func.to_char(func.timezone("UTC", column.value), TIMESTAMP_FORMAT)
    return column.value
