"""XLSX exports, as other programs open them: openpyxl always, LibreOffice where it is installed."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functions.exports.sources import SOURCES
from functions.exports.writers import xlsx_file
from tests.functions.exports.writers.test_csv_file import first, put_names

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

    from tests.functions.exports.conftest import Exporter

NO_XML = frozenset(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF]))

texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from([*"&<>\"'\\ \t\r\n=_x;", "_x0041_", "&amp;", "]]>", "\\N", "\\.", "é"]), max_size=8).map(
        "".join
    ),
)


def sheet_of(content: bytes) -> Worksheet:
    """The first sheet, as openpyxl reads it."""
    return openpyxl.load_workbook(io.BytesIO(content)).worksheets[0]


def test_cells_have_their_types(own: Exporter) -> None:
    """Numbers, booleans and times are values to calculate with; codes are text with their zeros; nothing is nothing."""
    own.change(
        "update products set ean_code = '0012345678905', article_code = '007', price = 1234.5, cost_price = null,"
        " stock_on_hand = -5, unlimited_stock = true, created_at = '2026-05-31 23:59:58+02', name = '=1+1'"
        " where webshop_uuid = :webshop and identifier = 'P-000001'"
    )

    amounts = ["price", "cost_price", "stock_on_hand"]
    columns = ["name", "ean_code", "article_code", *amounts, "unlimited_stock", "created_at"]
    sheet = sheet_of(own.file("products", "XLSX", columns=columns, filters=first(1)))

    values = [cell.value for cell in sheet[2]]
    assert values == ["=1+1", "0012345678905", "007", 1234.5, None, -5, True, datetime(2026, 5, 31, 21, 59, 58)]  # noqa: DTZ001
    assert [type(value) for value in values[3:7]] == [float, type(None), int, bool]
    assert sheet["A2"].data_type == "s", "a text that looks like a formula is text"
    assert [sheet.cell(2, 1 + at).number_format for at in (1, 3, 7)] == ["@", "0.00", 'yyyy-mm-dd hh:mm:ss" UTC"']


def test_days_are_days(seeded: Exporter) -> None:
    """A date cell, which a spreadsheet sorts and filters as one."""
    stored = [
        row[0] for row in seeded.query("select starts_on from promotions where webshop_uuid = :webshop order by 1")
    ]

    sheet = sheet_of(seeded.file("promotions", "XLSX", columns=["starts_on"], sorts=[{"column": "starts_on"}]))

    assert [cell.value.date() for cell in sheet["A"][1:]] == stored
    assert isinstance(stored[0], date)


def test_the_heading_is_bold_frozen_and_filters(seeded: Exporter) -> None:
    """What everybody does first with a table is done already."""
    sheet = sheet_of(seeded.file("suppliers", "XLSX"))

    assert [cell.value for cell in sheet[1]] == [column.heading for column in SOURCES["suppliers"].columns]
    assert all(cell.font.b for cell in sheet[1])
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("A2", f"A1:N{seeded.rows + 1}")
    assert sheet.column_dimensions["A"].width == 30
    assert (sheet.title, sheet.max_row) == ("Suppliers", seeded.rows + 1)


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_it_says_the_same_as_the_csv(seeded: Exporter, source: str) -> None:
    """Every source, every row, in the same order."""
    columns = [c.key for c in SOURCES[source].columns if c.type.name in ("text", "code", "uuid", "integer")]
    rows = sheet_of(seeded.file(source, "XLSX", columns=columns)).iter_rows(min_row=2, values_only=True)

    in_csv = seeded.table(source, columns=columns)

    assert [[unescaped(value) for value in row] for row in rows] == [
        [cell.removeprefix("'") for cell in row] for row in in_csv
    ]


def unescaped(value: Any) -> str:
    """A cell as text, without the apostrophe that a CSV may have put before it."""
    return "" if value is None else str(value).removeprefix("'")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=20))
def test_any_text_is_there_to_the_letter(own: Exporter, stored: list[str]) -> None:
    """Markup, backslashes, line breaks, spaces at the ends; what XML cannot hold becomes a replacement character."""
    put_names(own, stored)

    sheet = sheet_of(own.file("products", "XLSX", columns=["name"], filters=first(len(stored))))

    wanted = ["".join("\ufffd" if c in NO_XML else c for c in name) for name in stored]
    assert [cell.value or "" for cell in sheet["A"][1:]] == wanted


def test_a_text_too_long_for_a_cell_is_cut_to_what_it_holds(own: Exporter) -> None:
    """A cell holds 32,767 units of UTF-16; a program would call a file with more damaged."""
    put_names(own, ["x" * 40_000, "\N{GRINNING FACE}" * 20_000, "y" * 32_767])

    sheet = sheet_of(own.file("products", "XLSX", columns=["name"], filters=first(3)))

    lengths = [len(cell.value.encode("utf-16-le")) // 2 for cell in sheet["A"][1:]]
    assert lengths[0] == lengths[2] == 32_767
    assert 0 < lengths[1] <= 32_767


@pytest.mark.parametrize("number", [pytest.param("NaN", id="NaN"), pytest.param("1234567890.12", id="12 digits")])
def test_what_is_no_number_to_a_spreadsheet_is_text(own: Exporter, number: str) -> None:
    """NaN can stand in a numeric column; as a number it would make the file unreadable."""
    own.change("update suppliers set minimum_order_value = cast(:n as numeric) where webshop_uuid = :webshop", n=number)

    sheet = sheet_of(own.file("suppliers", "XLSX", columns=["minimum_order_value"]))

    assert str(sheet["A2"].value) == number


def test_rows_go_on_in_the_next_sheet(own: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format ends a sheet at 1,048,576 rows; here at 700, so that 2,000 products need three."""
    monkeypatch.setattr(xlsx_file, "MAX_SHEET_ROWS", 700)

    book = openpyxl.load_workbook(io.BytesIO(own.file("products", "XLSX", columns=["identifier"])))

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
    """Nothing found is an answer too."""
    nothing = [{"column": "identifier", "operator": "eq", "value": "there is none"}]

    sheet = sheet_of(seeded.file("products", "XLSX", columns=["identifier"], filters=nothing))

    assert [[cell.value for cell in row] for row in sheet.rows] == [["Identifier"]]


