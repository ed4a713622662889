"""CSV exports: how spreadsheets and other programs read them, and that they can be imported again."""

from __future__ import annotations

import json
import unicodedata
import uuid
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from functions.imports import gate, import_apply
from functions.imports.file.validation import open_file
from shared.columns import COLUMNS
from shared.messages import ImportBatch, RefusedRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.functions.exports.conftest import Exporter

SPECIAL_TEXTS = (
    "=1+1", "'=1", "''x", "-5", "+1", "@SUM(1)", "NULL", "'NULL", "''NULL", "null", "NULLs", " outer ", "a\nb", 'a"b',
    "a;b,c", "007", "\tx", "\rx", "1e5", "'1e5", "4.0E+12", "'4,0e12", "12E4", "TRUE", "'", "''", "'tis", '"', '""',
    "\\", "\\.", "\\N", "a\\nb", "%s %% %(x)s :x", "\u2028", "\ufeff", "\N{GRINNING FACE}", "= 1", "'\t", "N", "é",
    "  ", ",", "\n", "\r\n", "-", "--", "E1", "1E", "1.5e+3x", "+4.0E+12", "' =1", "NULL\n", "'=\n1",
)  # fmt: skip
FORMULA_STARTS = tuple("=+-@\t\r")

# Any text that the database can store, also what the rules of an import refuse, such as control characters.
stored_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
# Short texts of characters that have a meaning in spreadsheets, CSV, COPY, SQL or the importer.
meaningful_texts = st.lists(
    st.sampled_from([*"'\"=+-@\t\r\n,;\\%:.eE01 N", "NULL", "4.0E+12", "é", "\N{GRINNING FACE}"]), max_size=8
).map("".join)
texts = st.one_of(st.sampled_from(SPECIAL_TEXTS), meaningful_texts, stored_texts)


def test_a_file_starts_with_a_byte_order_mark_and_the_headings(seeded: Exporter) -> None:
    """A spreadsheet recognizes UTF-8 by the mark. The headings are in the order of the request."""
    content = seeded.export("products", columns=["name", "identifier", "price"])

    assert content.startswith(b"\xef\xbb\xbfName,Identifier,Price\n")
    assert seeded.rows == content.count(b"\n") - 1 == 2_000


def test_a_single_empty_column_has_one_line_per_row(own: Exporter) -> None:
    """Most readers skip an empty line, so an empty cell is written as two quotes."""
    own.change("update products set sku_code = null where webshop_uuid = :webshop")

    content = own.export("products", columns=["sku_code"], filters=filter_first(3))

    assert content == b'\xef\xbb\xbfSKU code\n""\n""\n""\n'


def test_the_delimiter_can_be_a_semicolon(seeded: Exporter) -> None:
    """Spreadsheets expect semicolons in countries where the comma is the decimal separator."""
    rows = seeded.export_rows("products", columns=["identifier", "name", "price"], delimiter=";")

    assert {len(row) for row in rows} == {3}


def test_values_are_written_as_the_importer_reads_them(own: Exporter) -> None:
    """Prices have two decimals, booleans are true or false, timestamps are in UTC, and a missing value is empty."""
    own.change(
        "update products set price = 1234.5, cost_price = null, unlimited_stock = true, stock_on_hand = -5,"
        " created_at = '2026-05-31 23:59:58+02' where webshop_uuid = :webshop and identifier = 'P-000001'"
    )

    (row,) = own.export_rows(
        "products",
        columns=["price", "cost_price", "unlimited_stock", "stock_on_hand", "created_at"],
        filters=filter_first(1),
    )

    assert row == ["1234.50", "", "true", "-5", "2026-05-31T21:59:58Z"]


def test_no_text_starts_like_a_formula(own: Exporter) -> None:
    """A spreadsheet runs a text that starts with one of six characters."""
    store_names(own, SPECIAL_TEXTS)

    names = own.export_column("products", "name")

    assert set(map(repr, names)) >= {repr("'=1+1"), repr("''=1"), repr("'NULL"), repr("''x"), repr("1e5"), repr("'\tx")}
    assert not [name for name in names if name.startswith(FORMULA_STARTS) or name == "NULL"]


