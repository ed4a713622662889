"""A file from bytes to records: other formats, encodings, delimiters, quotes and line ends."""

from __future__ import annotations

import codecs
import gzip
import io
import time
import zipfile

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.imports.file.reading import DELIMITERS, RefusedFile, decode, detect_delimiter, read_records

# Of CPU, for 1 MB. It takes less than a second, more on a busy machine or with coverage; the square of its length would
# be hours.
MAX_SECONDS = 60


def make_xlsx() -> bytes:
    file = io.BytesIO()
    workbook = openpyxl.Workbook()
    workbook.active.append(["identifier", "price"])
    workbook.save(file)
    return file.getvalue()


def make_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("products.csv", "identifier,price\nP-1,5\n")
    return file.getvalue()


OTHER_FORMATS = {
    "a PNG image": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a JPEG image": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "a GIF image": b"GIF89a\x01\x00\x01\x00",
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "an old Office document (XLS)": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
    "a gzip archive": gzip.compress(b"identifier,price\nP-1,5\n", mtime=0),
    "a ZIP archive": make_zip(),
    "an Excel workbook (XLSX)": make_xlsx(),
    "text in UTF-32": "identifier,price".encode("utf-32"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS, ids=str)
def test_a_file_in_another_format_is_named(name: str) -> None:
    """A merchant who uploads a workbook under the name products.csv reads what it is and what to do."""
    with pytest.raises(RefusedFile) as refusal:
        decode(OTHER_FORMATS[name])

    assert refusal.value.status == "FAILED_HEADERS"
    assert (
        refusal.value.reason == f'This is {name}, not a CSV file. Save the table as "CSV UTF-8" and upload that file.'
    )


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("identifier\nmug é €\n".encode(), "UTF-8"),
        ("identifier\nmug é €\n".encode("utf-8-sig"), "UTF-8"),
        (codecs.BOM_UTF16_LE + "identifier\nmug é €\n".encode("utf-16-le"), "UTF-16"),
        (codecs.BOM_UTF16_BE + "identifier\nmug é €\n".encode("utf-16-be"), "UTF-16"),
        ("identifier\nmug é €\n".encode("cp1252"), "Windows-1252"),
    ],
    ids=["UTF-8", "UTF-8 with mark", "UTF-16 little-endian", "UTF-16 big-endian", "Windows-1252"],
)
def test_an_encoding_is_detected(content: bytes, encoding: str) -> None:
    """The same table is read from every encoding, without its byte order mark."""
    assert decode(content) == ("identifier\nmug é €\n", encoding)


def test_plain_ascii_is_utf_8() -> None:
    """UTF-8 is the encoding that merchants expect for a file without special characters."""
    assert decode(b"identifier\nP-1\n") == ("identifier\nP-1\n", "UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"], ids=["little-endian", "big-endian"])
def test_utf_16_without_its_mark_is_refused(encoding: str) -> None:
    """It could only be guessed, and a wrong guess would import gibberish."""
    with pytest.raises(RefusedFile, match="looks like UTF-16, but the byte order mark at its start is missing"):
        decode("identifier,price\nP-1,5\n".encode(encoding))


@pytest.mark.parametrize(
    "content",
    [
        "identifier,name\nP-1,Crème\nP-2,Brûlée\n".encode() + b"P-3,Caf\xc3\n",
        codecs.BOM_UTF8 + b"identifier,name\nP-1,a\nP-2,b\nP-3,Caf\xe9\n",
        'identifier;name\nP-1;"Crème\nbrûlée"\n\n'.encode() + b'P-3;"\xed\xa0\x80"\n' + "P-4;éééé\n".encode(),
        codecs.BOM_UTF16_LE + "identifier,name\nP-1,a\nP-2,b\nP-3,".encode("utf-16-le") + b"\x00\xd8\n\x00",
        codecs.BOM_UTF16_LE + "identifier,name\nP-1,a\nP-2,b\nP-3,".encode("utf-16-le") + b"\x00",
        b"identifier,name\nP-1,a\nP-2,\xe9\nP-3,\x81\n",
    ],
    ids=[
        "cut UTF-8",
        "UTF-8 with mark",
        "lone surrogate",
        "UTF-16 lone surrogate",
        "half a UTF-16 character",
        "not text",
    ],
)
def test_damaged_text_is_refused_with_its_first_bad_row(content: bytes) -> None:
    """Damaged UTF-8 would become gibberish in any other encoding."""
    with pytest.raises(RefusedFile) as refusal:
        decode(content)

    assert refusal.value.status == "FAILED_HEADERS"
    assert "row 4 contains bytes that are not text" in refusal.value.reason.lower()


def test_windows_1252_with_a_few_pairs_that_look_like_utf_8_is_windows_1252() -> None:
    """There are fewer accidental pairs than letters that are not UTF-8."""
    text = "identifier,name\nP-1,Ã© Crème brûlée à la carte\n"

    assert decode(text.encode("cp1252")) == (text, "Windows-1252")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("identifier,price\nP-1;P-2;P-3,5\n", ","),
        ("identifier;price\nP-1;1,50\n", ";"),
        ("identifier\tprice\nP-1\t1,50\n", "\t"),
        ('"identifier";"price"\n', ";"),
        ("\n\n;;\nidentifier;price\n", ";"),
        ("identifier;foo,bar,baz\n", ";"),
        ("foo;bar\n", ";"),
        ("identifier\n", ","),
        ("", ","),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "quoted",
        "blank rows first",
        "a known heading",
        "most cells",
        "one cell",
        "empty",
    ],
)
def test_the_delimiter_is_the_one_with_which_most_headings_are_known(text: str, delimiter: str) -> None:
    """The other rows prove nothing: they may contain more decimal commas than delimiters."""
    assert detect_delimiter(text) == delimiter


