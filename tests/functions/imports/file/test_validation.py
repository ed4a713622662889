"""A whole file: which rows are good, which are refused and why, and which files are refused as a whole."""

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

# Of CPU, for 50,000 rows that are all refused. They take less than a second, more on a busy machine or with coverage;
# the square of their number would be minutes.
MAX_SECONDS = 30
MAX_MEMORY_BYTES = 100_000_000  # for reading 5 MB, whatever the rows contain; they take 30 MB


def validate(text: str | bytes) -> tuple[dict[int, tuple[str | None, ...]], dict[int, list[tuple[str, str]]]]:
    """Returns the good rows, and the column and code of each error of the refused rows, by row number."""
    file = open_file(text.encode() if isinstance(text, str) else text)
    good: dict[int, tuple[str | None, ...]] = {}
    refused: dict[int, list[tuple[str, str]]] = {}
    for piece in file.validate():
        good.update(zip(piece.row_numbers, piece.rows, strict=True))
        refused.update({row.row_number: [(error.column, error.code) for error in row.errors] for row in piece.refused})
    return good, refused


def find_only_error(text: str) -> CellError:
    (error,) = (error for piece in open_file(text.encode()).validate() for row in piece.refused for error in row.errors)
    return error


def open_or_refuse(content: bytes) -> ImportFile | RefusedFile:
    try:
        return open_file(content)
    except RefusedFile as refusal:
        return refusal


def refuse(content: bytes) -> RefusedFile:
    with pytest.raises(RefusedFile) as refusal:
        open_file(content)
    return refusal.value


def test_a_valid_file_shows_how_it_was_read() -> None:
    """All that an import shows about its file is known before the rows are read."""
    file = open_file("Identifier;UUID;Preis\n".replace("Preis", "Price").encode("utf-8-sig"))

    assert file.encoding == "UTF-8"
    assert file.delimiter == ";"
    assert file.heading == ("Identifier", "UUID", "Price")
    assert file.columns == ("identifier", "price")
    assert file.skipped_columns == ("UUID",)


def test_a_good_row_has_one_value_per_column_in_the_order_of_the_file() -> None:
    """An empty cell leaves a value unchanged, NULL clears it, and any other value is ready for the database."""
    good, refused = validate(
        'price;identifier;UUID;unlimited_stock;status;article_code\n"1.234,50";P-1;x;YES;Enabled;00123\n;P-2;;;;NULL\n'
    )

    assert good == {2: ("1234.50", "P-1", "true", "enabled", "00123"), 3: ("", "P-2", "", "", None)}
    assert refused == {}


def test_a_row_is_refused_once_with_all_of_its_errors() -> None:
    """The merchant corrects a row once, and not once per mistake."""
    good, refused = validate("identifier,price,stock_on_hand,status\nP-1,x,1.5,on\nP-2,1,1,enabled\n,y,1,\n")

    assert good == {3: ("P-2", "1", "1", "enabled")}
    assert refused == {
        2: [("price", "not_a_number"), ("stock_on_hand", "too_many_decimals"), ("status", "not_a_choice")],
        4: [("identifier", "missing_identifier"), ("price", "not_a_number")],
    }


def test_the_value_of_an_error_is_cut() -> None:
    """The database stores it, and a cell of 5 MB must not fill the database."""
    error = find_only_error("identifier,price\nP-1," + "x" * 5_000_000 + "\n")

    assert error.value == "x" * CellError.VALUE_LENGTH
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\xef\xbb\xbf", b"\r\n,,\r\n", b'""\n', b"\xff\xfe"],
    ids=["no bytes", "a blank row", "a UTF-8 mark", "blank rows", "an empty cell", "a UTF-16 mark"],
)
def test_an_empty_file_is_refused(content: bytes) -> None:
    """Blank rows have no content."""
    assert refuse(content).status == "FAILED_HEADERS"
    assert refuse(content).reason.startswith("The file is empty. Its first row must contain the headings")


@pytest.mark.parametrize(
    "text",
    ["identifier,price", "identifier,price\n", "identifier,price\n\n,\n"],
    ids=["no line end", "a line end", "blank rows"],
)
def test_a_file_with_only_headings_has_no_rows(text: str) -> None:
    """The file is valid; the import then reports that there is nothing to do."""
    assert list(open_file(text.encode()).validate()) == []


