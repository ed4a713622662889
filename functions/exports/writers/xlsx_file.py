"""Writes XLSX. openpyxl makes the workbook and its styles, and the rows are streamed into its sheets.

PostgreSQL prints each row as a `<row>` of the sheet's XML, and Python only compresses the stream: 100,000 rows of
eight columns take less than a tenth of the time that openpyxl needs for the cells alone, in constant memory. Rows that
exceed the limits of a sheet continue in the next one.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO
from typing import cast as cast_type
from zipfile import ZIP_DEFLATED, ZipFile

from sqlalchemy import Integer, Numeric, Text, case, cast, func, literal_column

from functions.exports.source import BOOLEAN, CODE, DATE, DECIMAL, INTEGER, TEXT, TIMESTAMP, UUID, Column, ColumnType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement

    from functions.exports.queries import Progress, Rows

MAX_SHEET_ROWS = 1_048_576  # a limit of the file format; the heading counts
MAX_SHEET_BYTES = 2_000_000_000  # of XML; a sheet of 2 GiB or more needs ZIP64, which some programs cannot read
MAX_CELL_LENGTH = 32_767  # of a text, in UTF-16 code units: a limit of the file format
MAX_TITLE_LENGTH = 31  # of a sheet: a limit of the file format
COMPRESSION_LEVEL = 1  # the file is a fifth larger than at level 6, and takes a third of the time


def raw_sql(expression: str) -> ColumnElement[Any]:
    """Returns our own SQL unchanged. SQLAlchemy would double the backslashes of its own literals."""
    return literal_column(expression)


# The ranges that are written as numbers and dates; values outside are written as text. A spreadsheet stores a number
# as a double, which would lose digits of a longer one. Its calendar starts on 1900-01-01, and is right from March on:
# it treats 1900 as a leap year.
NUMBER_RANGE = raw_sql("-999999999999999"), raw_sql("999999999999999")
DATE_RANGE = raw_sql("date '1900-03-01'"), raw_sql("date '9999-12-31'")
TIMESTAMP_RANGE = (
    raw_sql("timestamptz '1900-03-01 00:00:00+00'"),
    raw_sql("timestamptz '9999-12-31 00:00:00+00'"),
)
DATE_ZERO = raw_sql("date '1899-12-30'")
TIMESTAMP_ZERO = raw_sql("timestamptz '1899-12-30 00:00:00+00'")
SECONDS_PER_DAY = raw_sql("86400")

NUMBER_FORMATS = {
    TEXT: "@",
    CODE: "@",
    UUID: "@",
    INTEGER: "0",
    DECIMAL: "0.00",
    BOOLEAN: "General",
    DATE: "yyyy-mm-dd",
    TIMESTAMP: 'yyyy-mm-dd hh:mm:ss" UTC"',
}
WIDTHS = {TEXT: 30, CODE: 18, UUID: 38, INTEGER: 12, DECIMAL: 12, BOOLEAN: 10, DATE: 12, TIMESTAMP: 25}  # characters
FILTER_BUTTON_WIDTH = 4  # in characters, beside a heading

EMPTY_CELL = raw_sql("'<c/>'")
# Characters of a text that need escaping in a row: markup, what COPY escapes, what XML forbids, and spaces at either
# end, which readers drop unless the text is marked.
CONTROLS = "\x01-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff"
NEEDS_ESCAPING = raw_sql(f"'[&<>\\\\\t\n\r{CONTROLS}]|^ | $'")
FORBIDDEN = raw_sql(f"'[{CONTROLS}]'")
REPLACEMENT = raw_sql("'\N{REPLACEMENT CHARACTER}'")
ONE_UNIT_CHARACTER = raw_sql("'[^\U00010000-\U0010ffff]'")  # the others take two units in UTF-16
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def write(rows: Rows, sink: BinaryIO, progress: Progress) -> int:
    """Writes the file to `sink` and returns the number of rows."""
    columns = rows.selection.columns
    out = ForwardOnlySink(sink)
    with ZipFile(cast_type("BinaryIO", out), "w", ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        sheets = Sheets(archive, rows.selection.source.heading, columns)

        def receive(lines: list[bytes]) -> None:
            sheets.add(lines)
            progress.add(len(lines))

        styles = sheets.skeleton.styles
        cells = [format_cell(column, style) for column, style in zip(columns, styles, strict=True)]
        row = func.concat(raw_sql("'<row>'"), *cells, raw_sql("'</row>'"))
        try:
            rows.copy([row], "format text", receive)
            sheets.finish()
        except BaseException:
            out.is_abandoned = True
            sheets.part.close()
            raise
    return progress.rows


class ForwardOnlySink:
    """A sink without `seek`, so that ZipFile writes from start to end and never returns to earlier bytes.

    An abandoned sink discards what ZipFile still writes when it is closed. After a failure the sink must not contain an
    archive that seems complete, and the original error must be the one that is raised.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self.is_abandoned = False
        self._sink = sink

    def write(self, data: bytes, /) -> int:
        """Appends `data`."""
        return len(data) if self.is_abandoned else self._sink.write(data)

    def flush(self) -> None:
        """Does nothing: the sink decides itself when to send what it has buffered."""


