"""CSV exports: what spreadsheets and other programs make of them, and that they go back in as an import."""

from __future__ import annotations

import json
import unicodedata
import uuid
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from functions.imports import gate, import_apply
from functions.imports.file.validation import open_file
from shared.columns import COLUMNS
from shared.messages import ImportBatch

if TYPE_CHECKING:
    from tests.functions.exports.conftest import Exporter

NASTY = (
    "=1+1", "'=1", "''x", "-5", "+1", "@SUM(1)", "NULL", "'NULL", "''NULL", "null", "NULLs", " outer ", "a\nb", 'a"b',
    "a;b,c", "007", "\tx", "\rx", "1e5", "'1e5", "4.0E+12", "'4,0e12", "12E4", "TRUE", "'", "''", "'tis", '"', '""',
    "\\", "\\.", "\\N", "a\\nb", "%s %% %(x)s :x", "\u2028", "\ufeff", "\N{GRINNING FACE}", "= 1", "'\t", "N", "é",
    "  ", ",", "\n", "\r\n", "-", "--", "E1", "1E", "1.5e+3x", "+4.0E+12", "' =1", "NULL\n", "'=\n1",
)  # fmt: skip
FORMULA_STARTS = tuple("=+-@\t\r")

# Whatever the database can hold; what an import's rules allow besides, such as tabs and line breaks, is among it.
stored_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
# Short texts of what means something to spreadsheets, CSV, COPY, SQL or the importer.
meaningful_texts = st.lists(
    st.sampled_from([*"'\"=+-@\t\r\n,;\\%:.eE01 N", "NULL", "4.0E+12", "é", "\N{GRINNING FACE}"]), max_size=8
).map("".join)
texts = st.one_of(st.sampled_from(NASTY), meaningful_texts, stored_texts)


def test_a_spreadsheet_sees_utf8_headings_and_rows(seeded: Exporter) -> None:
    """A byte order mark says that it is UTF-8; the first line holds the headings in the order asked for."""
    content = seeded.file("products", columns=["name", "identifier", "price"])

    assert content.startswith(b"\xef\xbb\xbfName,Identifier,Price\n")
    assert seeded.rows == content.count(b"\n") - 1 == 2_000


def test_a_column_of_nothing_has_a_line_a_row(own: Exporter) -> None:
    """Most readers skip an empty line, and the rows of two files of one export would no longer match."""
    own.change("update products set sku_code = null where webshop_uuid = :webshop")

    content = own.file("products", columns=["sku_code"], filters=first(3))

    assert content == b'\xef\xbb\xbfSKU code\n""\n""\n""\n'


def test_a_semicolon_can_be_asked_for(seeded: Exporter) -> None:
    """Where a comma is the decimal separator, spreadsheets expect semicolons."""
    rows = seeded.table("products", columns=["identifier", "name", "price"], delimiter=";")

    assert {len(row) for row in rows} == {3}


def test_values_are_written_as_the_importer_reads_them(own: Exporter) -> None:
    """Two decimals, true and false, RFC 3339 in UTC, and nothing at all where there is no value."""
    own.change(
        "update products set price = 1234.5, cost_price = null, unlimited_stock = true, stock_on_hand = -5,"
        " created_at = '2026-05-31 23:59:58+02' where webshop_uuid = :webshop and identifier = 'P-000001'"
    )

    (row,) = own.table(
        "products",
        columns=["price", "cost_price", "unlimited_stock", "stock_on_hand", "created_at"],
        filters=first(1),
    )

    assert row == ["1234.50", "", "true", "-5", "2026-05-31T21:59:58Z"]


def test_no_text_starts_as_a_formula(own: Exporter) -> None:
    """A spreadsheet runs what starts with one of six characters, in text columns of every source."""
    put_names(own, NASTY)

    names = own.column("products", "name")

    assert set(map(repr, names)) >= {repr("'=1+1"), repr("''=1"), repr("'NULL"), repr("''x"), repr("1e5"), repr("'\tx")}
    assert not [name for name in names if name.startswith(FORMULA_STARTS) or name == "NULL"]


def test_a_number_is_never_escaped(own: Exporter) -> None:
    """-5 in stock is a number: an apostrophe would make a text of it."""
    own.change("update products set stock_on_hand = -5 where webshop_uuid = :webshop")

    assert set(own.column("products", "stock_on_hand")) == {"-5"}


def test_an_export_of_all_columns_goes_back_in_without_a_change(own: Exporter) -> None:
    """The seeded webshop, with nasty names and codes in it: nothing updated, nothing refused."""
    put_names(own, NASTY)
    for column in ("sku_code", "article_code"):
        put(own, column, NASTY)
    put(own, "identifier", [text if text.strip() else f"blank {number}" for number, text in enumerate(NASTY)])

    updated, refused = imported(own, own.file("products"))

    assert (updated, refused) == ((), ())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=25))
@example(list(NASTY))
def test_any_text_comes_back_as_it_was(own: Exporter, stored: list[str]) -> None:
    """Texts and codes of every kind: the import changes none, and refuses control characters, which are its rule."""
    for column in ("name", "sku_code", "article_code"):
        put(own, column, stored)

    updated, refused = imported(own, own.file("products", filters=first(len(stored))))

    assert updated == ()
    assert {error.code for row in refused for error in row.errors} <= {"control_character"}
    assert len(refused) == sum(any(map(is_control, text)) for text in stored)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=25), st.sampled_from(",;"))
def test_a_csv_reader_reads_what_is_stored_but_for_the_apostrophe(
    own: Exporter, stored: list[str], delimiter: str
) -> None:
    """Delimiters, quotes, backslashes and line breaks survive; at most one apostrophe is added, at the start."""
    put_names(own, stored)

    read = own.column("products", "name", delimiter=delimiter, filters=first(len(stored)))

    assert all(cell in (name, f"'{name}") for cell, name in zip(read, stored, strict=True))


def first(count: int) -> list[dict[str, str]]:
    """The filter for the products that `put` wrote to."""
    return [{"column": "identifier", "operator": "lte", "value": f"P-{count:06d}"}]


def is_control(character: str) -> bool:
    """Whether the importer's rules forbid it: control characters but tab and line breaks."""
    return unicodedata.category(character) == "Cc" and character not in "\t\n\r"


def put_names(own: Exporter, stored: Any) -> None:
    put(own, "name", stored)


def put(own: Exporter, column: str, stored: Any) -> None:
    """Writes texts into a column of the first products."""
    own.change(
        f"update products p set {column} = t.value from json_array_elements_text(cast(:stored as json))"
        " with ordinality t(value, number) where p.webshop_uuid = :webshop"
        " and p.identifier = 'P-' || lpad(cast(t.number as text), 6, '0')",
        stored=json.dumps(list(stored)),
    )


def imported(own: Exporter, content: bytes) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Imports a file, takes it back, and returns what was updated and refused."""
    file = open_file(content)
    assert {column.key for column in COLUMNS} <= set(file.columns)
    import_uuid = uuid.uuid4()
    updated: list[str] = []
    refused: list[Any] = []
    with own.engine.connect() as product:
        gate.open_gate(product, import_uuid, 1)
        for piece in file.validate():
            refused += piece.refused
            if not piece.rows:
                continue
            batch = ImportBatch(
                own.webshop_uuid, import_uuid, 1, tuple(piece.row_numbers), file.columns, tuple(piece.rows)
            )
            outcome = import_apply.apply(product, batch)
            updated += outcome.updated
            refused += outcome.refused
        product.rollback()
    return tuple(updated), tuple(refused)
