"""A whole file: which of its rows are good, which are refused and why, and which files are refused as a whole."""

from __future__ import annotations

import csv
import io
import time
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from functions.imports.file.validation import PIECE_ROWS, ImportFile, RefusedFile, open_file
from shared.columns import COLUMNS
from shared.messages import CellError

LONGEST_SECONDS = (
    30  # of CPU for up to 500,000 rows that are all refused; they take 1 to 4 s, more the busier the machine
)
MOST_MEMORY_BYTES = 100_000_000  # for reading 5 MB whatever their rows; they take 30 MB


def validated(text: str | bytes) -> tuple[dict[int, tuple[str | None, ...]], dict[int, list[tuple[str, str]]]]:
    """Good rows, and column and code of what is wrong with the refused ones, by row number."""
    file = open_file(text.encode() if isinstance(text, str) else text)
    good: dict[int, tuple[str | None, ...]] = {}
    refused: dict[int, list[tuple[str, str]]] = {}
    for piece in file.pieces():
        good.update(zip(piece.row_numbers, piece.rows, strict=True))
        refused.update({row.row_number: [(error.column, error.code) for error in row.errors] for row in piece.refused})
    return good, refused


def only_error(text: str) -> CellError:
    (error,) = (error for piece in open_file(text.encode()).pieces() for row in piece.refused for error in row.errors)
    return error


def opened_or_refused(content: bytes) -> ImportFile | RefusedFile:
    try:
        return open_file(content)
    except RefusedFile as refused:
        return refused


def refusal(content: bytes) -> RefusedFile:
    with pytest.raises(RefusedFile) as refused:
        open_file(content)
    return refused.value


def test_a_good_file_says_what_it_is() -> None:
    """Everything that the import shows about a file is known before its rows are read."""
    file = open_file("Identifier;UUID;Preis\n".replace("Preis", "Price").encode("utf-8-sig"))

    assert file.encoding == "UTF-8"
    assert file.delimiter == ";"
    assert file.heading == ("Identifier", "UUID", "Price")
    assert file.columns == ("identifier", "price")
    assert file.skipped_columns == ("UUID",)


def test_good_rows_come_with_one_value_a_column_in_the_order_of_the_file() -> None:
    """Empty leaves a value as it is, NULL clears it, the rest is ready for the database."""
    good, refused = validated(
        'price;identifier;UUID;unlimited_stock;status;article_code\n"1.234,50";P-1;x;YES;Enabled;00123\n;P-2;;;;NULL\n'
    )

    assert good == {2: ("1234.50", "P-1", "true", "enabled", "00123"), 3: ("", "P-2", "", "", None)}
    assert refused == {}


def test_a_row_is_refused_once_with_everything_that_is_wrong_with_it() -> None:
    """The merchant mends a row once, not once a mistake."""
    good, refused = validated("identifier,price,stock_on_hand,status\nP-1,x,1.5,on\nP-2,1,1,enabled\n,y,1,\n")

    assert good == {3: ("P-2", "1", "1", "enabled")}
    assert refused == {
        2: [("price", "not_a_number"), ("stock_on_hand", "too_many_decimals"), ("status", "not_a_choice")],
        4: [("identifier", "missing_identifier"), ("price", "not_a_number")],
    }


def test_the_value_of_an_error_is_the_cell_cut_and_without_nul() -> None:
    """It is stored by the database and must not fill it."""
    error = only_error("identifier,price\nP-1," + "x" * 5_000_000 + "\n")

    assert error.value == "x" * CellError.VALUE_LENGTH
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="line end"),
        pytest.param(b"\xef\xbb\xbf", id="byte order mark"),
        pytest.param(b"\r\n,,\r\n", id="delimiters"),
        pytest.param(b'""\n', id="quotes"),
        pytest.param(b"\xff\xfe", id="UTF-16 mark"),
    ],
)
def test_an_empty_file_is_refused(content: bytes) -> None:
    """Blank rows alone are nothing."""
    assert refusal(content).status == "FAILED_HEADERS"
    assert refusal(content).reason.startswith("The file is empty. Its first row must hold the headings")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("identifier,price", id="no line end"),
        pytest.param("identifier,price\n", id="line end"),
        pytest.param("identifier,price\n\n,\n", id="blank rows"),
    ],
)
def test_a_file_of_headings_alone_has_no_rows(text: str) -> None:
    """It opens, and nothing comes of it: the caller says so."""
    assert list(open_file(text.encode()).pieces()) == []


