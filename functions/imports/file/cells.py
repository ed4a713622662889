"""Reads the cells of an import file: each becomes a value for the database, or is refused.

No value is guessed: a cell that can be read in two ways is refused with a message that says how to write it.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from shared.columns import IDENTIFIER, ImportColumn, Kind
from shared.formulas import E_NOTATION, unescape_formula
from shared.wording import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

NULL = "NULL"  # a cell with exactly this text clears the value
QUOTED_LENGTH = 60  # characters of a cell that a message quotes: enough to find the cell

_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # all but tab, newline and carriage return
_CONTROL = re.compile(f"[{_CONTROLS}]")
_DAMAGED_CODE = re.compile(rf"[+-]?{E_NOTATION}")
# Digits with or without thousands separators (all of them equal, groups of three), then an optional decimal part after
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
    """A cell is not a valid value of its column: `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def quote_cell(cell: str) -> str:
    """Quotes `cell` for a message: cut to QUOTED_LENGTH characters, with � for each control character."""
    return '"' + make_printable(cell[:QUOTED_LENGTH]) + ("…" if len(cell) > QUOTED_LENGTH else "") + '"'


def make_printable(cell: str) -> str:
    """Replaces each control character with �: PostgreSQL stores no NUL, and a terminal would obey some others."""
    return cell if cell.isprintable() else _CONTROL.sub("\N{REPLACEMENT CHARACTER}", cell)


def read_column(column: ImportColumn, cells: Sequence[str]) -> tuple[Sequence[str | None], dict[int, RefusedCell]]:
    """Reads the cells of one column in many rows.

    Returns one value per cell ("" where it was refused), and the refusals by their index in `cells`. It reads a whole
    column because most cells are valid unchanged, and one pattern per column recognizes those.
    """
    is_valid = _compile_valid_cell(column).fullmatch
    if all(map(is_valid, cells)):
        return cells, {}
    values: list[str | None] = list(cells)
    refusals = {}
    for index, cell in enumerate(cells):
        if is_valid(cell):
            continue
        try:
            values[index] = read_cell(column, cell)
        except RefusedCell as refusal:
            values[index] = ""
            refusals[index] = refusal
    return values, refusals


def read_cell(column: ImportColumn, cell: str) -> str | None:
    """Reads the value of `cell`: "" leaves the stored value unchanged, None clears it.

    A number is returned in a form that PostgreSQL can cast, a boolean as true or false, a choice as the column spells
    it, any other text exactly. Raises RefusedCell if the cell is not a valid value of the column.
    """
    if not cell:
        return ""
    if cell == NULL:
        if column.nullable:
            return None
        remedy = (
            "Write the identifier of the product."
            if column is IDENTIFIER
            else "Leave the cell empty to keep the current value."
        )
        raise RefusedCell("null_not_allowed", f"NULL is not allowed, because this column cannot be cleared. {remedy}")
    match column.kind:
        case Kind.DECIMAL | Kind.INTEGER:
            value = _read_number(column, cell.strip())
        case Kind.BOOLEAN:
            value = _read_boolean(unescape_formula(cell).strip())
        case Kind.CHOICE:
            value = _read_choice(column, unescape_formula(cell).strip())
        case Kind.CODE:
            value = _read_code(column, cell)
        case Kind.EAN:
            value = _check_ean(_read_code(column, cell))
        case Kind.URL:
            value = _check_url(_check_text(column, unescape_formula(cell)))
        case Kind.TEXT:
            value = _check_text(column, unescape_formula(cell))
    return value


@cache
def _compile_valid_cell(column: ImportColumn) -> re.Pattern[str]:
    """Compiles a pattern that matches only cells that are valid unchanged. `read_cell` decides about the others."""
    pattern = ""  # only the empty cell
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
            # Never three decimals: 1.234 may mean 1234.
            pattern = rf"(?:(?:0|[1-9][0-9]{{0,{column.digits - 1}}})(?:\.[0-9]{{1,{min(column.decimals, 2)}}})?)?"
        case Kind.INTEGER if column.minimum <= 0:
            pattern = rf"(?:0|[1-9][0-9]{{0,{column.digits - 1}}})?"
    return re.compile(pattern)


def _check_text(column: ImportColumn, text: str) -> str:
    if len(text) > column.max_length:
        lines = text.count("\n") + 1
        remedy = f"It spans {lines:,} lines: check whether a closing quote is missing." if lines > 1 else "Shorten it."
        raise RefusedCell(
            "too_long",
            f"{quote_cell(text)} has {len(text):,} characters; at most {column.max_length:,} are allowed. {remedy}",
        )
    if control := _CONTROL.search(text):
        raise RefusedCell(
            "control_character",
            f"{quote_cell(text)} contains the control character U+{ord(control[0]):04X} at position"
            f" {control.start() + 1}. Remove it; tabs and line breaks are allowed.",
        )
    return text


def _read_code(column: ImportColumn, cell: str) -> str:
    if _DAMAGED_CODE.fullmatch(cell):
        raise RefusedCell(
            "damaged_by_spreadsheet",
            f"{quote_cell(cell)} is a number in scientific notation: a spreadsheet converted the code, and its digits"
            " are lost. In the spreadsheet, format the column as text and enter the code again.",
        )
    return _check_text(column, unescape_formula(cell, is_code=True))


def _check_ean(code: str) -> str:
    if not (code.isascii() and code.isdecimal()):
        raise RefusedCell(
            "not_an_ean", f"{quote_cell(code)} is not an EAN code. Write its digits only, without spaces."
        )
    if len(code) not in _EAN_LENGTHS:
        hint = " Check whether leading zeros are missing." if len(code) < max(_EAN_LENGTHS) else ""
        digits_found = format_count(len(code), "digit")
        raise RefusedCell(
            "not_an_ean", f"{quote_cell(code)} has {digits_found}; an EAN code has 8, 12, 13 or 14.{hint}"
        )
    digits = list(map(int, reversed(code)))
    check_digit = -(3 * sum(digits[1::2]) + sum(digits[2::2])) % 10
    if check_digit != digits[0]:
        raise RefusedCell(
            "wrong_check_digit",
            f"{quote_cell(code)} is not an EAN code: its last digit is a check digit and should be {check_digit}."
            " Compare all digits with the code on the product.",
        )
    return code


def _check_url(text: str) -> str:
    try:
        address = urlsplit(text) if _WEB_ADDRESS.fullmatch(text) else None
        if address and address.hostname and address.port != 0:
            return text
    except ValueError:  # the host or the port is malformed
        pass
    raise RefusedCell(
        "not_a_url",
        f"{quote_cell(text)} is not a web address. Write it in full, for example https://shop.example/blue-mug.",
    )


def _read_choice(column: ImportColumn, text: str) -> str:
    choices = {choice.casefold(): choice for choice in column.choices}
    if text and text.casefold() not in choices:
        raise RefusedCell("not_a_choice", f"{quote_cell(text)} is not allowed. Write {' or '.join(column.choices)}.")
    return choices.get(text.casefold(), "")


def _read_boolean(text: str) -> str:
    if text and text.casefold() not in _BOOLEANS:
        raise RefusedCell(
            "not_a_boolean",
            f"{quote_cell(text)} is neither true nor false. Write true or false; yes, no, 1 and 0 are also allowed.",
        )
    return _BOOLEANS.get(text.casefold(), "")


def _read_number(column: ImportColumn, text: str) -> str:
    if not text:
        return ""
    parts = _NUMBER.fullmatch(text)
    if parts is None or not (parts["whole"] or parts["fraction"]):
        _refuse_non_number(column, text)
    whole = re.sub(r"[^0-9]", "", parts["whole"]).lstrip("0")
    fraction = parts["fraction"] or ""
    if len(whole) > column.digits:
        where = " before the decimal separator" if column.decimals else ""
        raise RefusedCell(
            "number_too_large", f"{quote_cell(text)} is too large: at most {column.digits} digits are allowed{where}."
        )
    if len(fraction) == 3 and parts["thousands"] is None:
        sign = parts["sign"].replace("+", "")
        raise RefusedCell("ambiguous_number", _explain_ambiguity(column, text, f"{sign}{whole or '0'}", fraction))
    if len(fraction) > column.decimals:
        allowed = (
            f"{len(fraction):,} decimals; at most {column.decimals} are allowed. Round it: an import never rounds."
            if column.decimals
            else "decimals; only whole numbers are allowed. Write it without decimals."
        )
        raise RefusedCell("too_many_decimals", f"{quote_cell(text)} has {allowed}")
    value = (whole or "0") + (f".{fraction}" if fraction else "")
    if parts["sign"] == "-" and value.strip("0."):
        value = f"-{value}"
    if Decimal(value) < column.minimum:
        raise RefusedCell("below_minimum", f"{quote_cell(text)} is too small: the minimum is {column.minimum:,}.")
    return value


def _explain_ambiguity(column: ImportColumn, text: str, whole: str, fraction: str) -> str:
    """Says in which two ways a number with one separator before three digits can be read, and how to write either."""
    thousands = str(int(whole + fraction))
    decimal = f"{whole}.{fraction}"
    shortest = f"{whole}.{fraction.rstrip('0') or '0'}"
    if not column.decimals:
        remedy = f"Write {thousands} if that is what you mean; decimals are not allowed."
    elif len(fraction.rstrip("0")) <= column.decimals and shortest != decimal:
        remedy = f"Write {thousands} or {shortest}."
    elif column.decimals > 3:
        remedy = f"Write {thousands} or {decimal}0."
    else:
        remedy = f"Write {thousands} or a number with at most {format_count(column.decimals, 'decimal')}."
    return f"{quote_cell(text)} could mean {thousands} or {decimal}. {remedy}"


def _refuse_non_number(column: ImportColumn, text: str) -> NoReturn:
    """Raises RefusedCell for a text that is not a number, with the most likely cause."""
    example = "12" if column.kind is Kind.INTEGER else "12.50 or 12,50"
    if _NUMBER_IN_E_NOTATION.fullmatch(text):
        raise RefusedCell(
            "e_notation",
            f"{quote_cell(text)} is in scientific notation. Write the number with all its digits, such as {example}.",
        )
    if any(unicodedata.category(character) == "Sc" for character in text[:QUOTED_LENGTH]):
        raise RefusedCell(
            "currency_sign", f"{quote_cell(text)} contains a currency sign. Write the number only, such as {example}."
        )
    name = "whole number" if column.kind is Kind.INTEGER else "number"
    raise RefusedCell("not_a_number", f"{quote_cell(text)} is not a {name}. Write a number such as {example}.")
