"""PDF exports as other programs read them: pypdf, and pdftotext where it is installed."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pypdf
import pytest

from functions.exports.identifiers import DEFAULT_IDENTIFIERS
from functions.exports.source import DECIMAL, TEXT, Column
from functions.exports.sources import SOURCES
from functions.exports.writers import fonts, pdf_file
from functions.exports.writers.paper import MARGIN, PAGE_SIZES
from functions.exports.writers.pdf_table import GUTTER, Table
from shared.problems import Problem

if TYPE_CHECKING:
    from tests.conftest import Databases
    from tests.functions.exports.conftest import Exporter

NAME_IDENTIFIERS = ("WEBSHOP_PRODUCT_NAME", "SUPPLIER_PRODUCT_NAME")


def read_pages(content: bytes) -> list[str]:
    """Returns the text of each page, as pypdf reads it."""
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]


@pytest.fixture
def order(databases: Databases) -> dict[str, str]:
    """The parents of an export of one order, which has 25 lines."""
    return {"buy_order_uuid": str(databases.tenants.buy_order_uuid)}


def test_an_order_contains_everything_that_a_supplier_needs(seeded: Exporter, order: dict[str, str]) -> None:
    """It has sender, recipient, number, dates, every line with its identifiers, and the total."""
    (facts,) = seeded.query(
        "select o.number, o.ordered_on, o.expected_on, o.currency, s.name, s.customer_number, w.name, w.vat_number"
        " from buy_orders o join suppliers s on s.uuid = o.supplier_uuid join webshops w on w.uuid = o.webshop_uuid"
        " where o.uuid = cast(:uuid as uuid)",
        uuid=order["buy_order_uuid"],
    )
    lines = seeded.query(
        "select p.sku_code, p.ean_code, p.article_code, l.quantity, l.unit_price, l.quantity * l.unit_price"
        " from buy_order_lines l join products p on p.uuid = l.product_uuid"
        " where l.buy_order_uuid = cast(:uuid as uuid)",
        uuid=order["buy_order_uuid"],
    )

    pages = read_pages(seeded.export("buy_orders", "PDF", parents=order))

    text = "\n".join(pages)
    assert seeded.rows == len(lines) == 25
    for value in facts:
        assert str(value) in text
    for line in lines:
        for value in line:
            printed = f"{value:,}" if isinstance(value, int | Decimal) else value
            assert printed is None or printed in text
    assert f"Total {facts.currency} {sum(line[-1] for line in lines):,}" in pages[-1]


def test_every_page_has_its_number_and_the_heading(seeded: Exporter) -> None:
    """The pages of a printed order may get separated: each one names the order, its position and its columns."""
    pages = read_pages(seeded.export("buy_orders", "PDF"))

    footers = [re.search(r"Purchase order (\S+)\s+Page (\d+) of (\d+)", page) for page in pages]
    assert all(footers)
    positions: dict[str, list[tuple[int, int]]] = {}  # of each order's pages: number and total
    for footer in footers:
        number, page, total = footer.groups()  # type: ignore[union-attr]
        positions.setdefault(number, []).append((int(page), int(total)))
    assert list(positions) == sorted(positions), "orders are sorted by number"
    for pages_of_order in positions.values():
        total = len(pages_of_order)
        assert pages_of_order == [(page, total) for page in range(1, total + 1)], "each order has pages of its own"
    assert all("SKU code" in page and "Amount" in page for page in pages)
    count = "select count(*) from buy_orders where webshop_uuid = :webshop and deleted_at is null"
    assert len(positions) == seeded.query(count)[0][0]


def test_no_page_contains_only_the_total(own: Exporter, order: dict[str, str]) -> None:
    """The last page of an order has at least one line, so that the total can be understood."""
    for count in range(18, 32):
        own.change(
            "delete from buy_order_lines where line_number > :count and buy_order_uuid = cast(:uuid as uuid)",
            count=50 - count,
            uuid=order["buy_order_uuid"],
        )

        pages = read_pages(own.export("buy_orders", "PDF", parents=order, columns=["line_number"]))

        assert "Line" in pages[-1]
        assert "Total" in pages[-1]
        assert not any("Total" in page for page in pages[:-1])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Süßes für Müller, Ångström", id="Latin"),
        pytest.param("Βάζο μικρό ΆΈ", id="Greek"),
        pytest.param("Ёлка щётка Україна", id="Cyrillic"),
        pytest.param("白色花瓶", id="Chinese"),
        pytest.param("青いマグカップ", id="Japanese"),
        pytest.param("파란 머그컵", id="Korean"),
        pytest.param("Cup 杯 кружка", id="mixed"),
    ],
)
def test_names_print_in_their_own_script(own: Exporter, order: dict[str, str], name: str) -> None:
    """Latin, Greek, Cyrillic, Chinese, Japanese and Korean names appear in the lines and heads of orders."""
    own.change("update products set name = :name where webshop_uuid = :webshop", name=name)
    own.change("update suppliers set name = :name where webshop_uuid = :webshop", name=f"{name} GmbH")

    text = "\n".join(read_pages(own.export("buy_orders", "PDF", identifiers=NAME_IDENTIFIERS, parents=order)))

    text_without_spaces = re.sub(r"\s", "", text)
    assert text_without_spaces.count(re.sub(r"\s", "", name)) >= 25 + 1


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("مزهرية زرقاء", id="Arabic"),
        pytest.param("כוס כחולה", id="Hebrew"),
        pytest.param("नीला मग", id="Devanagari"),
        pytest.param("แก้วสีน้ำเงิน", id="Thai"),
    ],
)
def test_a_name_in_another_script_falls_back_to_the_identifier(
    own: Exporter, order: dict[str, str], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never printed as boxes or question marks, and the replacement is logged."""
    own.change("update products set name = :name where webshop_uuid = :webshop", name=name)
    own.change("update suppliers set name = :name where webshop_uuid = :webshop", name=name)
    own.change("update supplier_products set name = null where webshop_uuid = :webshop")
    identifiers = own.query(
        "select p.identifier, s.email_address from buy_order_lines l join products p on p.uuid = l.product_uuid"
        " join buy_orders o on o.uuid = l.buy_order_uuid join suppliers s on s.uuid = o.supplier_uuid"
        " where l.buy_order_uuid = cast(:uuid as uuid)",
        uuid=order["buy_order_uuid"],
    )

    with caplog.at_level(logging.WARNING):
        text = "\n".join(read_pages(own.export("buy_orders", "PDF", identifiers=NAME_IDENTIFIERS, parents=order)))

    assert all(identifier in text for identifier, _ in identifiers)
    assert text.count(identifiers[0].email_address) == 2, "once as the supplier's name, and once as the address"
    assert "?" not in text
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert "Texts that our fonts cannot print were replaced or left out: 26" in caplog.text


