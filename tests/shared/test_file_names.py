"""Names that people type, as parts of a path and in headers."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from shared.file_names import MAX_NAME_BYTES, content_disposition, safe_file_name, safe_file_name_of_type

ENDINGS = st.sampled_from([".csv", ".xlsx", ".pdf"])
# Surrogates too: JSON can hold half of a pair.
TYPED = st.text(st.characters(codec=None), max_size=300) | st.text("./\\ -~\"'\r\n\0ab é日", max_size=300)

INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# What a header can carry: https://www.rfc-editor.org/rfc/rfc9110#section-5.5
HEADER_VALUE = re.compile(r"[\x20-\x7e]+")


@given(TYPED)
@example("..")
@example("../../etc/passwd")
@example("CON.txt")
@example("\ud800")
@example("\ufeff\u202egpj.exe")
@example("a" * 199 + "." + "é" * 10)
def test_a_safe_name_is_one_part_of_a_path_on_any_system(typed):
    """Whatever is typed: no separator, no control character, nothing that points elsewhere, never empty, never long."""
    name = safe_file_name(typed, "default")

    assert name
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert not set(name) & set("/\\?#*[]\"'<>|:;`$%&")
    assert not INVISIBLE.search(name)
    assert ".." not in name
    assert name == name.strip(" .-")
    assert name.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}


@given(TYPED, ENDINGS)
def test_a_name_of_a_type_ends_with_it_once(typed, ending):
    """Typed with the ending or without, in capitals or not: it is the same file name."""
    name = safe_file_name_of_type(typed, ending, "default")

    assert name.endswith(ending)
    assert len(name) > len(ending)
    typed_out = {safe_file_name_of_type(f"{typed}{end}", ending, "default") for end in (ending, ending.upper())}
    assert len(typed_out) == 1


@given(TYPED, ENDINGS)
@example('Ünïcödé "prices" / 2026\r\nX-Evil: 1 ../../x', ".csv")
@example("50% off", ".csv")
def test_a_content_disposition_says_the_name_exactly(typed, ending):
    """A parser that knows nothing of ours reads the name back, and the header can never be two."""
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
def test_names_stay_readable(typed, name):
    """A person finds the file again by what they typed."""
    assert safe_file_name_of_type(typed, ".csv", "products") == name


def test_a_plain_name_is_said_once_and_any_other_twice():
    """Old programs read the first, every browser the second."""
    assert content_disposition("prices may.csv") == 'attachment; filename="prices may.csv"'
    assert content_disposition("Zoë.csv") == "attachment; filename=\"Zo_.csv\"; filename*=UTF-8''Zo%C3%AB.csv"
