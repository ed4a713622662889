"""XLSX exports as other programs read them: openpyxl, and LibreOffice where it is installed."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.exports.sources import SOURCES
from functions.exports.writers import xlsx_file
from tests.functions.exports.writers.test_csv_file import filter_first, store_names

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

    from tests.functions.exports.conftest import Exporter

FORBIDDEN_IN_XML = frozenset(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF]))

texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from([*"&<>\"'\\ \t\r\n=_x;", "_x0041_", "&amp;", "]]>", "\\N", "\\.", "é"]), max_size=8).map(
        "".join
    ),
)


def read_sheet(content: bytes) -> Worksheet:
    """Returns the first sheet, as openpyxl reads it."""
    return openpyxl.load_workbook(io.BytesIO(content)).worksheets[0]


def test_cells_have_their_types(own: Exporter) -> None:
    """Users can calculate with numbers, booleans and timestamps. Codes are texts and keep their zeros."""
    own.change(
        "update products set ean_code = '0012345678905', article_code = '007', price = 1234.5, cost_price = null,"
        " stock_on_hand = -5, unlimited_stock = true, created_at = '2026-05-31 23:59:58+02', name = '=1+1'"
        " where webshop_uuid = :webshop and identifier = 'P-000001'"
    )

    amounts = ["price", "cost_price", "stock_on_hand"]
    columns = ["name", "ean_code", "article_code", *amounts, "unlimited_stock", "created_at"]
    sheet = read_sheet(own.export("products", "XLSX", columns=columns, filters=filter_first(1)))

    values = [cell.value for cell in sheet[2]]
    assert values == ["=1+1", "0012345678905", "007", 1234.5, None, -5, True, datetime(2026, 5, 31, 21, 59, 58)]  # noqa: DTZ001
    assert [type(value) for value in values[3:7]] == [float, type(None), int, bool]
    assert sheet["A2"].data_type == "s", "a text that looks like a formula is text"
    assert [sheet.cell(2, 1 + at).number_format for at in (1, 3, 7)] == ["@", "0.00", 'yyyy-mm-dd hh:mm:ss" UTC"']


def test_dates_are_dates(seeded: Exporter) -> None:
    """A spreadsheet can sort and filter the cells as dates."""
    stored = [
        row[0] for row in seeded.query("select starts_on from promotions where webshop_uuid = :webshop order by 1")
    ]

    sheet = read_sheet(seeded.export("promotions", "XLSX", columns=["starts_on"], sorts=[{"column": "starts_on"}]))

    assert [cell.value.date() for cell in sheet["A"][1:]] == stored
    assert isinstance(stored[0], date)


def test_the_heading_is_bold_frozen_and_filters(seeded: Exporter) -> None:
    """Users need not format the table themselves."""
    sheet = read_sheet(seeded.export("suppliers", "XLSX"))

    assert [cell.value for cell in sheet[1]] == [column.heading for column in SOURCES["suppliers"].columns]
    assert all(cell.font.b for cell in sheet[1])
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", f"A1:N{seeded.rows + 1}")
    assert sheet.column_dimensions["A"].width == 30
    assert (sheet.title, sheet.max_row) == ("Suppliers", seeded.rows + 1)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_file_has_the_same_cells_as_the_csv(seeded: Exporter, source: str) -> None:
    """All rows of every source are equal and in the same order, except for the apostrophes of the CSV."""
    columns = [c.key for c in SOURCES[source].columns if c.type.name in ("text", "code", "uuid", "integer")]

    xlsx_rows = read_sheet(seeded.export(source, "XLSX", columns=columns)).iter_rows(min_row=2, values_only=True)
    csv_rows = seeded.export_rows(source, columns=columns)

    assert [list(map(unescape, row)) for row in xlsx_rows] == [list(map(unescape, row)) for row in csv_rows]


def unescape(value: object) -> str:
    """Returns a cell as text, without the apostrophe that a CSV may have added."""
    return "" if value is None else str(value).removeprefix("'")


@settings(max_examples=80)
@given(st.lists(texts, min_size=1, max_size=20))
def test_any_text_is_kept_exactly(own: Exporter, stored: list[str]) -> None:
    """Markup, backslashes, line breaks and outer spaces are kept; what XML forbids becomes a replacement character."""
    store_names(own, stored)

    sheet = read_sheet(own.export("products", "XLSX", columns=["name"], filters=filter_first(len(stored))))

    expected = ["".join("\ufffd" if c in FORBIDDEN_IN_XML else c for c in name) for name in stored]
    assert [cell.value or "" for cell in sheet["A"][1:]] == expected


def test_a_text_too_long_for_a_cell_is_truncated(own: Exporter) -> None:
    """A cell may have 32,767 UTF-16 code units; programs report a file with longer ones as damaged."""
    store_names(own, ["x" * 40_000, "\N{GRINNING FACE}" * 20_000, "y" * 32_767])

    sheet = read_sheet(own.export("products", "XLSX", columns=["name"], filters=filter_first(3)))

    lengths = [len(cell.value.encode("utf-16-le")) // 2 for cell in sheet["A"][1:]]
    assert lengths[0] == lengths[2] == 32_767
    assert 0 < lengths[1] <= 32_767


@pytest.mark.parametrize("number", [pytest.param("NaN", id="NaN"), pytest.param("1234567890.12", id="12 digits")])
def test_a_number_that_a_spreadsheet_cannot_store_is_text(own: Exporter, number: str) -> None:
    """A numeric column can contain NaN, which as a number would make the file unreadable."""
    own.change("update suppliers set minimum_order_value = cast(:n as numeric) where webshop_uuid = :webshop", n=number)

    sheet = read_sheet(own.export("suppliers", "XLSX", columns=["minimum_order_value"]))

    assert str(sheet["A2"].value) == number


def test_rows_continue_in_the_next_sheet(own: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet may have 1,048,576 rows; here the limit is 700, so that 2,000 products need three sheets."""
    monkeypatch.setattr(xlsx_file, "MAX_SHEET_ROWS", 700)

    book = openpyxl.load_workbook(io.BytesIO(own.export("products", "XLSX", columns=["identifier"])))

    assert book.sheetnames == ["Products", "Products (2)", "Products (3)"]
    assert [(sheet.max_row, sheet.auto_filter.ref) for sheet in book] == [
        (700, "A1:A700"),
        (700, "A1:A700"),
        (603, "A1:A603"),
    ]
    assert all(sheet["A1"].value == "Identifier" and sheet["A1"].font.b for sheet in book)
    identifiers = [cell.value for sheet in book for cell in sheet["A"][1:]]
    assert identifiers == [f"P-{number:06d}" for number in range(1, 2_001)]