def test_wrong_headings_are_named_with_their_row_and_how_the_file_was_read() -> None:
    """The reason stands beside the import, with the encoding and the delimiter that led to it."""
    refused = refusal(b"\n\nidentifier;prise\nP-1;5\n")

    assert refused.status == "FAILED_HEADERS"
    assert refused.reason.startswith('Row 3: There is no column "prise". Did you mean "price"? Known columns: ')
    assert (refused.encoding, refused.delimiter) == ("UTF-8", ";")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"identifier,pri\0ce\nP-1,5\n", "This is not text", id="NUL in a heading"),
        pytest.param(b"\0" * 100, "This is not text", id="NULs alone"),
        pytest.param(b'identifier,"price\nP-1,5\n', "Row 1: A quoted cell is never closed", id="unclosed quote"),
        pytest.param(
            b'identifier,"price"x\nP-1,5\n', "Row 1: Text stands after the closing quote", id="text after a quote"
        ),
        pytest.param(b"identifier\nP-1\n", 'Row 1: "identifier" is the only column to import', id="identifier alone"),
    ],
)
def test_a_heading_row_that_can_not_be_read_refuses_the_file(content: bytes, reason: str) -> None:
    """Without headings no row means anything."""
    assert refusal(content).status == "FAILED_HEADERS"
    assert refusal(content).reason.startswith(reason)


def test_a_heading_of_10_000_columns_has_a_short_reason() -> None:
    """A reason is read by a person."""
    assert len(refusal(",".join(f"x{number}" for number in range(10_000)).encode()).reason) < 1_000


def test_ragged_rows() -> None:
    """Extra cells are lost data unless they are empty; missing ones may be shifted ones."""
    good, refused = validated("identifier,price,name\nP-1,5,a,b\nP-2,5,a,,\nP-3,5\nP-4\nP-5,5,a\n")

    assert good == {3: ("P-2", "5", "a"), 6: ("P-5", "5", "a")}
    assert refused == {2: [("", "too_many_cells")], 4: [("", "too_few_cells")], 5: [("", "too_few_cells")]}
    too_few = only_error("identifier,price,name\nP-3,5\n")
    assert too_few.message == "The row has 2 cells, the heading 3. Add the missing ones; they may be empty."


def test_10_000_cells_in_a_row_are_counted() -> None:
    """A row that lost its line ends says so by its number of cells."""
    assert "10,000 cells" in only_error("identifier,price\n" + "x," * 9_999 + "x\n").message


def test_a_nul_refuses_its_row_even_in_a_column_that_is_skipped() -> None:
    """It is a sign of a damaged file, and no database stores it."""
    good, refused = validated("identifier,UUID,price\nP-1,\0,5\nP-2,,\x005\nP-3,,5\n")

    assert good == {4: ("P-3", "5")}
    assert refused == {2: [("", "nul_character")], 3: [("", "nul_character")]}


def test_rows_with_malformed_quotes_are_refused_and_the_others_are_not() -> None:
    """One inch sign does not cost a file."""
    good, refused = validated('identifier,name\nP-1,"27" screen"\nP-2,ok\nP-3,"oops\nP-4,lost\n')

    assert good == {3: ("P-2", "ok")}
    assert refused == {2: [("", "text_after_quote")], 4: [("", "unclosed_quote")]}


def test_blank_rows_count_for_the_row_number_alone() -> None:
    """What is refused is found again under the number that a spreadsheet shows."""
    good, refused = validated("identifier,price\n\nP-1,5\n,\n\nP-2,x\n")

    assert list(good) == [3]
    assert list(refused) == [6]


