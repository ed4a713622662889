"""Writes CSV. PostgreSQL prints the lines, and Python passes them on unchanged.

The file is UTF-8 with a byte order mark, without which spreadsheets assume an older encoding. An empty cell is either
an empty text or no value.
"""

from __future__ import annotations

import codecs
import csv
import io
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import Text, case, cast, func, literal_column, or_

from functions.exports.source import BOOLEAN, CODE, TEXT, TIMESTAMP, Column
from shared.columns import E_NOTATION

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from functions.exports.queries import Progress, Rows

FORMULA_START = "=+@\t\r-"  # what makes a spreadsheet run a text; the hyphen last, where a pattern takes it for itself
# What may have to be escaped, by its first character: ' for those that stand before a formula, N for NULL.
SUSPECTS = f"{FORMULA_START}'N"
LAST_OF_TABLE = 127
TABLE = sum(1 << ord(character) for character in SUSPECTS).to_bytes(16, "little")  # a bit a character
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
        return harmless(column.value, is_code=column.type is CODE)
    if column.type is BOOLEAN:
        return cast(column.value, Text)  # COPY prints a boolean as t or f
    if column.type is TIMESTAMP:
        return func.to_char(func.timezone("UTC", column.value), TIMESTAMP_FORMAT)
    return column.value


def harmless(value: ColumnElement[Any], is_code: bool) -> ColumnElement[Any]:
    """`value` with one more apostrophe where a spreadsheet, or the importer, would take it for something else.

    That is a text of any number of apostrophes followed by the start of a formula, or by NULL and nothing more; and a
    code in E-notation, which would be refused as damaged. The importer takes one off exactly those, so that the way
    back is one to one. A pattern a cell would cost more than the rest of the export: the first character rules out
    nearly all of them, looked up in a table of bits (300,000 rows of six texts: 0.06 s; a list of characters 0.08 s).
    """
    pattern = f"[{FORMULA_START}].*|NULL" + (f"|{E_NOTATION}" if is_code else "")
    matches = value.op("~", is_comparison=True)(literal_column(f"'^''*({pattern})$'"))
    escaped = case((matches, literal_column("''''").concat(value)), else_=value)
    first = func.ascii(value)
    suspect = func.get_bit(literal_column(f"'\\x{TABLE.hex()}'::bytea"), func.least(first, LAST_OF_TABLE)) == 1
    if not is_code:
        return case((suspect, escaped), else_=value)
    holds_e = or_(func.strpos(value, "e") > 0, func.strpos(value, "E") > 0)
    number = case((holds_e, escaped), else_=value)
    return case((first.between(ord("0"), ord("9")), number), (suspect, escaped), else_=value)