def test_wrong_headings_are_reported_with_their_row_and_how_the_file_was_read() -> None:
    """The import shows the reason, and the encoding and the delimiter with which the file was read."""
    refused = refuse(b"\n\nidentifier;prise\nP-1;5\n")

    assert refused.status == "FAILED_HEADERS"
    assert refused.reason.startswith('Row 3: There is no column "prise". Did you mean "price"? Known columns: ')
    assert (refused.encoding, refused.delimiter) == ("UTF-8", ";")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"identifier,pri\0ce\nP-1,5\n", "The file is not text"),
        (b"\0" * 100, "The file is not text"),
        (b'identifier,"price\nP-1,5\n', "Row 1: A quoted cell has no closing quote"),
        (b'identifier,"price"x\nP-1,5\n', "Row 1: A quoted cell has text after its closing quote"),
        (b"identifier\nP-1\n", 'Row 1: "identifier" is the only column to import'),
    ],
    ids=["a NUL", "only NULs", "no closing quote", "text after a quote", "only the identifier"],
)
def test_a_file_whose_heading_row_cannot_be_read_is_refused(content: bytes, reason: str) -> None:
    """Rows have no meaning without headings."""
    assert refuse(content).status == "FAILED_HEADERS"
    assert refuse(content).reason.startswith(reason)


def test_a_heading_of_10_000_columns_has_a_short_reason() -> None:
    """A person reads the reason."""
    assert len(refuse(",".join(f"x{number}" for number in range(10_000)).encode()).reason) < 1_000


def test_rows_of_another_width_than_the_heading_are_refused() -> None:
    """Extra cells are lost data unless they are empty, and a missing cell may have shifted the others."""
    good, refused = validate("identifier,price,name\nP-1,5,a,b\nP-2,5,a,,\nP-3,5\nP-4\nP-5,5,a\n")

    assert good == {3: ("P-2", "5", "a"), 6: ("P-5", "5", "a")}
    assert refused == {2: [("", "too_many_cells")], 4: [("", "too_few_cells")], 5: [("", "too_few_cells")]}
    too_few = find_only_error("identifier,price,name\nP-3,5\n")
    assert too_few.message == "The row has 2 cells, but the heading has 3. Add the missing cells; they may be empty."
    one = find_only_error("identifier,price,name\nP-4\n")
    assert one.message == "The row has 1 cell, but the heading has 3. Add the missing cells; they may be empty."
    too_many = find_only_error("identifier,price\nP-1,5,x\n")
    assert too_many.message == (
        "The row has 3 cells, but the heading has 2."
        " Remove the extra cells, or put quotes around a cell that contains the delimiter."
    )


def test_an_error_counts_the_cells_of_a_row() -> None:
    """The number shows that the line ends of a file were lost."""
    assert "10,000 cells" in find_only_error("identifier,price\n" + "x," * 9_999 + "x\n").message


def test_a_row_with_a_nul_is_refused_even_in_a_skipped_column() -> None:
    """A NUL is a sign of a damaged file, and PostgreSQL cannot store it."""
    good, refused = validate("identifier,UUID,price\nP-1,\0,5\nP-2,,\x005\nP-3,,5\n")

    assert good == {4: ("P-3", "5")}
    assert refused == {2: [("", "nul_character")], 3: [("", "nul_character")]}


def test_only_rows_with_malformed_quotes_are_refused() -> None:
    """One inch sign does not spoil a file."""
    good, refused = validate('identifier,name\nP-1,"27" screen"\nP-2,ok\nP-3,"oops\nP-4,lost\n')

    assert good == {3: ("P-2", "ok")}
    assert refused == {2: [("", "text_after_quote")], 4: [("", "unclosed_quote")]}


def test_blank_rows_count_only_for_the_row_number() -> None:
    """The merchant finds a refused row by the number that a spreadsheet shows."""
    good, refused = validate("identifier,price\n\nP-1,5\n,\n\nP-2,x\n")

    assert list(good) == [3]
    assert list(refused) == [6]


def test_only_the_first_row_with_an_identifier_counts_even_across_pieces() -> None:
    """The first row is used, or refused for its own errors; the errors of the others name it."""
    filler = "".join(f"F-{number},1\n" for number in range(PIECE_ROWS))
    good, refused = validate(f"identifier,price\nP-1,5\nP-1,6\nP-2,x\nP-2,7\n{filler}P-1,8\np-1,9\n P-1,10\n'P-1,11\n")

    last = PIECE_ROWS + 6
    assert good[2] == ("P-1", "5")
    assert refused == {
        3: [("identifier", "repeated_identifier")],
        4: [("price", "not_a_number")],
        5: [("identifier", "repeated_identifier")],
        last: [("identifier", "repeated_identifier")],
    }
    assert {last + 1, last + 2, last + 3} < set(good), "case, spaces and apostrophes distinguish identifiers"
    error = find_only_error("identifier,price\nP-1,5\n\nP-1,6\n")
    assert error.message == '"P-1" already appears in row 2, and only that row counts. Remove one of the two rows.'
    assert error.value == "P-1"


def test_an_escaped_identifier_is_the_same_identifier() -> None:
    """The apostrophe that an export adds is not part of the identifier."""
    _, refused = validate("identifier,price\n=1,5\n'=1,6\n")

    assert refused == {3: [("identifier", "repeated_identifier")]}


