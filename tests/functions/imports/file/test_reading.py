"""A file from bytes to records: encodings, delimiters, quotes, line ends, and files that are something else."""

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

from functions.imports.file.reading import DELIMITERS, RefusedFile, decode, delimiter_of, records

LONGEST_SECONDS = 20  # of CPU for 5 MB that must not take the square of their length; they take 0.2 to 3 s


def an_xlsx() -> bytes:
    file = io.BytesIO()
    workbook = openpyxl.Workbook()
    workbook.active.append(["identifier", "price"])
    workbook.save(file)
    return file.getvalue()


def a_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("products.csv", "identifier,price\nP-1,5\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a PNG image", id="PNG"),
        pytest.param(b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG image", id="JPEG"),
        pytest.param(b"GIF89a\x01\x00\x01\x00", "a GIF image", id="GIF"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", id="PDF"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "an old Office document (XLS)", id="XLS"),
        pytest.param(gzip.compress(b"identifier,price\nP-1,5\n"), "a gzip archive", id="gzip"),
        pytest.param(a_zip(), "a ZIP archive", id="ZIP"),
        pytest.param(an_xlsx(), "an Excel workbook (XLSX)", id="XLSX"),
        pytest.param("identifier,price".encode("utf-32"), "text in UTF-32", id="UTF-32"),
    ],
)
def test_a_file_of_another_kind_is_named(content: bytes, name: str) -> None:
    """Who uploads a workbook under the name products.csv reads what it is and what to do."""
    with pytest.raises(RefusedFile) as refusal:
        decode(content)

    assert refusal.value.status == "FAILED_HEADERS"
    assert refusal.value.reason == f'This is {name}, not a CSV file. Save the table as "CSV UTF-8" and upload that.'


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        pytest.param("identifier\nmug é €\n".encode(), "UTF-8", id="UTF-8"),
        pytest.param("identifier\nmug é €\n".encode("utf-8-sig"), "UTF-8", id="UTF-8 with mark"),
        pytest.param(
            codecs.BOM_UTF16_LE + "identifier\nmug é €\n".encode("utf-16-le"), "UTF-16", id="UTF-16 little-endian"
        ),
        pytest.param(
            codecs.BOM_UTF16_BE + "identifier\nmug é €\n".encode("utf-16-be"), "UTF-16", id="UTF-16 big-endian"
        ),
        pytest.param("identifier\nmug é €\n".encode("cp1252"), "Windows-1252", id="Windows-1252"),
    ],
)
def test_an_encoding_is_found_and_read(content: bytes, encoding: str) -> None:
    """The same table arrives the same from every encoding, without its byte order mark."""
    assert decode(content) == ("identifier\nmug é €\n", encoding)


def test_plain_ascii_is_utf_8() -> None:
    """A file without any special character says nothing surprising about itself."""
    assert decode(b"identifier\nP-1\n") == ("identifier\nP-1\n", "UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_named(encoding: str) -> None:
    """It could be read by guessing, but a guess that goes wrong would import gibberish."""
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
        "no text",
    ],
)
def test_damaged_text_is_refused_with_its_first_bad_row(content: bytes) -> None:
    """A file that is plainly UTF-8 apart from some bytes would come out as gibberish in any other encoding."""
    with pytest.raises(RefusedFile) as refusal:
        decode(content)

    assert refusal.value.status == "FAILED_HEADERS"
    assert "row 4 holds bytes that are no text" in refusal.value.reason.lower()


def test_windows_1252_with_a_few_pairs_that_look_like_utf_8_is_windows_1252() -> None:
    """Accidental pairs stay fewer than the letters that are no UTF-8."""
    text = "identifier,name\nP-1,Ã© Crème brûlée à la carte\n"

    assert decode(text.encode("cp1252")) == (text, "Windows-1252")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        pytest.param("identifier,price\nP-1;P-2;P-3,5\n", ",", id="other delimiters in the rows"),
        pytest.param("identifier;price\nP-1;1,50\n", ";", id="decimal commas"),
        pytest.param("identifier\tprice\nP-1\t1,50\n", "\t", id="tab"),
        pytest.param('"identifier";"price"\n', ";", id="quoted"),
        pytest.param("\n\n;;\nidentifier;price\n", ";", id="blank rows first"),
        pytest.param("identifier;foo,bar,baz\n", ";", id="unknown heading with commas"),
        pytest.param("foo;bar\n", ";", id="no known heading"),
        pytest.param("identifier\n", ",", id="one column"),
        pytest.param("", ",", id="empty"),
    ],
)
def test_the_delimiter_is_the_one_under_which_most_headings_are_known(text: str, delimiter: str) -> None:
    """What stands in the rows says nothing: decimal commas outnumber delimiters."""
    assert delimiter_of(text) == delimiter


def rows(text: str) -> list[tuple[int, list[str]]]:
    return [(record.row_number, record.cells) for record in records(text, ",")]


def faults(text: str) -> dict[int, str]:
    return {record.row_number: record.fault.code for record in records(text, ",") if record.fault}