def test_the_first_of_twin_identifiers_counts_even_across_pieces() -> None:
    """Which of two rows is meant can't be known; the first is taken, or refused for itself, and the rest name it."""
    filler = "".join(f"F-{number},1\n" for number in range(PIECE_ROWS))
    good, refused = validated(f"identifier,price\nP-1,5\nP-1,6\nP-2,x\nP-2,7\n{filler}P-1,8\np-1,9\n P-1,10\n'P-1,11\n")

    last = PIECE_ROWS + 6
    assert good[2] == ("P-1", "5")
    assert refused == {
        3: [("identifier", "repeated_identifier")],
        4: [("price", "not_a_number")],
        5: [("identifier", "repeated_identifier")],
        last: [("identifier", "repeated_identifier")],
    }
    assert {last + 1, last + 2, last + 3} < set(good), "case, spaces and quotes tell identifiers apart"
    twin = only_error("identifier,price\nP-1,5\n\nP-1,6\n")
    assert twin.message == '"P-1" stands in row 2 already, and the first one counts. Keep one row.'
    assert twin.value == "P-1"


def test_twins_are_told_by_what_they_mean() -> None:
    """The apostrophe of an export is no part of an identifier."""
    _, refused = validated("identifier,price\n=1,5\n'=1,6\n")

    assert refused == {3: [("identifier", "repeated_identifier")]}


@pytest.mark.parametrize(
    ("identifier", "code"),
    [
        pytest.param("", "missing_identifier", id="empty"),
        pytest.param("  ", "missing_identifier", id="spaces"),
        pytest.param("NULL", "null_not_allowed", id="NULL"),
        pytest.param("x" * 101, "too_long", id="101 characters"),
    ],
)
def test_a_row_without_an_identifier_is_refused(identifier: str, code: str) -> None:
    """It says which product the row changes, so nothing stands in for it; two such rows are no twins."""
    _, refused = validated(f"identifier,price\n{identifier},5\n{identifier},6\n")

    assert refused == {2: [("identifier", code)], 3: [("identifier", code)]}


def test_a_maximum_below_the_minimum_is_refused_where_both_stand_in_the_row() -> None:
    """Against a stored value only the product database can tell."""
    good, refused = validated(
        "maximum_stock,identifier,minimum_stock\n5,P-1,6\n6,P-2,6\n,P-3,6\nNULL,P-4,6\n5,P-5,\n10,P-6,9\n5,P-7,x\n"
    )

    assert list(good) == [3, 4, 5, 6, 7]
    assert refused == {2: [("maximum_stock", "maximum_below_minimum")], 8: [("minimum_stock", "not_a_number")]}
    message = only_error("identifier,minimum_stock,maximum_stock\nP-1,10,9\n").message
    assert message == "Maximum stock 9 is below minimum stock 10. Raise it, or lower the minimum stock."


def test_records_are_the_rows_as_they_stand_in_the_file() -> None:
    """The error report repeats a row to the letter, malformed ones as a spreadsheet shows them."""
    file = open_file(b'identifier,price\n \'=x , 1.0 ,\n\nP-2\n"a"b,"c\n')

    assert list(file.records()) == [(2, [" '=x ", " 1.0 ", ""]), (4, ["P-2"]), (5, ["ab", "c\n"])]