@pytest.mark.parametrize(
    ("identifier", "code"),
    [("", "missing_identifier"), ("  ", "missing_identifier"), ("NULL", "null_not_allowed"), ("x" * 101, "too_long")],
    ids=["empty", "spaces", "NULL", "too long"],
)
def test_a_row_without_an_identifier_is_refused(identifier: str, code: str) -> None:
    """Only the identifier says which product the row changes. Two such rows do not repeat each other."""
    _, refused = validate(f"identifier,price\n{identifier},5\n{identifier},6\n")

    assert refused == {2: [("identifier", code)], 3: [("identifier", code)]}


def test_a_maximum_below_the_minimum_of_its_row_is_refused() -> None:
    """Only the product database can compare one of them with a stored value."""
    good, refused = validate(
        "maximum_stock,identifier,minimum_stock\n5,P-1,6\n6,P-2,6\n,P-3,6\nNULL,P-4,6\n5,P-5,\n10,P-6,9\n5,P-7,x\n"
    )

    assert list(good) == [3, 4, 5, 6, 7]
    assert refused == {2: [("maximum_stock", "maximum_below_minimum")], 8: [("minimum_stock", "not_a_number")]}
    message = find_only_error("identifier,minimum_stock,maximum_stock\nP-1,10,9\n").message
    assert message == ("Maximum stock 9 is below minimum stock 10. Raise the maximum stock or lower the minimum stock.")


def test_rows_can_be_read_as_they_are_in_the_file() -> None:
    """The error report repeats each row exactly, and a malformed row as a spreadsheet reads it."""
    file = open_file(b'identifier,price\n \'=x , 1.0 ,\n\nP-2\n"a"b,"c\n')

    assert list(file.read_rows()) == [(2, [" '=x ", " 1.0 ", ""]), (4, ["P-2"]), (5, ["ab", "c\n"])]


def test_a_file_can_be_read_more_than_once() -> None:
    """Identifiers of one validation do not count as repeated in the next one."""
    file = open_file(b"identifier,price\nP-1,5\n")

    assert [piece.rows for piece in file.validate()] == [piece.rows for piece in file.validate()] == [[("P-1", "5")]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"], ids=str)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_table_is_read_in_every_encoding_and_with_every_delimiter(encoding: str, delimiter: str) -> None:
    """Spreadsheets offer all of them; cells may contain decimal commas and line breaks."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["Identifier", "Name", "Price"], ["P-1", 'Crème, "brûlée";\n\t€ 5', "1.234,50"], ["P-2", "", ""]])

    good, refused = validate(file.getvalue().encode(encoding))

    assert good == {2: ("P-1", 'Crème, "brûlée";\n\t€ 5', "1234.50"), 3: ("P-2", "", "")}
    assert refused == {}


@pytest.mark.parametrize(
    "row",
    ["x,\n", "x\n", '"a"x\n', "x,y,z\n", ",5\n", "\0\n"],
    ids=["repeated", "too few cells", "text after a quote", "too many cells", "no identifier", "a NUL"],
)
def test_a_file_of_refused_rows_is_validated_in_pieces(row: str) -> None:
    """A piece has at most a few thousand refusals, so the caller never keeps more in memory."""
    rows = 25 * PIECE_ROWS
    good = refused = 0
    start = time.process_time()

    for piece in open_file(b"identifier,price\n" + row.encode() * rows).validate():
        good += len(piece.rows)
        refused += len(piece.refused)
        assert len(piece.rows) + len(piece.refused) <= PIECE_ROWS

    assert time.process_time() - start < MAX_SECONDS
    assert good + refused == rows
    assert good <= 1


def test_memory_is_needed_for_the_text_and_the_identifiers_only() -> None:
    """The rows of a piece are freed with it."""
    content = b"identifier,name\n" + b"".join(b"%d,%s\n" % (number, b"x" * 60) for number in range(70_000))
    tracemalloc.start()

    count = sum(len(piece.rows) for piece in open_file(content).validate())

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 70_000
    assert peak < MAX_MEMORY_BYTES


def assert_balanced(file: ImportFile) -> None:
    """Every row that is not blank is either good or refused, once, with its own number, in order."""
    numbers = [row_number for row_number, _ in file.read_rows()]
    good: list[int] = []
    refused: list[int] = []
    for piece in file.validate():
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
def test_any_file_is_refused_with_a_reason_or_has_only_good_and_refused_rows(content: bytes) -> None:
    """No upload causes an unexpected error."""
    opened = open_or_refuse(content)

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
def test_any_row_is_good_or_refused(columns: list[str], rows: list[list[str]], delimiter: str, tail: bytes) -> None:
    """Good and refused rows add up to all rows below valid headings, whatever bytes follow them."""
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["identifier", *columns], *rows])

    opened = open_or_refuse(file.getvalue().encode() + tail)

    if isinstance(opened, RefusedFile):
        assert "not text" in opened.reason
    else:
        assert_balanced(opened)