def read_rows(text: str) -> list[tuple[int, list[str]]]:
    return [(record.row_number, record.cells) for record in read_records(text, ",")]


def read_faults(text: str) -> dict[int, str]:
    return {record.row_number: record.fault.code for record in read_records(text, ",") if record.fault}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CR LF", "CR"])
def test_every_line_end_ends_a_row(end: str) -> None:
    """Operating systems end lines in three ways, and editors mix them."""
    assert read_rows(end.join(["a,b", "1,2", "3,4"])) == [(1, ["a", "b"]), (2, ["1", "2"]), (3, ["3", "4"])]


def test_mixed_line_ends_and_a_missing_last_one() -> None:
    """A file that was joined from several files is read as one."""
    assert read_rows("a\nb\r\nc\rd\n\re") == [(1, ["a"]), (2, ["b"]), (3, ["c"]), (4, ["d"]), (6, ["e"])]


def test_line_ends_inside_quotes_are_kept_and_not_counted() -> None:
    """Row numbers are those of a spreadsheet, in which a cell of three lines is one row."""
    assert read_rows('a,b\n"x\ny\r\nz\rw",1\nc,2') == [(1, ["a", "b"]), (2, ["x\ny\r\nz\rw", "1"]), (3, ["c", "2"])]


def test_blank_rows_are_skipped_and_counted() -> None:
    """The rows after them have the number that a spreadsheet shows."""
    assert read_rows('a,b\n\n,\n"",""\n1,2\n\n') == [(1, ["a", "b"]), (5, ["1", "2"])]


def test_a_quote_inside_an_unquoted_cell_is_a_character() -> None:
    """It is used for inches."""
    assert read_rows('P-1,27" screen,5\nP-2,a ""b"",6') == [
        (1, ["P-1", '27" screen', "5"]),
        (2, ["P-2", 'a ""b""', "6"]),
    ]


def test_text_after_a_closing_quote_refuses_its_row_alone() -> None:
    """The end of the cell is not certain, but the rows around it are."""
    text = 'a,b\n"27" screen",5\nc,6\n"x"y\n'

    assert read_faults(text) == {2: "text_after_quote", 4: "text_after_quote"}
    assert read_rows(text) == [(1, ["a", "b"]), (2, ['27 screen"', "5"]), (3, ["c", "6"]), (4, ["xy"])]


def test_a_malformed_quote_says_how_many_lines_it_spans() -> None:
    """A quote that opens in one row and closes inside a later one joins all rows between them."""
    text = 'a,b\nP-2,"oops\nP-3,x\nP-4,"y",1\nP-5,z\n'

    assert read_faults(text) == {2: "text_after_quote"}
    (fault,) = (record.fault for record in read_records(text, ",") if record.fault)
    assert "so this row of 3 lines could not be read" in fault.message
    assert read_rows(text)[-1] == (3, ["P-5", "z"])


@pytest.mark.parametrize(
    ("rest", "unread"),
    [("", "this row"), ("P-4,x\n", "(1 line)"), ("P-4,x\nP-5,y\n", "this row and the rest of the file (2 lines)")],
    ids=["no line", "one line", "two lines"],
)
def test_an_unclosed_quote_is_one_row_that_says_what_could_not_be_read(rest: str, unread: str) -> None:
    """The rows below it cannot be separated, so they are refused and not lost silently."""
    text = f'a,b\nP-2,x\nP-3,"oops\n{rest}'

    assert read_faults(text) == {3: "unclosed_quote"}
    (fault,) = (record.fault for record in read_records(text, ",") if record.fault)
    assert fault.message.startswith("A quoted cell has no closing quote, so this row")
    assert f"{unread} could not be read. Add the closing quote" in fault.message
    assert read_rows(text)[-1] == (3, ["P-3", f"oops\n{rest}"])


@pytest.mark.parametrize(
    "text",
    ['a\n"', 'a\n"x', 'a\nb,"', 'a\n"x"y,"', 'a\n"\n\n'],
    ids=["quote alone", "first cell", "second cell", "after text", "blank lines"],
)
def test_an_unclosed_quote_at_the_end_of_the_file_is_refused(text: str) -> None:
    """A file that was cut off is refused from the cut."""
    assert read_faults(text) == {2: "unclosed_quote"}


@pytest.mark.parametrize(
    "row",
    ['a","\n', '"a"x\n', '"a\n', '"""\n', '"a","b\n', "\n", '"",""x\n', '"a""b\n'],
    ids=["opens late", "text after", "opens first", "three quotes", "opens second", "blank", "empty quotes", "doubled"],
)
def test_malformed_quotes_are_read_in_linear_time(row: str) -> None:
    """The time grows with the length: the worst 5 MB are read well within a lease."""
    start = time.process_time()

    for _ in read_records("identifier\n" + row * (1_000_000 // len(row)), ","):
        pass

    assert time.process_time() - start < MAX_SECONDS


def test_a_cell_may_have_5_mb() -> None:
    """The default limit of the csv module, 131,072 characters, would name neither the row nor the reason."""
    assert [len(cells[1]) for _, cells in read_rows("a,b\nP-1," + "x" * 5_000_000)] == [1, 5_000_000]


@given(st.text(alphabet='a",;\n\r\t\0 ', max_size=60), st.sampled_from(DELIMITERS))
def test_any_text_is_read_to_its_end(text: str, delimiter: str) -> None:
    """No character is lost except delimiters, quotes and line ends, even if quotes are malformed."""
    all_records = list(read_records(text, delimiter))

    assert "".join("".join(record.cells) for record in all_records).count("a") == text.count("a")
    assert [record.row_number for record in all_records] == sorted({record.row_number for record in all_records})
