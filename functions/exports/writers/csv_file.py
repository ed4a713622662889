"""CSV: the server prints it, and it passes through here untouched.

UTF-8 with a byte order mark, without which spreadsheets take it for something older. An empty cell is an empty text or
no value at all.
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

MOMENT_FORMAT = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'


def write(rows: Rows, sink: BinaryIO, progress: Progress) -> int:
    """Writes the file to `sink` and returns the number of rows."""
    selection = rows.selection
    sink.write(codecs.BOM_UTF8 + heading(selection.columns, selection.delimiter))

    def receive(lines: list[bytes]) -> None:
        sink.write(b"".join(lines))
        progress.add(len(lines))

    printed = [cell(column) for column in selection.columns]
    if len(printed) == 1:
        # A line without anything in it is no row to most readers: here an empty cell is written as two quotes.
        printed = [func.coalesce(cast(printed[0], Text), "")]
    rows.copy(printed, f"format csv, delimiter '{selection.delimiter}'", receive)
    return progress.rows


def heading(columns: tuple[Column, ...], delimiter: str) -> bytes:
    """The first line; lines end as the server ends them."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(column.heading for column in columns)
    return line.getvalue().encode()


def cell(column: Column) -> ColumnElement[Any]:
    """What the server is to print for a column."""
    if column.type in (TEXT, CODE):
        return escape_formula_sql(column.value, is_code=column.type is CODE)
    if column.type is BOOLEAN:
        return cast(column.value, Text)  # true and false, where COPY says t and f
    if column.type is TIMESTAMP:
        return func.to_char(func.timezone("UTC", column.value), MOMENT_FORMAT)
    return column.value