def test_a_file_can_be_read_more_than_once() -> None:
    """Validating leaves nothing behind that would make every row a twin the next time."""
    file = open_file(b"identifier,price\nP-1,5\n")

    assert [piece.rows for piece in file.pieces()] == [piece.rows for piece in file.pieces()] == [[("P-1", "5")]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(
    "delimiter", [pytest.param(",", id="comma"), pytest.param(";", id="semicolon"), pytest.param("\t", id="tab")]
)
def test_the_same_table_arrives_the_same_however_it_was_saved(encoding: str, delimiter: str) -> None:
    """Every encoding and delimiter that spreadsheets offer, with decimal commas and line breaks in cells."""
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerows([["Identifier", "Name", "Price"], ["P-1", 'Crème, "brûlée";\n\t€ 5', "1.234,50"], ["P-2", "", ""]])

    good, refused = validated(written.getvalue().encode(encoding))

    assert good == {2: ("P-1", 'Crème, "brûlée";\n\t€ 5', "1234.50"), 3: ("P-2", "", "")}
    assert refused == {}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("x,\n", id="empty cell"),
        pytest.param("x\n", id="too few cells"),
        pytest.param('"a"x\n', id="text after a quote"),
        pytest.param("x,y,z\n", id="too many cells"),
        pytest.param(",5\n", id="no identifier"),
        pytest.param("\0\n", id="NUL"),
    ],
)
def test_a_file_of_refused_rows_passes_a_piece_at_a_time(row: str) -> None:
    """A piece holds a few thousand refusals, so whoever reads on holds no more."""
    rows = 1_000_000 // len(row)
    good = refused = 0
    start = time.process_time()

    for piece in open_file(b"identifier,price\n" + row.encode() * rows).pieces():
        good += len(piece.rows)
        refused += len(piece.refused)
        assert len(piece.rows) + len(piece.refused) <= PIECE_ROWS

    assert time.process_time() - start < LONGEST_SECONDS
    assert good + refused == rows
    assert good <= 1


def test_memory_is_that_of_the_text_and_the_identifiers() -> None:
    """Good rows leave with their piece."""
    content = b"identifier,name\n" + b"".join(b"%d,%s\n" % (number, b"x" * 60) for number in range(70_000))
    tracemalloc.start()

    count = sum(len(piece.rows) for piece in open_file(content).pieces())

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 70_000
    assert peak < MOST_MEMORY_BYTES


def assert_balanced(file: ImportFile) -> None:
    """Every row of the file that is not blank is good or refused, once, under its own number, in order."""
    numbers = [row_number for row_number, _ in file.records()]
    good: list[int] = []
    refused: list[int] = []
    for piece in file.pieces():
        assert len(piece.row_numbers) == len(piece.rows)
        assert all(len(row) == len(file.columns) for row in piece.rows)
        assert all(row.errors for row in piece.refused)
        good += piece.row_numbers
        refused += [row.row_number for row in piece.refused]
    assert sorted(good + refused) == numbers
    assert good == sorted(good)
    assert refused == sorted(refused)


@given(st.binary(max_size=300))
@example(b"\xff\xfe\x00")
@example(b"\xff\xfe\x00\xd8")
@example(b"\xfe\xff\xdc")
def test_any_bytes_are_refused_with_a_reason_or_balance(content: bytes) -> None:
    """Nothing that can be uploaded leads to an error of ours."""
    opened = opened_or_refused(content)

    if isinstance(opened, RefusedFile):
        assert opened.status == "FAILED_HEADERS"
        assert opened.reason.endswith(".")
        assert "\0" not in opened.reason
    else:
        assert_balanced(opened)


CELLS = st.one_of(
    st.sampled_from(
        ["", "NULL", "P-1", "5", "1,5", "1.234", "x", "'=1", "4.0E+12", "true", "enabled", "\0", "9" * 5_000]
    ),
    st.text(max_size=8),
)


@given(
    st.lists(st.sampled_from([column.key for column in COLUMNS[1:]] + ["UUID"]), unique=True, min_size=2, max_size=6),
    st.lists(st.lists(CELLS, max_size=8), max_size=12),
    st.sampled_from([",", ";", "\t"]),
    st.binary(max_size=6),
)
def test_any_rows_balance(columns: list[str], rows: list[list[str]], delimiter: str, tail: bytes) -> None:
    """Total is good plus refused for whatever stands under proper headings, cut off or followed by any bytes."""
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter).writerows([["identifier", *columns], *rows])

    opened = opened_or_refused(written.getvalue().encode() + tail)

    if isinstance(opened, RefusedFile):
        assert "no text" in opened.reason
    else:
        assert_balanced(opened)
