"""One cell: its value in a column, or the reason why it is refused."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.imports.file.cells import (
    QUOTED_LENGTH,
    RefusedCell,
    format_count,
    quote_cell,
    read_cell,
    read_column,
)
from shared.columns import BY_KEY, COLUMNS, ImportColumn, Kind
from shared.formulas import escape_formula

CASES_FILE = Path(__file__).parents[3] / "data" / "cells.txt"

LINES = "a\n" * 200
TEXT_KINDS = (Kind.TEXT, Kind.CODE, Kind.EAN, Kind.URL, Kind.CHOICE)


def decode_escapes(text: str) -> str:
    """Decodes Python's escapes in a text of the table, and keeps all other characters."""
    return re.sub(r"\\(?:[ntr0\\]|x..|u.{4}|U.{8})", lambda found: found[0].encode().decode("unicode_escape"), text)


def read_cases() -> dict[str, tuple[str, str, str | None]]:
    """Reads the table: column, cell, and its meaning with the words of the table replaced by values, by line number."""
    cases: dict[str, tuple[str, str, str | None]] = {}
    for number, line in enumerate(CASES_FILE.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        key, cell, meaning = (decode_escapes(part.strip()) for part in line.split("|"))
        words = {"cleared": None, "left unchanged": "", "kept exactly": cell}
        cases[f"line {number}"] = (key, cell, words.get(meaning, meaning))
    return cases


CASES = read_cases()


def read_outcome(key: str, cell: str) -> str | None:
    """Reads `cell`: returns its value, or its refusal as the table writes it."""
    try:
        return read_cell(BY_KEY[key], cell)
    except RefusedCell as refusal:
        return f"refused: {refusal.code}"


@pytest.mark.parametrize(("key", "cell", "meaning"), CASES.values(), ids=CASES.keys())
def test_a_cell_means_what_the_table_says(key: str, cell: str, meaning: str | None) -> None:
    """Each line of the table is true for the cell alone and for the cell within its column."""
    refused_code = meaning.removeprefix("refused: ") if meaning and meaning.startswith("refused: ") else ""

    alone = read_outcome(key, cell)
    values, refusals = read_column(BY_KEY[key], ["", cell, ""])

    assert alone == meaning
    assert values[1] == ("" if refused_code else meaning)
    assert [refusal.code for refusal in refusals.values()] == ([refused_code] if refused_code else [])


def test_the_table_covers_every_kind_of_column() -> None:
    """A new kind of column needs its own cases."""
    assert {BY_KEY[key].kind for key, _, _ in CASES.values()} == set(Kind)


SENTENCES = [
    ("price", "12,5,0", '"12,5,0" is not a number. Write a number such as 12.50 or 12,50.'),
    ("price", "1,234", '"1,234" could mean 1234 or 1.234. Write 1234 or a number with at most 2 decimals.'),
    ("price", "1.250", '"1.250" could mean 1250 or 1.250. Write 1250 or 1.25.'),
    ("price", "0,500", '"0,500" could mean 500 or 0.500. Write 500 or 0.5.'),
    ("price", "1.000", '"1.000" could mean 1000 or 1.000. Write 1000 or 1.0.'),
    ("price", "-1,250", '"-1,250" could mean -1250 or -1.250. Write -1250 or -1.25.'),
    ("price", "12.3456", '"12.3456" has 4 decimals; at most 2 are allowed. Round it: an import never rounds.'),
    ("price", "€ 5", '"€ 5" contains a currency sign. Write the number only, such as 12.50 or 12,50.'),
    (
        "price",
        "1E3",
        '"1E3" is in scientific notation. Write the number with all its digits, such as 12.50 or 12,50.',
    ),
    (
        "price",
        "10000000000",
        '"10000000000" is too large: at most 10 digits are allowed before the decimal separator.',
    ),
    (
        "stock_on_hand",
        "1.234",
        '"1.234" could mean 1234 or 1.234. Write 1234 if that is what you mean; decimals are not allowed.',
    ),
    (
        "stock_on_hand",
        "1.5",
        '"1.5" has decimals; only whole numbers are allowed. Write it without decimals.',
    ),
    ("stock_on_hand", "x", '"x" is not a whole number. Write a number such as 12.'),
    ("stock_on_hand", "1000000000", '"1000000000" is too large: at most 9 digits are allowed.'),
    ("lot_size", "0", '"0" is too small: the minimum is 1.'),
    ("status", "on", '"on" is not allowed. Write enabled or disabled.'),
    (
        "unlimited_stock",
        "y",
        '"y" is neither true nor false. Write true or false; yes, no, 1 and 0 are also allowed.',
    ),
    ("ean_code", "9638 5074", '"9638 5074" is not an EAN code. Write its digits only, without spaces.'),
    (
        "ean_code",
        "36000291452",
        '"36000291452" has 11 digits; an EAN code has 8, 12, 13 or 14. Check whether leading zeros are missing.',
    ),
    ("ean_code", "7", '"7" has 1 digit; an EAN code has 8, 12, 13 or 14. Check whether leading zeros are missing.'),
    (
        "ean_code",
        "4006381333932",
        '"4006381333932" is not an EAN code: its last digit is a check digit and should be 1.'
        " Compare all digits with the code on the product.",
    ),
    (
        "sku_code",
        "4.0E+12",
        '"4.0E+12" is a number in scientific notation: a spreadsheet converted the code, and its digits are lost.'
        " In the spreadsheet, format the column as text and enter the code again.",
    ),
    (
        "product_url",
        "shop.example",
        '"shop.example" is not a web address. Write it in full, for example https://shop.example/blue-mug.',
    ),
    ("name", "x" * 256, f'"{"x" * 60}…" has 256 characters; at most 255 are allowed. Shorten it.'),
    (
        "name",
        LINES,
        f'"{LINES[:60]}…" has 400 characters; at most 255 are allowed.'
        " It spans 201 lines: check whether a closing quote is missing.",
    ),
    (
        "name",
        "a\x07",
        '"a\ufffd" contains the control character U+0007 at position 2. Remove it; tabs and line breaks are allowed.',
    ),
    (
        "name",
        "NULL",
        "NULL is not allowed, because this column cannot be cleared. Leave the cell empty to keep the current value.",
    ),
    (
        "identifier",
        "NULL",
        "NULL is not allowed, because this column cannot be cleared. Write the identifier of the product.",
    ),
]


@pytest.mark.parametrize(
    ("key", "cell", "sentence"),
    SENTENCES,
    ids=[f"{key}: {cell[:20]!a}".replace("\\", "") for key, cell, _ in SENTENCES],
)
def test_a_refusal_says_what_was_found_and_what_to_write(key: str, cell: str, sentence: str) -> None:
    """The sentence alone is enough for the merchant to correct the cell."""
    with pytest.raises(RefusedCell) as refusal:
        read_cell(BY_KEY[key], cell)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "column",
    [column for column in COLUMNS if column.kind in (Kind.TEXT, Kind.CODE)],
    ids=lambda column: column.key,
)
def test_a_text_may_be_as_long_as_its_column_and_no_longer(column: ImportColumn) -> None:
    """The apostrophe of an escape is not part of the text."""
    longest = "é" * column.max_length

    assert read_cell(column, longest) == longest
    assert read_cell(column, "'=" + longest[1:]) == "=" + longest[1:]
    assert read_outcome(column.key, longest + "é") == "refused: too_long"