def test_the_archive_is_written_in_order(seeded: Exporter) -> None:
    """A bucket takes bytes in order: nothing is patched afterwards, and the whole is a sound archive."""
    content = seeded.file("suppliers", "XLSX")

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].flag_bits & 0x08, "sizes stand behind the data, as in a stream"


def test_libreoffice_reads_what_was_written(own: Exporter, tmp_path: Path) -> None:
    """A second program, where there is one: it makes a CSV of the file, and the texts are the same."""
    office = shutil.which("soffice") or shutil.which("libreoffice")
    if office is None:
        pytest.skip("LibreOffice is not installed: that XLSX opens in it was not checked in this run (openpyxl did)")
    put_names(own, ["=1+1", " outer ", "a\nb", "007", "<&>", "\\", "Ünïcödé"])
    (tmp_path / "products.xlsx").write_bytes(own.file("products", "XLSX", columns=["name"], filters=first(7)))

    command = [
        office,
        "--headless",
        f"-env:UserInstallation={tmp_path.as_uri()}",
        "--convert-to",
        "csv:Text - txt - csv (StarCalc):44,34,76",
    ]
    subprocess.run([*command, "--outdir", tmp_path, tmp_path / "products.xlsx"], check=True, capture_output=True)

    read = [row[0] for row in csv.reader(io.StringIO((tmp_path / "products.csv").read_text(), newline=""))]
    assert read == ["Name", "=1+1", " outer ", "a\nb", "007", "<&>", "\\", "Ünïcödé"]
