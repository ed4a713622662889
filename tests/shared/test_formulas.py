"""The escape of formulas: exports, error reports and the importer agree on every text."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, cast, func, select

from functions.imports.file import error_report
from functions.imports.file.validation import open_file
from shared.clients.databases import connect_to
from shared.columns import COLUMNS, IDENTIFIER, ImportColumn
from shared.formulas import escape_cell, escape_formula, escape_formula_sql, unescape_formula
from shared.messages import CellError
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from tests.conftest import Databases

# One text for every branch: starts of formulas, apostrophes before them, NULL, E-notation, and what only looks like it.
TELLING_TEXTS = (
    "", "'", "''", "=1+1", "'=1", "''=1", "=a\nb", "=", "\n=1", " =1", "' =1", "-5", "'-5", "-5x", "+1", "@x", "\tx",
    "\rx", "'\t", "NULL", "'NULL", "''NULL", "NULL\n", "NULLABLE", "null", "N", "'N", "4.0E+12", "'4.0E+12",
    "''4,0e12", "4E+12", "12E4", "'12E4", "4.0E+12\n", "-4.0E+12", "'-4.0E+12", "4.0E+12B", "E+12", "1e5", "-1e5",
    "\ttrue", "\tenabled", "\t5", "\t", "\r ", "-1 000", "+1,234.50", "-0.5", "'5", "'true", "\u0664.0E+12", "\uff1d1",
    "é", "\N{GRINNING FACE}", "\x7f=", "\u0080=",
)  # fmt: skip
COLUMN_OF_EACH_KIND = tuple({column.kind: column for column in COLUMNS}.values())
MEANINGFUL_PARTS = (*"'=+-@\t\r\neE15., ", "NULL", "4.0E+12", "true")

# PostgreSQL stores no NUL, and UTF-8 no half of a pair.
storable_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
texts = st.one_of(
    st.sampled_from(TELLING_TEXTS), st.lists(st.sampled_from(MEANINGFUL_PARTS), max_size=6).map("".join), storable_texts
)


@pytest.fixture(scope="module")
def conn(databases: Databases) -> Iterator[Connection]:
    engine = connect_to("PRODUCT", DatabaseSettings(url=databases.product_url), 1)
    with engine.connect() as conn:
        yield conn
    engine.dispose()


@given(st.lists(texts, min_size=1, max_size=200))
@example(list(TELLING_TEXTS))
@settings(deadline=None)
def test_postgresql_escapes_as_python_does_and_the_importer_undoes_it(conn: Connection, stored: list[str]) -> None:
    """Whatever a product holds: the export's SQL and Python write the same cell, and it is read as the same text."""
    as_texts = [escape_formula(text) for text in stored]
    as_codes = [escape_formula(text, is_code=True) for text in stored]

    by_postgresql = escape_by_postgresql(conn, stored)

    assert by_postgresql == list(zip(as_texts, as_codes, strict=True))
    assert [unescape_formula(cell) for cell in as_texts] == stored
    assert [unescape_formula(cell, is_code=True) for cell in as_codes] == stored


@pytest.mark.parametrize("column", COLUMN_OF_EACH_KIND, ids=lambda column: column.key)
@given(cells=st.lists(texts | st.text(max_size=20), min_size=1, max_size=20))
@example(cells=list(TELLING_TEXTS))
@settings(max_examples=50, deadline=None)
def test_an_error_report_imported_again_has_the_meaning_of_the_file(column: ImportColumn, cells: list[str]) -> None:
    """The merchant corrects one cell of a row; every other cell means what it meant in the file."""
    rows = [[f"P-{index}", cell] for index, cell in enumerate(cells)]
    file = write_csv([[IDENTIFIER.key, column.key], *rows])
    errors = [CellError("", "", "any", "Any.")]
    refused = ((row_number, errors) for row_number in range(2, len(rows) + 2))

    report = write_csv(error_report.build_lines(open_file(file), refused, ""))

    assert read_values(report) == read_values(file)


@given(texts)
def test_a_spreadsheet_runs_nothing_in_an_error_report(cell: str) -> None:
    """What starts like a formula there is a number."""
    escaped = escape_cell(cell)

    if escaped.startswith(("=", "+", "-", "@", "\t", "\r")):
        assert all(character.isdigit() or character.isspace() or character in "+-.,'\u2019eE" for character in escaped)


def escape_by_postgresql(conn: Connection, stored: list[str]) -> list[tuple[str, str]]:
    """Each text as the SQL expression escapes it, as a text and as a code, in one query."""
    texts_of = func.json_array_elements_text(cast(stored, JSON))
    rows = texts_of.table_valued("value", with_ordinality="number").render_derived()
    escaped = (escape_formula_sql(rows.c.value, is_code=is_code) for is_code in (False, True))
    return [(text, code) for text, code in conn.execute(select(*escaped).order_by(rows.c.number))]


def write_csv(rows: Iterable[list[Any]]) -> bytes:
    """The rows as spreadsheets save them."""
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode("utf-8", "replace")


def read_values(content: bytes) -> dict[int, tuple[str | None, ...] | None]:
    """What each row of an import file means, by its row number; None where it is refused."""
    values: dict[int, tuple[str | None, ...] | None] = {}
    for piece in open_file(content).validate():
        values |= dict(zip(piece.row_numbers, piece.rows, strict=True))
        values |= {row.row_number: None for row in piece.refused}
    return values