def test_a_number_is_never_escaped(own: Exporter) -> None:
    """A stock of -5 is a number; an apostrophe would turn it into a text."""
    own.change("update products set stock_on_hand = -5 where webshop_uuid = :webshop")

    cells = own.export_column("products", "stock_on_hand")

    assert set(cells) == {"-5"}


def test_an_import_of_an_export_of_all_columns_changes_nothing(own: Exporter) -> None:
    """No product of the seeded webshop is updated or refused, also with special names and codes."""
    store_names(own, SPECIAL_TEXTS)
    for column in ("sku_code", "article_code"):
        store(own, column, SPECIAL_TEXTS)
    store(own, "identifier", [text if text.strip() else f"blank {number}" for number, text in enumerate(SPECIAL_TEXTS)])

    updated, refused = import_and_roll_back(own, own.export("products"))

    assert (updated, refused) == ([], [])


@settings(max_examples=150)
@given(st.lists(texts, min_size=1, max_size=25))
@example(list(SPECIAL_TEXTS))
def test_an_import_of_an_export_changes_no_text(own: Exporter, stored: list[str]) -> None:
    """Texts and codes of every kind stay the same. Only control characters are refused, by a rule of imports."""
    for column in ("name", "sku_code", "article_code"):
        store(own, column, stored)

    updated, refused = import_and_roll_back(own, own.export("products", filters=filter_first(len(stored))))

    assert updated == []
    assert {error.code for row in refused for error in row.errors} <= {"control_character"}
    assert len(refused) == sum(any(map(is_control, text)) for text in stored)


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=25), st.sampled_from(",;"))
def test_a_csv_reader_reads_the_stored_text_except_for_the_apostrophe(
    own: Exporter, stored: list[str], delimiter: str
) -> None:
    """Delimiters, quotes, backslashes and line breaks are kept; at most one apostrophe is added at the start."""
    store_names(own, stored)

    cells = own.export_column("products", "name", delimiter=delimiter, filters=filter_first(len(stored)))

    assert all(cell in (name, f"'{name}") for cell, name in zip(cells, stored, strict=True))


def filter_first(count: int) -> list[dict[str, str]]:
    """Returns the filters for the first products, which `store` writes to."""
    return [{"column": "identifier", "operator": "lte", "value": f"P-{count:06d}"}]


def is_control(character: str) -> bool:
    """Whether imports refuse it: all control characters except for tab and line breaks."""
    return unicodedata.category(character) == "Cc" and character not in "\t\n\r"


def store_names(own: Exporter, texts: Sequence[str]) -> None:
    """Stores texts as the names of the first products."""
    store(own, "name", texts)


def store(own: Exporter, column: str, texts: Sequence[str]) -> None:
    """Stores texts in one column of the first products."""
    own.change(
        f"update products p set {column} = t.value from json_array_elements_text(cast(:texts as json))"
        " with ordinality t(value, number) where p.webshop_uuid = :webshop"
        " and p.identifier = 'P-' || lpad(cast(t.number as text), 6, '0')",
        texts=json.dumps(list(texts)),
    )


def import_and_roll_back(own: Exporter, content: bytes) -> tuple[list[str], list[RefusedRow]]:
    """Imports a file, rolls back, and returns the updated identifiers and the refused rows."""
    file = open_file(content)
    assert {column.key for column in COLUMNS} <= set(file.columns)
    import_uuid = uuid.uuid4()
    updated: list[str] = []
    refused: list[RefusedRow] = []
    with own.engine.connect() as conn:
        gate.open_gate(conn, import_uuid, 1)
        for piece in file.validate():
            refused += piece.refused
            if not piece.rows:
                continue
            batch = ImportBatch(
                own.webshop_uuid, import_uuid, 1, tuple(piece.row_numbers), file.columns, tuple(piece.rows)
            )
            result = import_apply.apply_batch(conn, batch)
            updated += result.updated
            refused += result.refused
        conn.rollback()
    return updated, refused