@dataclass
class Sheets:
    """The sheets of a workbook while it is written, one after the other."""

    archive: ZipFile
    title: str
    columns: tuple[Column, ...]
    row_counts: list[int] = field(default_factory=list)  # of each sheet, without the heading
    size_bytes: int = 0  # of the open sheet's XML

    def __post_init__(self) -> None:
        self.skeleton = build_skeleton(self.title, self.columns, [0])
        self.open_sheet()

    def open_sheet(self) -> None:
        """Opens the next sheet."""
        self.row_counts.append(0)
        self.part = self.archive.open(sheet_path(len(self.row_counts)), "w")
        self.part.write(self.skeleton.head)
        self.size_bytes = len(self.skeleton.head)

    def add(self, lines: list[bytes]) -> None:
        """Writes rows. Those that exceed this sheet's limits are written to the next one."""
        free_rows = MAX_SHEET_ROWS - 1 - self.row_counts[-1]
        if self.size_bytes > MAX_SHEET_BYTES:
            free_rows = 0
        fitting, remaining = lines[:free_rows], lines[free_rows:]
        block = b"".join(fitting)
        self.part.write(block)
        self.size_bytes += len(block)
        self.row_counts[-1] += len(fitting)
        if remaining:
            self.close_sheet()
            self.open_sheet()
            self.add(remaining)

    def close_sheet(self) -> None:
        """Closes the open sheet."""
        self.part.write(build_skeleton(self.title, self.columns, self.row_counts).tail)
        self.part.close()

    def finish(self) -> None:
        """Closes the last sheet and writes the other parts of the workbook."""
        self.close_sheet()
        for path, content in build_skeleton(self.title, self.columns, self.row_counts).other_parts.items():
            self.archive.writestr(path, content)


@dataclass(frozen=True)
class Skeleton:
    """A workbook without its rows."""

    head: bytes  # of each sheet: everything before the first row below the heading
    tail: bytes  # of the last sheet: everything after its rows
    other_parts: dict[str, bytes]  # the parts that are not sheets, by path
    styles: tuple[int, ...]  # the number of the style of each column's cells