def test_a_url_may_be_as_long_as_its_column_and_no_longer() -> None:
    """A URL is never cut."""
    column = BY_KEY["product_url"]
    longest = "https://shop.example/".ljust(column.max_length, "x")

    assert read_cell(column, longest) == longest
    assert read_outcome("product_url", longest + "x") == "refused: too_long"


@given(st.sampled_from(COLUMNS), st.lists(st.text(), min_size=1))
def test_a_cell_has_the_same_value_in_its_column_and_alone(column: ImportColumn, cells: list[str]) -> None:
    """The fast way to read a column changes the meaning of no cell."""
    values, refusals = read_column(column, cells)

    for index, cell in enumerate(cells):
        outcome = f"refused: {refusals[index].code}" if index in refusals else values[index]
        assert outcome == read_outcome(column.key, cell)


@given(
    st.sampled_from([column for column in COLUMNS if column.kind in (Kind.DECIMAL, Kind.INTEGER)]),
    st.text(alphabet="0123456789.,' +-\u00a0E", max_size=14),
)
def test_a_number_has_the_same_value_in_its_column_and_alone(column: ImportColumn, cell: str) -> None:
    """The fast way accepts no number that the careful way refuses or reads differently."""
    values, refusals = read_column(column, [cell])

    assert (f"refused: {refusals[0].code}" if refusals else values[0]) == read_outcome(column.key, cell)


