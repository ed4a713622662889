"""One cell: what it means in a column, or why it is refused."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.imports.file.cells import RefusedCell, read, read_column, shown
from shared.columns import BY_KEY, COLUMNS, Kind
from shared.formulas import escape_formula

CASES = Path(__file__).parents[3] / "data" / "cells.txt"

LINES = "a\n" * 200
TEXT_KINDS = (Kind.TEXT, Kind.CODE, Kind.EAN, Kind.URL, Kind.CHOICE)


def unescaped(text: str) -> str:
    """`text` of the table with its escapes read as Python reads them, other characters as they are."""
    return re.sub(r"\\(?:[ntr0\\]|x..|u.{4}|U.{8})", lambda found: found[0].encode().decode("unicode_escape"), text)


def cases() -> list[pytest.ParameterSet]:
    """Column, cell and what it means, the words of the table replaced by values. A case is called by its line."""
    found = []
    for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        key, cell, meaning = (unescaped(part.strip()) for part in line.split("|"))
        words = {"cleared": None, "left as it is": "", "kept to the letter": cell}
        found.append(pytest.param(key, cell, words.get(meaning, meaning), id=f"line {number}"))
    return found


def outcome(key: str, cell: str) -> str | None:
    """What became of `cell`: its value, or its refusal as the table writes it."""
    try:
        return read(BY_KEY[key], cell)
    except RefusedCell as refusal:
        return f"refused: {refusal.code}"


@pytest.mark.parametrize(("key", "cell", "meaning"), cases())
def test_a_cell_means_what_the_table_says(key: str, cell: str, meaning: str | None) -> None:
    """Each line of the table holds, for the cell alone and for it among the cells of its column."""
    refused_code = meaning.removeprefix("refused: ") if meaning and meaning.startswith("refused: ") else ""

    alone = outcome(key, cell)
    values, refusals = read_column(BY_KEY[key], ["", cell, ""])

    assert alone == meaning
    assert values[1] == ("" if refused_code else meaning)
    assert [refusal.code for refusal in refusals.values()] == ([refused_code] if refused_code else [])


def test_the_table_covers_every_kind_of_column() -> None:
    """A new kind comes with cases of its own."""
    assert {BY_KEY[case.values[0]].kind for case in cases()} == set(Kind)


@pytest.mark.parametrize(
    ("key", "cell", "sentence"),
    [
        pytest.param("price", "12,5,0", '"12,5,0" is not a number. Write 12.50 or 12,50.', id="two commas"),
        pytest.param(
            "price",
            "1,234",
            '"1,234" could be 1234 or 1.234. Write 1234, or a number with at most 2 decimals.',
            id="comma and three digits",
        ),
        pytest.param(
            "price", "1.250", '"1.250" could be 1250 or 1.250. Write 1250 or 1.25.', id="point and a trailing zero"
        ),
        pytest.param("price", "0,500", '"0,500" could be 500 or 0.500. Write 500 or 0.5.', id="leading zero"),
        pytest.param("price", "1.000", '"1.000" could be 1000 or 1.000. Write 1000 or 1.0.', id="round thousand"),
        pytest.param("price", "-1,250", '"-1,250" could be -1250 or -1.250. Write -1250 or -1.25.', id="negative"),
        pytest.param(
            "price",
            "12.3456",
            '"12.3456" has decimals that would be lost: at most 2 decimals are allowed.',
            id="too many decimals",
        ),
        pytest.param(
            "price", "€ 5", '"€ 5" holds a currency sign. Write the number alone: 12.50 or 12,50.', id="currency sign"
        ),
        pytest.param(
            "price", "1E3", '"1E3" is in scientific notation. Write all of its digits: 12.50 or 12,50.', id="E-notation"
        ),
        pytest.param(
            "stock_on_hand",
            "1.234",
            '"1.234" could be 1234 or 1.234. Write 1234 if you mean that; decimals are not allowed.',
            id="integer with a point",
        ),
        pytest.param(
            "stock_on_hand", "1.5", '"1.5" has decimals that would be lost: a whole number is allowed.', id="fraction"
        ),
        pytest.param("stock_on_hand", "x", '"x" is not a whole number. Write 12.', id="not a number"),
        pytest.param("lot_size", "0", '"0" is too small: the least is 1.', id="too small"),
        pytest.param("status", "on", '"on" is not allowed. Write enabled or disabled.', id="not a choice"),
        pytest.param(
            "ean_code",
            "36000291452",
            '"36000291452" has 11 digits; an EAN has 8, 12, 13 or 14. Were zeros lost at its start?',
            id="EAN without its zeros",
        ),
        pytest.param(
            "ean_code",
            "4006381333932",
            '"4006381333932" is no EAN code: after its other digits the last one should be 1.'
            " Compare it with the product.",
            id="EAN with a wrong check digit",
        ),
        pytest.param("name", "x" * 256, f'"{"x" * 60}…" has 256 characters; at most 255 are allowed.', id="long text"),
        pytest.param(
            "name",
            LINES,
            f'"{LINES[:60]}…" has 400 characters; at most 255 are allowed.'
            " It runs over 201 lines: is a closing quote missing?",
            id="many lines",
        ),
        pytest.param(
            "name", "NULL", "Name can't be cleared with NULL. Leave the cell empty to keep its value.", id="NULL"
        ),
    ],
)
def test_a_refusal_says_what_was_found_and_what_to_write(key: str, cell: str, sentence: str) -> None:
    """The merchant mends the cell from the sentence alone."""
    with pytest.raises(RefusedCell) as refusal:
        read(BY_KEY[key], cell)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize("key", [column.key for column in COLUMNS if column.kind in (Kind.TEXT, Kind.CODE)])
def test_a_text_may_be_as_long_as_its_column_and_no_longer(key: str) -> None:
    """The apostrophe of an escape is no part of the text."""
    column = BY_KEY[key]
    longest = "é" * column.max_length

    assert read(column, longest) == longest
    assert read(column, "'=" + longest[1:]) == "=" + longest[1:]
    assert outcome(column.key, longest + "é") == "refused: too_long"


def test_a_url_may_be_as_long_as_its_column_and_no_longer() -> None:
    """A URL is cut nowhere."""
    column = BY_KEY["product_url"]
    longest = "https://shop.example/".ljust(column.max_length, "x")

    assert read(column, longest) == longest
    assert outcome("product_url", longest + "x") == "refused: too_long"


@given(st.sampled_from(COLUMNS), st.lists(st.text(), min_size=1))
def test_a_column_reads_as_its_cells_read_alone(column, texts: list[str]) -> None:
    """What is quick for a whole column changes nothing about any cell."""
    values, refusals = read_column(column, texts)

    for index, cell in enumerate(texts):
        expected = outcome(column.key, cell)
        assert (f"refused: {refusals[index].code}" if index in refusals else values[index]) == expected


@given(
    st.sampled_from([column for column in COLUMNS if column.kind in (Kind.DECIMAL, Kind.INTEGER)]),
    st.text(alphabet="0123456789.,' +-\u00a0E", max_size=14),
)
def test_a_number_column_reads_as_its_cells_read_alone(column, cell: str) -> None:
    """The quick way knows no number that the careful one refuses or reads otherwise."""
    values, refusals = read_column(column, [cell])

    assert (f"refused: {refusals[0].code}" if refusals else values[0]) == outcome(column.key, cell)


@given(
    st.decimals(min_value=0, max_value=Decimal("9999999999.99"), places=2, allow_nan=False, allow_infinity=False),
    st.sampled_from(["", ".", ",", " ", "\u00a0", "\u202f", "'", "\u2019"]),
    st.sampled_from([".", ","]),
    st.sampled_from(["", "+"]),
    st.sampled_from(["", " ", "\u00a0"]),
)
def test_a_decimal_reads_back_from_every_notation(
    number: Decimal, thousands: str, point: str, sign: str, space: str
) -> None:
    """However a locale writes a number with two decimals, it arrives as that number."""
    if thousands == point:
        thousands = ""
    whole, fraction = f"{number:,.2f}".split(".")
    cell = f"{space}{sign}{whole.replace(',', thousands)}{point}{fraction}{space}"

    value = read(BY_KEY["price"], cell)

    assert value is not None
    assert Decimal(value) == number


@given(st.integers(min_value=-999_999_999, max_value=999_999_999), st.sampled_from(["", " ", "'", "\u202f"]))
def test_an_integer_reads_back_from_every_notation(number: int, thousands: str) -> None:
    """However a locale groups a whole number, it arrives as that number."""
    value = read(BY_KEY["stock_on_hand"], f"{number:,}".replace(",", thousands))

    assert value == str(number)


def holds_control_character(text: str) -> bool:
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
def test_what_an_export_escaped_comes_back_to_the_letter(column, text: str) -> None:
    """Any text that the column may hold goes out in an export and comes in again unchanged."""
    value = outcome(column.key, escape_formula(text, is_code=column.kind in (Kind.CODE, Kind.EAN)))

    if column.kind in (Kind.TEXT, Kind.CODE) and len(text) <= column.max_length and not holds_control_character(text):
        assert value == text
    else:
        assert value == text or str(value).startswith("refused: ") or column.kind is Kind.CHOICE


@given(st.text())
def test_a_shown_cell_is_short_and_printable(cell: str) -> None:
    """A sentence goes to a database, a terminal and a page: none may choke on what a file holds."""
    assert "\0" not in shown(cell)
    assert "\x1b" not in shown(cell)
    assert len(shown(cell)) <= 63