@pytest.mark.parametrize(
    "end", [pytest.param("\n", id="LF"), pytest.param("\r\n", id="CRLF"), pytest.param("\r", id="CR")]
)
def test_every_line_end_ends_a_row(end: str) -> None:
    """Files come from three families of systems, and through editors that mix them."""
    assert rows(end.join(["a,b", "1,2", "3,4"])) == [(1, ["a", "b"]), (2, ["1", "2"]), (3, ["3", "4"])]


def test_mixed_line_ends_and_a_missing_last_one() -> None:
    """A file that was put together from pieces reads as one."""
    assert rows("a\nb\r\nc\rd\n\re") == [(1, ["a"]), (2, ["b"]), (3, ["c"]), (4, ["d"]), (6, ["e"])]


def test_line_ends_inside_quotes_are_kept_and_count_for_nothing() -> None:
    """A row number is what a spreadsheet shows, and there a cell of three lines is one row."""
    assert rows('a,b\n"x\ny\r\nz\rw",1\nc,2') == [(1, ["a", "b"]), (2, ["x\ny\r\nz\rw", "1"]), (3, ["c", "2"])]


def test_blank_rows_are_skipped_and_keep_their_number() -> None:
    """Rows without a filled cell are no products; the ones after them keep the number that a spreadsheet shows."""
    assert rows('a,b\n\n,\n"",""\n1,2\n\n') == [(1, ["a", "b"]), (5, ["1", "2"])]


def test_a_quote_inside_a_bare_cell_is_a_character() -> None:
    """Inches are written with it."""
    assert rows('P-1,27" screen,5\nP-2,a ""b"",6') == [(1, ["P-1", '27" screen', "5"]), (2, ["P-2", 'a ""b""', "6"])]


def test_text_after_a_closing_quote_refuses_its_row_alone() -> None:
    """Where the cell ends can't be known; the rows around it can."""
    text = 'a,b\n"27" screen",5\nc,6\n"x"y\n'

    assert faults(text) == {2: "text_after_quote", 4: "text_after_quote"}
    assert rows(text) == [(1, ["a", "b"]), (2, ['27 screen"', "5"]), (3, ["c", "6"]), (4, ["xy"])]


def test_a_malformed_quote_says_how_many_lines_went_with_it() -> None:
    """A quote that opens in one row and closes in the middle of a later one takes the rows between with it."""
    text = 'a,b\nP-2,"oops\nP-3,x\nP-4,"y",1\nP-5,z\n'

    assert faults(text) == {2: "text_after_quote"}
    (fault,) = (record.fault for record in records(text, ",") if record.fault)
    assert "so this row, 3 lines long, could not be read" in fault.message
    assert rows(text)[-1] == (3, ["P-5", "z"])


def test_an_unclosed_quote_is_one_row_that_says_what_went_with_it() -> None:
    """Nothing below it can be told apart; it is refused loudly, not swallowed."""
    text = 'a,b\nP-2,x\nP-3,"oops\nP-4,x\nP-5,y\n'

    assert faults(text) == {3: "unclosed_quote"}
    (fault,) = (record.fault for record in records(text, ",") if record.fault)
    assert fault.message.startswith("A quoted cell is never closed, so this row and everything after it (2 lines)")
    assert rows(text)[-1] == (3, ["P-3", "oops\nP-4,x\nP-5,y\n"])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('a\n"', id="quote alone"),
        pytest.param('a\n"x', id="quote and text"),
        pytest.param('a\nb,"', id="second cell"),
        pytest.param('a\n"x"y,"', id="after a malformed cell"),
        pytest.param('a\n"\n\n', id="line ends inside"),
    ],
)
def test_an_unclosed_quote_at_the_very_end(text: str) -> None:
    """A file cut off anywhere is refused where it was cut."""
    assert faults(text) == {2: "unclosed_quote"}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param('a","\n', id="quote after text"),
        pytest.param('"a"x\n', id="text after a quote"),
        pytest.param('"a\n', id="unclosed"),
        pytest.param('"""\n', id="three quotes"),
        pytest.param('"a","b\n', id="quoted cells"),
        pytest.param("\n", id="blank rows"),
        pytest.param('"",""x\n', id="text after an empty cell"),
        pytest.param('"a""b\n', id="doubled quote in a bare cell"),
    ],
)
def test_no_file_of_malformed_quotes_takes_the_square_of_its_length(row: str) -> None:
    """5 MB of whatever is worst are read in a time that a lease covers."""
    start = time.process_time()

    for _ in records("identifier\n" + row * (5_000_000 // len(row)), ","):
        pass

    assert time.process_time() - start < LONGEST_SECONDS


def test_one_cell_of_5_mb_is_a_cell() -> None:
    """The csv module's own limit of 131,072 characters would name neither row nor reason."""
    assert [len(cells[1]) for _, cells in rows("a,b\nP-1," + "x" * 5_000_000)] == [1, 5_000_000]


@given(st.text(alphabet='a",;\n\r\t\0 ', max_size=60), st.sampled_from(DELIMITERS))
def test_any_text_is_read_to_its_end(text: str, delimiter: str) -> None:
    """No character outside of delimiters, quotes and line ends is lost, whatever the quotes do."""
    found = list(records(text, delimiter))

    assert "".join("".join(record.cells) for record in found).count("a") == text.count("a")
    assert [record.row_number for record in found] == sorted({record.row_number for record in found})
