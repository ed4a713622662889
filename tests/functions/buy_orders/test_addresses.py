"""Addresses and names in the headers of a mail."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.buy_orders.addresses import MAX_NAME_LENGTH, parse_address, to_one_line
from shared.problems import Problem

CASES = Path(__file__).parents[2] / "data" / "mail_addresses.txt"


def cases():
    """What was typed and what it means. A case is called by its line."""
    for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("#"):
            typed, meaning = line.split(" | ")
            for escape in ("\\r", "\\n", "\\t", "\\0"):
                typed = typed.replace(escape, escape.encode().decode("unicode_escape"))
            yield pytest.param(typed, meaning, id=f"line {number}")


@pytest.mark.parametrize(("typed", "meaning"), list(cases()))
def test_an_address_is_one_address_or_refused(typed, meaning):
    """One mailbox that the mail service takes, and nothing that could end a header."""
    if meaning != "refused":
        assert parse_address(typed, "recipient") == meaning
        return
    with pytest.raises(Problem) as refusal:
        parse_address(typed, "recipient")
    assert (refusal.value.status, refusal.value.at) == (422, "recipient")
    assert refusal.value.detail.isprintable()


@given(st.text())
def test_whatever_is_typed_stays_out_of_the_headers(typed):
    """An address that is taken has neither space nor line break; a name is one printable line."""
    try:
        address = parse_address(typed, "recipient")
    except Problem:
        pass
    else:
        assert address.isascii()
        assert address.isprintable()
        assert not set(address) & set(' ,;<>"()')
    name = to_one_line(typed)
    assert name.isprintable()
    assert len(name) <= MAX_NAME_LENGTH
    assert to_one_line(name) == name.strip()
