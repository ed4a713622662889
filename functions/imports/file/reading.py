"""An import file from bytes to records: what it is, its encoding, its delimiter, its rows."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from functions.imports.file import headings
from functions.imports.file.cells import printable
from shared.messages import CellError

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIMITERS = (",", ";", "\t")

# One cell may be as large as its file, and the size of a file is checked before it is read. The module's own limit
# would refuse a cell of 131,073 characters with an error that names neither row nor reason.
csv.field_size_limit(2**31 - 1)

_OTHER_FORMATS = (  # what a file starts with, and what it is then
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (XLS)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\xff\xfe\x00\x00", "text in UTF-32"),
    (b"\x00\x00\xfe\xff", "text in UTF-32"),
)
_XLSX_PART = b"xl/workbook.xml"  # the name of a file inside the ZIP archive that every Excel workbook is
_UTF_16_WITHOUT_MARK = re.compile(rb"(?:[^\x00]\x00){4}|(?:\x00[^\x00]){4}")  # how Latin letters look in it
_SAVE_AS_CSV = 'Save the table as "CSV UTF-8" and upload that.'


class RefusedFile(Exception):
    """The file as a whole can't be imported: the final state, and the reason as a sentence for the merchant.

    `encoding` and `delimiter` say how it was read, "" where it did not come to that.
    """

    def __init__(self, status: str, reason: str, encoding: str = "", delimiter: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.encoding = encoding
        self.delimiter = delimiter


class Record(NamedTuple):
    """One row of the file in which at least one cell is filled."""

    row_number: int  # as a spreadsheet shows it: rows without any filled cell count, lines inside quotes don't
    cells: list[str]
    fault: CellError | None  # why the row could not be read; `cells` are what a spreadsheet makes of it


def decode(content: bytes) -> tuple[str, str]:
    """The text of a file and the name of its encoding: UTF-8, UTF-16 (with its mark only) or Windows-1252.

    What is not valid UTF-8 is Windows-1252, unless most of its non-ASCII characters are valid UTF-8: that is UTF-8
    which was damaged, and reading it as anything else would import gibberish. Raises RefusedFile for what is empty, is
    another kind of file, is damaged or is no text at all.
    """
    for start, name in _OTHER_FORMATS:
        if content.startswith(start):
            found = "an Excel workbook (XLSX)" if _XLSX_PART in content else name
            raise _no_text(f"This is {found}, not a CSV file.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decoded_utf_16(content), "UTF-16"
    if _UTF_16_WITHOUT_MARK.match(content):
        raise _no_text("This looks like UTF-16, but the byte order mark at its start is missing.")
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return _decoded_windows_1252(content), "Windows-1252"


def delimiter_of(text: str) -> str:
    """The delimiter under which most headings are known; the one with the most cells, then comma, where that ties."""
    lines = io.StringIO(text, newline="")

    def headings_known(delimiter: str) -> tuple[int, int]:
        lines.seek(0)
        cells = next(filter(None, csv.reader(lines, delimiter=delimiter)), [])
        return sum(map(headings.known, cells)), len(cells)

    return max(DELIMITERS, key=headings_known)


def records(text: str, delimiter: str) -> Iterator[Record]:
    """Reads the rows of `text`, heading included, that have a filled cell.

    A quoted cell that does not end where it should is never mended by guessing: its row comes with a fault, and says
    how many lines went with it.
    """
    lines = io.StringIO(text, newline="")  # ends a line at \n, \r\n and \r alike and leaves each as it is
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    row_number = 0
    while True:
        start = lines.tell()
        row_number += 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error:
            lines.seek(start)
            yield _malformed(row_number, lines, delimiter)
            continue
        if any(cells):
            yield Record(row_number, cells, None)


def _malformed(row_number: int, lines: io.StringIO, delimiter: str) -> Record:
    """Reads on in `lines` to the end of a record with a malformed quote, as spreadsheets do."""
    start = lines.tell()
    value = printable(lines.read(CellError.VALUE_LENGTH))
    lines.seek(start)
    closing_quote = iter(['"'])  # what is left of it afterwards tells whether the record needed it
    rows = csv.reader(chain(lines, closing_quote), delimiter=delimiter)
    cells = next(rows)
    how_to_mend = 'Write "" for a quote inside a quoted cell.'
    if next(closing_quote, None) is None:
        lines_after = rows.line_num - 2
        what = f"this row and everything after it ({lines_after:,} lines)" if lines_after else "this row"
        message = f"A quoted cell is never closed, so {what} could not be read. Close it. {how_to_mend}"
        return Record(row_number, cells, CellError("", value, "unclosed_quote", message))
    lines_after = rows.line_num - 1
    what = f"this row, {lines_after + 1:,} lines long," if lines_after else "this row"
    message = f"Text stands after the closing quote of a cell, so {what} could not be read. {how_to_mend}"
    return Record(row_number, cells, CellError("", value, "text_after_quote", message))


def _decoded_utf_16(content: bytes) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        intact = content[: error.start].decode("utf-16", "replace")
        raise _damaged("UTF-16", intact, len(intact)) from None


def _decoded_windows_1252(content: bytes) -> str:
    marked = content.decode("utf-8", "surrogateescape")  # each byte that is no UTF-8 becomes a surrogate
    first_bad = re.search("[\udc80-\udcff]", marked)
    bad = len(re.findall("[\udc80-\udcff]", marked))
    good = sum(character > "\x7f" for character in marked) - bad
    if first_bad and (good > bad or marked.startswith("\N{ZERO WIDTH NO-BREAK SPACE}")):
        raise _damaged("UTF-8", marked, first_bad.start())
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        text = content.decode("cp1252", "replace")
        raise _no_text(
            f"Row {_row_at(text, error.start)} holds bytes that are no text, neither in UTF-8 nor in Windows-1252."
        ) from None


def _damaged(encoding: str, text: str, position: int) -> RefusedFile:
    return _no_text(f"The file is {encoding}, but damaged: row {_row_at(text, position)} holds bytes that are no text.")


def _row_at(text: str, position: int) -> int:
    rows = csv.reader(io.StringIO(text[: position + 1], newline=""), delimiter=delimiter_of(text))
    return max(1, sum(1 for _ in rows))


def _no_text(what: str) -> RefusedFile:
    return RefusedFile("FAILED_HEADERS", f"{what} {_SAVE_AS_CSV}")