def test_an_empty_export_is_a_sheet_with_headings(seeded: Exporter) -> None:
    """A selection without rows is a valid export."""
    nothing = [{"column": "identifier", "operator": "eq", "value": "no such product"}]

    sheet = read_sheet(seeded.export("products", "XLSX", columns=["identifier"], filters=nothing))

    assert [[cell.value for cell in row] for row in sheet.rows] == [["Identifier"]]


def test_the_archive_is_written_from_start_to_end(seeded: Exporter) -> None:
    """A bucket takes bytes in order, so no earlier byte may be changed, and still the archive must be valid."""
    content = seeded.export("suppliers", "XLSX")

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].flag_bits & 0x08, "the sizes come after the data, as in a stream"


def test_libreoffice_reads_the_same_texts(own: Exporter, tmp_path: Path) -> None:
    """A second program, if it is installed, converts the file to a CSV with the same texts."""
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if office is None:
        pytest.skip("LibreOffice is not installed, so this run checks XLSX with openpyxl only")
    store_names(own, ["=1+1", " outer ", "a\nb", "007", "<&>", "\\", "Ünïcödé"])
    (tmp_path / "products.xlsx").write_bytes(own.export("products", "XLSX", columns=["name"], filters=filter_first(7)))

    command = [
        office,
        "--headless",
        f"-env:UserInstallation={tmp_path.as_uri()}",
        "--convert-to",
        "csv:Text - txt - csv (StarCalc):44,34,76",
    ]
    subprocess.run([*command, "--outdir", tmp_path, tmp_path / "products.xlsx"], check=True, capture_output=True)

    cells = [row[0] for row in csv.reader(io.StringIO((tmp_path / "products.csv").read_text(), newline=""))]
    assert cells == ["Name", "=1+1", " outer ", "a\nb", "007", "<&>", "\\", "Ünïcödé"]
