"""Addresses and names in the headers of an email."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.buy_orders.addresses import MAX_NAME_LENGTH, parse_address, to_one_line
from shared.problems import Problem

TABLE = Path(__file__).parents[2] / "data" / "mail_addresses.txt"


def read_cases() -> dict[str, tuple[str, str]]:
    """Returns each text of the table with its meaning, by the number of its line."""
    cases = {}
    for number, line in enumerate(TABLE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("#"):
            text, meaning = line.split(" | ")
            for escape in ("\\r", "\\n", "\\t", "\\0"):
                text = text.replace(escape, escape.encode().decode("unicode_escape"))
            cases[f"line {number}"] = (text, meaning)
    return cases


CASES = read_cases()


@pytest.mark.parametrize(("text", "meaning"), CASES.values(), ids=CASES.keys())
def test_a_text_is_one_address_or_refused(text: str, meaning: str) -> None:
    """An accepted text is one mailbox that the email service accepts, and cannot end a header."""
    if meaning != "refused":
        assert parse_address(text, "recipient") == meaning
        return
    with pytest.raises(Problem) as refusal:
        parse_address(text, "recipient")
    assert (refusal.value.status, refusal.value.field_name) == (422, "recipient")
    assert refusal.value.detail.isprintable()


@given(st.text())
def test_no_text_adds_a_header(text: str) -> None:
    """An accepted address has neither spaces nor line breaks, and a name is one printable line."""
    try:
        address = parse_address(text, "recipient")
    except Problem:
        pass
    else:
        assert address.isascii()
        assert address.isprintable()
        assert not set(address) & set(' ,;<>"()')
    name = to_one_line(text)
    assert name.isprintable()
    assert len(name) <= MAX_NAME_LENGTH
    assert to_one_line(name) == name.strip()