def build_skeleton(title: str, columns: tuple[Column, ...], row_counts: list[int]) -> Skeleton:
    """Makes a workbook with openpyxl, with one sheet per item of `row_counts`, and splits it into its parts."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    book = Workbook()
    book.properties.creator, book.properties.title = "", title
    book.remove(book.worksheets[0])
    for number, row_count in enumerate(row_counts, start=1):
        suffix = f" ({number})" if number > 1 else ""
        sheet = book.create_sheet(title[: MAX_TITLE_LENGTH - len(suffix)] + suffix)
        sheet.append([column.heading for column in columns])
        for position, column in enumerate(columns, start=1):
            sheet.cell(1, position).font = Font(bold=True)
            width = max(WIDTHS[column.type], len(column.heading) + FILTER_BUTTON_WIDTH)
            sheet.column_dimensions[get_column_letter(position)].width = width
        sheet.freeze_panes = "A2"
        sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{row_count + 1}"
    styles = []
    for column in columns:
        cell = WriteOnlyCell(book.worksheets[0])
        cell.number_format = NUMBER_FORMATS[column.type]
        styles.append(cell.style_id)
    content = io.BytesIO()
    book.save(content)
    with ZipFile(content) as archive:
        parts = {path: archive.read(path) for path in archive.namelist()}
    sheets = [parts.pop(sheet_path(number)) for number in range(1, len(row_counts) + 1)]
    head, end_of_rows, tail = sheets[-1].partition(b"</sheetData>")
    # The dimension of a sheet is optional, and not known when the sheet is opened.
    return Skeleton(re.sub(rb"<dimension[^>]*/>", b"", head), end_of_rows + tail, parts, tuple(styles))


def sheet_path(number: int) -> str:
    """Returns the path of a sheet in the archive."""
    return f"xl/worksheets/sheet{number}.xml"


def format_cell(column: Column, style: int) -> ColumnElement[Any]:
    """Returns the SQL that prints a cell of this column.

    Cells do not contain their position: every row has all of its cells, in order.
    """
    return func.coalesce(CELL_FORMATTERS[column.type](column.value, style), EMPTY_CELL)


def wrap_value(value: ColumnElement[Any], style: int, type_attribute: str = "") -> ColumnElement[Any]:
    """Returns a cell of a value that contains no markup, or NULL for NULL."""
    head = raw_sql(f"""'<c s="{style}"{type_attribute}><v>'""")
    return head.concat(cast(value, Text)).concat(raw_sql("'</v></c>'"))


def wrap_text(value: ColumnElement[Any], style: int, attributes: str = "") -> ColumnElement[Any]:
    """Returns a cell of a text that is already escaped, or NULL for NULL."""
    head = raw_sql(f"""'<c s="{style}" t="inlineStr"><is><t{attributes}>'""")
    return head.concat(value).concat(raw_sql("'</t></is></c>'"))


def format_text(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a text. It is kept exactly, as far as XML can represent it, and is never a formula."""
    needs_escaping = value.op("~", is_comparison=True)(NEEDS_ESCAPING)
    may_be_too_long = func.octet_length(value) > MAX_CELL_LENGTH
    escaped = wrap_text(escape_xml(truncate(value)), style, ' xml:space="preserve"')
    return case((needs_escaping | may_be_too_long, escaped), else_=wrap_text(value, style))


def truncate(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Cuts `value` to the length that a cell can contain."""
    two_unit_characters = func.length(func.regexp_replace(value, ONE_UNIT_CHARACTER, raw_sql("''"), raw_sql("'g'")))
    fits = func.length(value) + two_unit_characters <= MAX_CELL_LENGTH
    return case((fits, value), else_=func.left(value, MAX_CELL_LENGTH - two_unit_characters))


def escape_xml(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Escapes `value` for XML. A character that XML forbids becomes a replacement character."""
    escaped = func.regexp_replace(value, FORBIDDEN, REPLACEMENT, raw_sql("'g'"))
    for character, entity in ENTITIES.items():
        escaped = func.replace(escaped, func.chr(ord(character)), raw_sql(f"'{entity}'"))
    return escaped


def format_uuid(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a UUID as text."""
    return wrap_text(cast(value, Text), style)


def format_integer(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a whole number."""
    return wrap_value(value, style)


def format_decimal(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a number. It is text if a spreadsheet's number would lose digits of it, or if it is NaN."""
    return case((value.between(*NUMBER_RANGE), wrap_value(value, style)), else_=wrap_text(cast(value, Text), style))


def format_boolean(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats true or false."""
    return wrap_value(cast(value, Integer), style, ' t="b"')


def format_date(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a date as the number of days since day zero."""
    days = value - DATE_ZERO
    return case((value.between(*DATE_RANGE), wrap_value(days, style)), else_=wrap_text(cast(value, Text), style))


def format_timestamp(value: ColumnElement[Any], style: int) -> ColumnElement[Any]:
    """Formats a timestamp, in UTC, as the number of days since day zero."""
    days = cast(func.extract("epoch", value - TIMESTAMP_ZERO) / SECONDS_PER_DAY, Numeric(15, 9))
    return case((value.between(*TIMESTAMP_RANGE), wrap_value(days, style)), else_=wrap_text(cast(value, Text), style))


CELL_FORMATTERS: dict[ColumnType, Callable[[ColumnElement[Any], int], ColumnElement[Any]]] = {
    TEXT: format_text,
    CODE: format_text,
    UUID: format_uuid,
    INTEGER: format_integer,
    DECIMAL: format_decimal,
    BOOLEAN: format_boolean,
    DATE: format_date,
    TIMESTAMP: format_timestamp,
}