def test_symbols_that_the_fonts_lack_are_left_out() -> None:
    """A name with an emoji is printed without it instead of being replaced."""
    assert fonts.make_printable("Mug \N{WRAPPED PRESENT}") == "Mug"
    assert fonts.make_printable("a\tb\nc") == "a b c"
    assert fonts.make_printable("A\N{COMBINING RING ABOVE}") == "Å"
    assert fonts.make_printable("\N{WRAPPED PRESENT}") is None
    assert fonts.make_printable("") == ""


def test_texts_are_wrapped_between_words() -> None:
    """Only a word that is longer than a line is broken."""
    assert fonts.wrap("one two three", 4.5) == ["one two", "three"]
    assert "".join(fonts.wrap("x" * 50, 5)) == "x" * 50
    assert all(fonts.measure(line) <= 5 for line in fonts.wrap("x" * 50 + " Wide WORDS and 汉字汉字汉字汉字", 5))


def test_numbers_are_not_wrapped() -> None:
    """A number that is broken over two lines reads as another number, so the page becomes larger instead."""
    columns = tuple(Column(f"c{n}", "Amount", DECIMAL, TEXT) for n in range(18))  # type: ignore[arg-type]
    row = tuple("1,234,567,890.12" for _ in columns)

    table = Table.fit(columns, [row])

    assert table.page_size == PAGE_SIZES[3]
    assert [len(cell) for cell in table.lay_out_row(row).cells] == [1] * 18
    assert sum(table.widths) + GUTTER * 17 <= table.page_size[0] - 2 * MARGIN + 0.001


def test_all_columns_fit_on_the_page(seeded: Exporter, order: dict[str, str]) -> None:
    """A request may name all columns of the source, and the page becomes landscape."""
    columns = [column.key for column in SOURCES["buy_orders"].columns]

    content = seeded.export("buy_orders", "PDF", columns=columns, parents=order)

    (page, *_) = pypdf.PdfReader(io.BytesIO(content)).pages
    assert page.mediabox.width > page.mediabox.height
    assert "BO-10001" in page.extract_text()


def test_an_order_with_very_long_texts_is_printed(own: Exporter, order: dict[str, str]) -> None:
    """Names and remarks may have thousands of characters, even without spaces."""
    own.change("update products set name = repeat('W', 3000) where webshop_uuid = :webshop")
    own.change("update buy_orders set remarks = repeat('W ', 5000) where webshop_uuid = :webshop")
    own.change(
        "update suppliers set name = repeat('W', 3000), street = repeat('x', 3000) where webshop_uuid = :webshop"
    )

    pages = read_pages(own.export("buy_orders", "PDF", identifiers=NAME_IDENTIFIERS, parents=order))

    assert "Total" in pages[-1]
    assert own.rows == 25


def test_an_empty_export_is_a_page_with_a_message(seeded: Exporter) -> None:
    """No program opens a PDF without pages."""
    unknown_order = {"buy_order_uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}

    pages = read_pages(seeded.export("buy_orders", "PDF", parents=unknown_order))

    assert seeded.rows == 0
    assert pages == ["Purchase order: there are no lines in this selection."]


def test_an_export_with_too_many_lines_for_a_pdf_is_refused(seeded: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PDF is made in memory, so the message recommends CSV or XLSX."""
    monkeypatch.setattr(pdf_file, "MAX_LINES", 20)

    with pytest.raises(Problem, match="Narrow the export, or choose CSV or XLSX"):
        seeded.export("buy_orders", "PDF")


def test_pdftotext_reads_the_identifiers(seeded: Exporter, order: dict[str, str], tmp_path: Path) -> None:
    """A second program, if it is installed, can extract the identifiers from the document."""
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("pdftotext is not installed, so this run checks PDF with pypdf only")
    path = tmp_path / "order.pdf"
    path.write_bytes(seeded.export("buy_orders", "PDF", parents=order))

    text = subprocess.run([program, "-layout", path, "-"], check=True, capture_output=True, text=True).stdout

    lines: list[Any] = seeded.query(
        "select p.ean_code from buy_order_lines l join products p on p.uuid = l.product_uuid"
        " where l.buy_order_uuid = cast(:uuid as uuid) and p.ean_code is not null",
        uuid=order["buy_order_uuid"],
    )
    assert lines
    assert all(line.ean_code in text for line in lines)
    assert len(DEFAULT_IDENTIFIERS) == 3
