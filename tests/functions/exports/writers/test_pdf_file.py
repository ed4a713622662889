"""PDF exports, as other programs read them: pypdf always, pdftotext where it is installed."""

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
from functions.exports.writers import fonts, pdf_file
from functions.exports.writers.paper import MARGIN, PAPERS
from functions.exports.writers.pdf_table import GUTTER, Table
from shared.problems import Problem

if TYPE_CHECKING:
    from tests.conftest import Databases
    from tests.functions.exports.conftest import Exporter

BY_NAME = ("WEBSHOP_PRODUCT_NAME", "SUPPLIER_PRODUCT_NAME")


def pages_of(content: bytes) -> list[str]:
    """The text of each page, as pypdf reads it."""
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]


@pytest.fixture
def order(databases: Databases) -> dict[str, str]:
    """Narrows to one order with 25 lines."""
    return {"buy_order_uuid": str(databases.tenants.buy_order_uuid)}


def test_a_supplier_finds_all_that_an_order_needs(seeded: Exporter, order: dict[str, str]) -> None:
    """Who, to whom, the number, the dates, every line by its identifiers, and what it comes to."""
    (about,) = seeded.query(
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

    pages = pages_of(seeded.file("buy_orders", "PDF", parents=order))

    text = "\n".join(pages)
    assert seeded.rows == len(lines) == 25
    for value in about:
        assert str(value) in text
    for line in lines:
        for value in line:
            assert value is None or f"{value:,}" if isinstance(value, int | Decimal) else value is None or value in text
    assert f"Total {about.currency} {sum(line[-1] for line in lines):,}" in pages[-1]


def test_every_page_says_which_it_is_and_repeats_the_heading(seeded: Exporter) -> None:
    """A printed order comes apart: each page names the order, its place, and its columns."""
    pages = pages_of(seeded.file("buy_orders", "PDF"))

    footers = [re.search(r"Purchase order (\S+)\s+Page (\d+) of (\d+)", page) for page in pages]
    assert all(footers)
    of_order: dict[str, list[tuple[int, int]]] = {}
    for footer in footers:
        number, page, total = footer.groups()  # type: ignore[union-attr]
        of_order.setdefault(number, []).append((int(page), int(total)))
    assert list(of_order) == sorted(of_order), "orders follow each other by number"
    for places in of_order.values():
        assert places == [(page, len(places)) for page in range(1, len(places) + 1)], "each order has pages of its own"
    assert all("SKU code" in page and "Amount" in page for page in pages)
    assert (
        len(of_order)
        == seeded.query("select count(*) from buy_orders where webshop_uuid = :webshop and deleted_at is null")[0][0]
    )


def test_no_page_holds_a_total_alone(own: Exporter, order: dict[str, str]) -> None:
    """However many lines an order has, its last page has one of them, so that the total can be understood."""
    for count in range(18, 32):
        own.change(
            "delete from buy_order_lines where line_number > :count and buy_order_uuid = cast(:uuid as uuid)",
            count=50 - count,
            uuid=order["buy_order_uuid"],
        )

        pages = pages_of(own.file("buy_orders", "PDF", parents=order, columns=["line_number"]))

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
    """Latin, Greek, Cyrillic, Chinese, Japanese and Korean, in lines and in the heads of orders."""
    own.change("update products set name = :name where webshop_uuid = :webshop", name=name)
    own.change("update suppliers set name = :name where webshop_uuid = :webshop", name=f"{name} GmbH")

    text = "\n".join(pages_of(own.file("buy_orders", "PDF", identifiers=BY_NAME, parents=order)))

    flat = re.sub(r"\s", "", text)
    assert flat.count(re.sub(r"\s", "", name)) >= 25 + 1


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
    """Never a box or a question mark; and the log says that it happened."""
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
        text = "\n".join(pages_of(own.file("buy_orders", "PDF", identifiers=BY_NAME, parents=order)))

    assert all(identifier in text for identifier, _ in identifiers)
    assert text.count(identifiers[0].email_address) == 2, "the supplier's name, and the address itself"
    assert "?" not in text
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert "No font has all letters of 26 texts" in caplog.text


def test_what_carries_no_name_is_left_out() -> None:
    """An emoji that no font of ours has must not cost a product its name."""
    assert fonts.printable("Mug \N{WRAPPED PRESENT}") == "Mug"
    assert fonts.printable("a\tb\nc") == "a b c"
    assert fonts.printable("A\N{COMBINING RING ABOVE}") == "Å"
    assert fonts.printable("\N{WRAPPED PRESENT}") is None
    assert fonts.printable("") == ""


def test_texts_break_between_words_and_numbers_never() -> None:
    """Half a number in the next line is another number: the paper grows before that."""
    assert fonts.lines("one two three", 4.5) == ["one two", "three"]
    assert "".join(fonts.lines("x" * 50, 5)) == "x" * 50
    assert all(fonts.width(line) <= 5 for line in fonts.lines("x" * 50 + " Wide WORDS and 汉字汉字汉字汉字", 5))
    columns = tuple(Column(f"c{n}", "Amount", DECIMAL, TEXT) for n in range(18))  # type: ignore[arg-type]
    row = tuple("1,234,567,890.12" for _ in columns)

    table = Table.fitted(columns, [row])

    assert table.page == PAPERS[3]
    assert [len(cell) for cell in table.row(row).cells] == [1] * 18
    assert sum(table.widths) + GUTTER * 17 <= table.page[0] - 2 * MARGIN + 0.001


def test_all_columns_fit_on_the_page(seeded: Exporter, order: dict[str, str]) -> None:
    """Columns win over the settings, all nineteen of them if need be."""
    from functions.exports.sources import SOURCES

    columns = [column.key for column in SOURCES["buy_orders"].columns]

    content = seeded.file("buy_orders", "PDF", columns=columns, parents=order)

    (page, *_) = pypdf.PdfReader(io.BytesIO(content)).pages
    assert page.mediabox.width > page.mediabox.height
    assert "BO-10001" in page.extract_text()


def test_an_absurd_order_still_prints(own: Exporter, order: dict[str, str]) -> None:
    """Names and remarks of thousands of letters, none of them with a space in it."""
    own.change("update products set name = repeat('W', 3000) where webshop_uuid = :webshop")
    own.change("update buy_orders set remarks = repeat('W ', 5000) where webshop_uuid = :webshop")
    own.change(
        "update suppliers set name = repeat('W', 3000), street = repeat('x', 3000) where webshop_uuid = :webshop"
    )

    pages = pages_of(own.file("buy_orders", "PDF", identifiers=BY_NAME, parents=order))

    assert "Total" in pages[-1]
    assert own.rows == 25


def test_nothing_found_is_a_page_that_says_so(seeded: Exporter) -> None:
    """A PDF without a page opens nowhere."""
    nothing = {"buy_order_uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}

    pages = pages_of(seeded.file("buy_orders", "PDF", parents=nothing))

    assert seeded.rows == 0
    assert pages == ["Purchase order: there are no lines in this selection."]


def test_more_than_paper_is_for_is_refused(seeded: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PDF is made in memory; who wants a million lines takes CSV or XLSX, and is told so."""
    monkeypatch.setattr(pdf_file, "MAX_LINES", 20)

    with pytest.raises(Problem, match="Narrow the export, or take CSV or XLSX"):
        seeded.file("buy_orders", "PDF")


def test_pdftotext_reads_the_same(seeded: Exporter, order: dict[str, str], tmp_path: Path) -> None:
    """A second program, where there is one: identifiers and total can be copied out of the document."""
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("pdftotext is not installed: that it reads a PDF was not checked in this run (pypdf did)")
    path = tmp_path / "order.pdf"
    path.write_bytes(seeded.file("buy_orders", "PDF", parents=order))

    read = subprocess.run([program, "-layout", path, "-"], check=True, capture_output=True, text=True).stdout

    wanted: list[Any] = seeded.query(
        "select p.ean_code from buy_order_lines l join products p on p.uuid = l.product_uuid"
        " where l.buy_order_uuid = cast(:uuid as uuid) and p.ean_code is not null",
        uuid=order["buy_order_uuid"],
    )
    assert wanted
    assert all(row.ean_code in read for row in wanted)
    assert len(DEFAULT_IDENTIFIERS) == 3
