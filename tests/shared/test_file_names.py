"""Names that users type, as parts of a path and in headers."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from shared.file_names import MAX_NAME_BYTES, content_disposition, safe_file_name, safe_file_name_of_type

ENDINGS = st.sampled_from([".csv", ".xlsx", ".pdf"])
# With single surrogates: JSON can contain half of a pair.
TYPED = st.text(st.characters(codec=None), max_size=300) | st.text("./\\ -~\"'\r\n\0ab é日", max_size=300)

INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# What a header can contain: https://www.rfc-editor.org/rfc/rfc9110#section-5.5
HEADER_VALUE = re.compile(r"[\x20-\x7e]+")


@given(TYPED)
@example("..")
@example("../../etc/passwd")
@example("CON.txt")
@example("\ud800")
@example("\ufeff\u202egpj.exe")
@example("a" * 199 + "." + "é" * 10)
def test_a_safe_name_is_one_part_of_a_path_on_any_system(typed: str) -> None:
    """Any typed text gives a name without separators, control characters and "..", neither empty nor too long."""
    name = safe_file_name(typed, "default")

    assert name
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert not set(name) & set("/\\?#*[]\"'<>|:;`$%&")
    assert not INVISIBLE.search(name)
    assert ".." not in name
    assert name == name.strip(" .-")
    assert name.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


@given(TYPED, ENDINGS)
def test_the_ending_of_a_file_type_appears_once(typed: str, ending: str) -> None:
    """The file name is the same whether the user types the ending or not, in upper or lower case."""
    name = safe_file_name_of_type(typed, ending, "default")

    assert name.endswith(ending)
    assert len(name) > len(ending)
    endings = (ending, ending.upper())
    assert len({safe_file_name_of_type(f"{typed}{typed_ending}", ending, "default") for typed_ending in endings}) == 1


@given(TYPED, ENDINGS)
@example('Ünïcödé "prices" / 2026\r\nX-Evil: 1 ../../x', ".csv")
@example("50% off", ".csv")
def test_a_content_disposition_contains_the_exact_name(typed: str, ending: str) -> None:
    """An independent parser reads the name back, and the value cannot start a second header."""
    name = safe_file_name_of_type(typed, ending, "default")

    header = content_disposition(name)

    assert HEADER_VALUE.fullmatch(header)
    assert parse_options_header(header) == ("attachment", {"filename": name})


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        pytest.param("prices", "prices.csv", id="no ending"),
        pytest.param("prices.csv", "prices.csv", id="ending"),
        pytest.param("prices.CSV", "prices.csv", id="ending in capitals"),
        pytest.param("prices.2026", "prices.2026.csv", id="point in the name"),
        pytest.param("prices / may", "prices - may.csv", id="slash"),
        pytest.param("../../etc/passwd", "etc-passwd.csv", id="path"),
        pytest.param("..", "products.csv", id="parent folder"),
        pytest.param("", "products.csv", id="empty"),
        pytest.param("   ", "products.csv", id="spaces"),
        pytest.param("価格表", "価格表.csv", id="Japanese"),
        pytest.param("Cafe\u0301", "Café.csv", id="decomposed"),
        pytest.param("a\r\nSet-Cookie: x", "a-Set-Cookie- x.csv", id="header injection"),
        pytest.param('"quoted"', "quoted.csv", id="quoted"),
        pytest.param("nul", "_nul.csv", id="reserved on Windows"),
        pytest.param("x" * 300, "x" * 200 + ".csv", id="300 characters"),
    ],
)
def test_names_stay_readable(typed: str, name: str) -> None:
    """Users recognize the file by the name that they typed."""
    assert safe_file_name_of_type(typed, ".csv", "products") == name


def test_a_plain_name_is_given_once_and_any_other_twice() -> None:
    """Old programs read the first form, every browser reads the second."""
    assert content_disposition("prices may.csv") == 'attachment; filename="prices may.csv"'
    assert content_disposition("Zoë.csv") == "attachment; filename=\"Zo_.csv\"; filename*=UTF-8''Zo%C3%AB.csv"
