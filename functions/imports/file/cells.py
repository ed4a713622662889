"""One cell of an import file: from the text in the file to the value that goes to the database, or why not.

A cell is never guessed at: what can be read in two ways is refused with a sentence that says how to write it.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from shared.columns import ImportColumn, Kind
from shared.formulas import E_NOTATION, unescape_formula

if TYPE_CHECKING:
    from collections.abc import Sequence

NULL = "NULL"  # written in a cell exactly so, it clears the value
SHOWN_LENGTH = 60  # characters of a cell that a sentence repeats: enough to find it by

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # all but tab, newline and carriage return
_CONTROL = re.compile(f"[{_CONTROLS}]")
_DAMAGED_CODE = re.compile(rf"[+-]?{E_NOTATION}")
# Digits with or without thousands separators (all of them equal, groups of three), then perhaps a decimal part after
# another separator. Apostrophes and spaces, narrow and no-break ones too, can only separate thousands.
_NUMBER = re.compile(
    r"""(?P<sign>[+-]?)
    (?P<whole>[0-9]+ | [1-9][0-9]{0,2} (?P<thousands>[.,'\u2019\ \u00a0\u202f]) [0-9]{3} (?:(?P=thousands)[0-9]{3})* | )
    (?: (?!(?P=thousands)) [.,] (?P<fraction>[0-9]+) )?""",
    re.VERBOSE,
)
_NUMBER_IN_E_NOTATION = re.compile(r"[+-]?[0-9.,]+[eE][+-]?[0-9]+")
_WEB_ADDRESS = re.compile(r"https?://[^\s\\]+", re.IGNORECASE)
_BOOLEANS = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}
_EAN_LENGTHS = (8, 12, 13, 14)


class RefusedCell(Exception):
    """A cell that can't be taken: `code` for programs, the text of the error for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def shown(cell: str) -> str:
    """`cell` as a sentence quotes it: cut to SHOWN_LENGTH characters, those that can't be printed as �."""
    return '"' + printable(cell[:SHOWN_LENGTH]) + ("…" if len(cell) > SHOWN_LENGTH else "") + '"'


def printable(cell: str) -> str:
    """`cell` with � for every control character: PostgreSQL stores no NUL, and no terminal should obey the others."""
    return cell if cell.isprintable() else _CONTROL.sub("\N{REPLACEMENT CHARACTER}", cell)


def read_column(column: ImportColumn, cells: Sequence[str]) -> tuple[Sequence[str | None], dict[int, RefusedCell]]:
    """Reads the cells of one column, those of many rows at once.

    Returns a value a cell ("" where it was refused) and what was refused, by its index in `cells`. A whole column at
    once because most cells are valid as they stand, which one pattern a column sees.
    """
    plain = _plain(column).fullmatch
    if all(map(plain, cells)):
        return cells, {}
    values: list[str | None] = list(cells)
    refused = {}
    for index, cell in enumerate(cells):
        if plain(cell):
            continue
        try:
            values[index] = read(column, cell)
        except RefusedCell as refusal:
            values[index] = ""
            refused[index] = refusal
    return values, refused


def read(column: ImportColumn, cell: str) -> str | None:
    """The value of `cell`: "" leaves the stored one as it is, None clears it.

    A number comes as PostgreSQL casts it, a boolean as true or false, a choice as the column spells it, any other text
    to the letter. Raises RefusedCell where the column can't hold it.
    """
    if not cell:
        return ""
    if cell == NULL:
        if column.nullable:
            return None
        raise RefusedCell(
            "null_not_allowed", f"{column.heading} can't be cleared with NULL. Leave the cell empty to keep its value."
        )
    match column.kind:
        case Kind.DECIMAL | Kind.INTEGER:
            value = _number(column, cell.strip())
        case Kind.BOOLEAN:
            value = _boolean(unescape_formula(cell).strip())
        case Kind.CHOICE:
            value = _choice(column, unescape_formula(cell).strip())
        case Kind.CODE:
            value = _code(column, cell)
        case Kind.EAN:
            value = _ean(_code(column, cell))
        case Kind.URL:
            value = _url(_text(column, unescape_formula(cell)))
        case Kind.TEXT:
            value = _text(column, unescape_formula(cell))
    return value


@cache
def _plain(column: ImportColumn) -> re.Pattern[str]:
    """The cells of `column` that are valid as they stand; `read` knows what the others are."""
    pattern = ""
    match column.kind:
        case Kind.TEXT:
            pattern = rf"(?!'|NULL\Z)[^{_CONTROLS}]{{0,{column.max_length}}}"
        case Kind.CODE:
            pattern = rf"(?!'|NULL\Z|[+-]?{E_NOTATION}\Z)[^{_CONTROLS}]{{0,{column.max_length}}}"
        case Kind.URL:
            pattern = rf"(?=.{{0,{column.max_length}}}\Z)(?:https?://[A-Za-z0-9][A-Za-z0-9.-]*(?:/[!-\[\]-~]*)?)?"
        case Kind.CHOICE:
            pattern = "|".join(map(re.escape, ("", *column.choices)))
        case Kind.BOOLEAN:
            pattern = "|true|false"
        case Kind.DECIMAL if column.minimum <= 0:
            # Never three decimals: those may be thousands.
            pattern = rf"(?:(?:0|[1-9][0-9]{{0,{column.digits - 1}}})(?:\.[0-9]{{1,{min(column.decimals, 2)}}})?)?"
        case Kind.INTEGER if column.minimum <= 0:
            pattern = rf"(?:0|[1-9][0-9]{{0,{column.digits - 1}}})?"
    return re.compile(pattern)


def _text(column: ImportColumn, text: str) -> str:
    if len(text) > column.max_length:
        lines = text.count("\n") + 1
        hint = f" It runs over {lines:,} lines: is a closing quote missing?" if lines > 1 else ""
        raise RefusedCell(
            "too_long", f"{shown(text)} has {len(text):,} characters; at most {column.max_length:,} are allowed.{hint}"
        )
    if control := _CONTROL.search(text):
        raise RefusedCell(
            "control_character",
            f"{shown(text)} holds the control character U+{ord(control[0]):04X} as character {control.start() + 1}."
            " Remove it; tabs and line breaks are allowed.",
        )
    return text


def _code(column: ImportColumn, cell: str) -> str:
    if _DAMAGED_CODE.fullmatch(cell):
        raise RefusedCell(
            "damaged_by_spreadsheet",
            f"{shown(cell)} is a code that a spreadsheet took for a number, and its digits are lost."
            " Format the column as text there and write the code again.",
        )
    return _text(column, unescape_formula(cell, is_code=True))


def _ean(code: str) -> str:
    if not (code.isascii() and code.isdecimal()):
        raise RefusedCell("not_an_ean", f"{shown(code)} is no EAN code: write its digits alone, without spaces.")
    if len(code) not in _EAN_LENGTHS:
        hint = " Were zeros lost at its start?" if len(code) < max(_EAN_LENGTHS) else ""
        raise RefusedCell("not_an_ean", f"{shown(code)} has {len(code)} digits; an EAN has 8, 12, 13 or 14.{hint}")
    digits = list(map(int, reversed(code)))
    check = -(3 * sum(digits[1::2]) + sum(digits[2::2])) % 10
    if check != digits[0]:
        raise RefusedCell(
            "wrong_check_digit",
            f"{shown(code)} is no EAN code: after its other digits the last one should be {check}."
            " Compare it with the product.",
        )
    return code


def _url(text: str) -> str:
    try:
        address = urlsplit(text) if _WEB_ADDRESS.fullmatch(text) else None
        if address and address.hostname and address.port != 0:
            return text
    except ValueError:  # what can't be a host or a port
        pass
    raise RefusedCell(
        "not_a_url", f"{shown(text)} is no web address. Write it in full, such as https://shop.example/blue-mug."
    )


def _choice(column: ImportColumn, text: str) -> str:
    chosen = {choice.casefold(): choice for choice in column.choices}
    if text and text.casefold() not in chosen:
        raise RefusedCell("not_a_choice", f"{shown(text)} is not allowed. Write {' or '.join(column.choices)}.")
    return chosen.get(text.casefold(), "")


def _boolean(text: str) -> str:
    if text and text.casefold() not in _BOOLEANS:
        raise RefusedCell(
            "not_a_boolean", f"{shown(text)} is neither true nor false. Write true or false; yes, no, 1 and 0 will do."
        )
    return _BOOLEANS.get(text.casefold(), "")


def _number(column: ImportColumn, text: str) -> str:
    if not text:
        return ""
    parts = _NUMBER.fullmatch(text)
    if parts is None or not (parts["whole"] or parts["fraction"]):
        _refuse_as_number(column, text)
    whole = re.sub(r"[^0-9]", "", parts["whole"]).lstrip("0")
    fraction = parts["fraction"] or ""
    if len(whole) > column.digits:
        raise RefusedCell(
            "number_too_large", f"{shown(text)} is too large: at most {column.digits} digits before the decimals."
        )
    if len(fraction) == 3 and parts["thousands"] is None:
        sign = parts["sign"].replace("+", "")
        raise RefusedCell("ambiguous_number", _ambiguity(column, text, f"{sign}{whole or '0'}", fraction))
    if len(fraction) > column.decimals:
        allowed = f"at most {column.decimals} decimals are" if column.decimals else "a whole number is"
        raise RefusedCell("too_many_decimals", f"{shown(text)} has decimals that would be lost: {allowed} allowed.")
    value = (whole or "0") + (f".{fraction}" if fraction else "")
    if parts["sign"] == "-" and value.strip("0."):
        value = f"-{value}"
    if Decimal(value) < column.minimum:
        raise RefusedCell("below_minimum", f"{shown(text)} is too small: the least is {column.minimum:,}.")
    return value


def _ambiguity(column: ImportColumn, text: str, whole: str, fraction: str) -> str:
    """Says in which two ways one separator with three digits after it can be read, and how to write either."""
    thousands = str(int(whole + fraction))
    decimal = f"{whole}.{fraction}"
    shortest = f"{whole}.{fraction.rstrip('0') or '0'}"
    if not column.decimals:
        way_out = f"Write {thousands} if you mean that; decimals are not allowed."
    elif len(fraction.rstrip("0")) <= column.decimals and shortest != decimal:
        way_out = f"Write {thousands} or {shortest}."
    elif column.decimals > 3:
        way_out = f"Write {thousands} or {decimal}0."
    else:
        way_out = f"Write {thousands}, or a number with at most {column.decimals} decimals."
    return f"{shown(text)} could be {thousands} or {decimal}. {way_out}"


def _refuse_as_number(column: ImportColumn, text: str) -> NoReturn:
    example = "12" if column.kind is Kind.INTEGER else "12.50 or 12,50"
    if _NUMBER_IN_E_NOTATION.fullmatch(text):
        raise RefusedCell("e_notation", f"{shown(text)} is in scientific notation. Write all of its digits: {example}.")
    if any(unicodedata.category(character) == "Sc" for character in text[:SHOWN_LENGTH]):
        raise RefusedCell("currency_sign", f"{shown(text)} holds a currency sign. Write the number alone: {example}.")
    name = "whole number" if column.kind is Kind.INTEGER else "number"
    raise RefusedCell("not_a_number", f"{shown(text)} is not a {name}. Write {example}.")