@given(
    st.decimals(min_value=0, max_value=Decimal("9999999999.99"), places=2, allow_nan=False, allow_infinity=False),
    st.sampled_from(["", ".", ",", " ", "\u00a0", "\u202f", "'", "\u2019"]),
    st.sampled_from([".", ","]),
    st.sampled_from(["", "+"]),
    st.sampled_from(["", " ", "\u00a0"]),
)
def test_a_decimal_is_read_from_every_notation(
    number: Decimal, thousands: str, point: str, sign: str, space: str
) -> None:
    """A number with two decimals has the same value in the notation of every locale."""
    if thousands == point:
        thousands = ""
    whole, fraction = f"{number:,.2f}".split(".")
    cell = f"{space}{sign}{whole.replace(',', thousands)}{point}{fraction}{space}"

    value = read_cell(BY_KEY["price"], cell)

    assert value is not None
    assert Decimal(value) == number


@given(st.integers(min_value=-999_999_999, max_value=999_999_999), st.sampled_from(["", " ", "'", "\u202f"]))
def test_an_integer_is_read_from_every_notation(number: int, thousands: str) -> None:
    """A whole number has the same value however a locale groups its digits."""
    value = read_cell(BY_KEY["stock_on_hand"], f"{number:,}".replace(",", thousands))

    assert value == str(number)


def contains_control_character(text: str) -> bool:
    return any(unicodedata.category(character) == "Cc" and character not in "\t\r\n" for character in text)


@given(
    st.sampled_from([column for column in COLUMNS if column.kind in TEXT_KINDS]),
    st.one_of(
        st.text(min_size=1),
        st.tuples(
            st.text(alphabet="'", max_size=4),
            st.sampled_from(["=", "+", "-", "@", "\t", "\r", "NULL", "4.0E+12", "4e12", "12E4", "", "x"]),
            st.text(alphabet="'=N\n", max_size=3),
        ).map("".join),
    ).filter(bool),
)
def test_an_exported_text_is_imported_exactly(column: ImportColumn, text: str) -> None:
    """Any text that the column can store is exported and imported again unchanged."""
    value = read_outcome(column.key, escape_formula(text, is_code=column.kind in (Kind.CODE, Kind.EAN)))

    is_text = column.kind in (Kind.TEXT, Kind.CODE)
    if is_text and len(text) <= column.max_length and not contains_control_character(text):
        assert value == text
    else:
        assert value == text or str(value).startswith("refused: ") or column.kind is Kind.CHOICE


@given(st.text())
def test_a_quoted_cell_is_short_and_printable(cell: str) -> None:
    """Databases, terminals and web pages can show every sentence, whatever the file contains."""
    quoted = quote_cell(cell)

    assert "\0" not in quoted
    assert "\x1b" not in quoted
    assert len(quoted) <= QUOTED_LENGTH + len('"…"')


def test_a_count_is_written_in_singular_or_plural() -> None:
    """A merchant reads "1 row", not "1 rows"."""
    assert [format_count(number, "row") for number in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
