"""Reads an import file from bytes to records: its format, its encoding, its delimiter, its rows."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from functions.imports.file import headings
from functions.imports.file.cells import make_printable
from shared.messages import CellError
from shared.wording import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator

DELIMITERS = (",", ";", "\t")

# A cell may be as large as its file, whose size is checked before it is read. The default limit of the csv module would
# refuse a cell of 131,073 characters with an error that names neither the row nor the reason.
csv.field_size_limit(2**31 - 1)

_OTHER_FORMATS = (  # the first bytes of a file, and the format that they stand for
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
_XLSX_PART = b"xl/workbook.xml"  # an Excel workbook is a ZIP archive that contains a file of this name
_UTF_16_WITHOUT_MARK = re.compile(rb"(?:[^\x00]\x00){4}|(?:\x00[^\x00]){4}")  # four Latin letters
_SAVE_AS_CSV = 'Save the table as "CSV UTF-8" and upload that file.'


class RefusedFile(Exception):
    """The file as a whole cannot be imported: carries the final state, and the reason as a sentence for the merchant.

    `encoding` and `delimiter` say how the file was read; they are "" if they are not known.
    """

    def __init__(self, status: str, reason: str, encoding: str = "", delimiter: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.encoding = encoding
        self.delimiter = delimiter


class Record(NamedTuple):
    """One row of the file with at least one cell that is not empty."""

    row_number: int  # as a spreadsheet shows it: empty rows count, lines inside quotes do not
    cells: list[str]
    fault: CellError | None  # why the row could not be read; `cells` is then how a spreadsheet would read it


def decode(content: bytes) -> tuple[str, str]:
    """Returns the text of a file and the name of its encoding: UTF-8, UTF-16 (only with its mark) or Windows-1252.

    A file that is not valid UTF-8 is read as Windows-1252, unless most of its non-ASCII characters are valid UTF-8.
    Then it is damaged UTF-8, and any other encoding would import gibberish. Raises RefusedFile if the file has another
    format, is damaged or is not text.
    """
    for start, name in _OTHER_FORMATS:
        if content.startswith(start):
            found = "an Excel workbook (XLSX)" if _XLSX_PART in content else name
            raise _build_refusal(f"This is {found}, not a CSV file.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _decode_utf_16(content), "UTF-16"
    if _UTF_16_WITHOUT_MARK.match(content):
        raise _build_refusal("The file looks like UTF-16, but the byte order mark at its start is missing.")
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return _decode_windows_1252(content), "Windows-1252"


def detect_delimiter(text: str) -> str:
    """Returns the delimiter with which most headings are known; in a tie, most cells count, and then the comma."""
    lines = io.StringIO(text, newline="")

    def count_headings(delimiter: str) -> tuple[int, int]:
        lines.seek(0)
        cells = next(filter(None, csv.reader(lines, delimiter=delimiter)), [])
        return sum(map(headings.is_known, cells)), len(cells)

    return max(DELIMITERS, key=count_headings)


def read_records(text: str, delimiter: str) -> Iterator[Record]:
    """Reads the rows of `text` that are not empty, the heading included.

    A quoted cell that does not end correctly is never repaired by guessing: its row gets a fault, which says how many
    lines belong to that row.
    """
    lines = io.StringIO(text, newline="")  # a line may end with \n, \r\n or \r; each is kept
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
            yield _read_malformed_record(row_number, lines, delimiter)
            continue
        if any(cells):
            yield Record(row_number, cells, None)


def _read_malformed_record(row_number: int, lines: io.StringIO, delimiter: str) -> Record:
    """Reads from `lines` to the end of a record with a malformed quote, as spreadsheets read it."""
    start = lines.tell()
    value = make_printable(lines.read(CellError.VALUE_LENGTH))
    lines.seek(start)
    closing_quote = iter(['"'])  # the reader takes it only if the record has no closing quote
    rows = csv.reader(chain(lines, closing_quote), delimiter=delimiter)
    cells = next(rows)
    if next(closing_quote, None) is None:
        lines_after = rows.line_num - 2
        unread = (
            f"this row and the rest of the file ({format_count(lines_after, 'line')})" if lines_after else "this row"
        )
        message = (
            f"A quoted cell has no closing quote, so {unread} could not be read."
            ' Add the closing quote, and write "" for a quote inside a quoted cell.'
        )
        return Record(row_number, cells, CellError("", value, "unclosed_quote", message))
    lines_read = rows.line_num
    unread = f"this row of {lines_read:,} lines" if lines_read > 1 else "this row"
    message = (
        f"A quoted cell has text after its closing quote, so {unread} could not be read."
        ' Write "" for a quote inside a quoted cell.'
    )
    return Record(row_number, cells, CellError("", value, "text_after_quote", message))


def _decode_utf_16(content: bytes) -> str:
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        intact = content[: error.start].decode("utf-16", "replace")
        raise _build_damage_refusal("UTF-16", intact, len(intact)) from None


def _decode_windows_1252(content: bytes) -> str:
    marked = content.decode("utf-8", "surrogateescape")  # each byte that is not UTF-8 becomes a surrogate
    first_bad = re.search("[\udc80-\udcff]", marked)
    bad = len(re.findall("[\udc80-\udcff]", marked))
    good = sum(character > "\x7f" for character in marked) - bad
    if first_bad and (good > bad or marked.startswith("\N{ZERO WIDTH NO-BREAK SPACE}")):
        raise _build_damage_refusal("UTF-8", marked, first_bad.start())
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError as error:
        text = content.decode("cp1252", "replace")
        raise _build_refusal(
            f"Row {_find_row_number(text, error.start)} contains bytes that are not text in UTF-8 or Windows-1252."
        ) from None


def _build_damage_refusal(encoding: str, text: str, position: int) -> RefusedFile:
    row_number = _find_row_number(text, position)
    return _build_refusal(
        f"The file is {encoding} text, but damaged: row {row_number} contains bytes that are not text."
    )


def _build_refusal(reason: str) -> RefusedFile:
    return RefusedFile("FAILED_HEADERS", f"{reason} {_SAVE_AS_CSV}")


def _find_row_number(text: str, position: int) -> int:
    """Finds the number of the row that contains the character at `position`."""
    rows = csv.reader(io.StringIO(text[: position + 1], newline=""), delimiter=detect_delimiter(text))
    return max(1, sum(1 for _ in rows))
