"""Exports: every source in every file type, filtered and sorted products, and an export that is imported again."""

from __future__ import annotations

import csv
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.demo import contents, screen
from infra.local.demo.contents import Contents
from infra.local.demo.databases import Databases
from infra.local.demo.imports import File, run_import
from infra.local.demo.shop import Shop, Unexpected, wait_for
from shared.wording import format_count

EXPORT_SECONDS = 60
FINAL_STATES = {"COMPLETED", "FAILED", "EXPIRED"}
READER_PROCESSES = 2  # one per core of a small machine

LOW_STOCK_FILE = "low-stock.csv"
LOW_STOCK = {
    "source": "products",
    "file_type": "CSV",
    "columns": ["name", "identifier", "price", "stock_on_hand"],
    "sorts": [{"column": "price", "direction": "desc"}, {"column": "identifier"}],
    "filters": [
        {"column": "stock_on_hand", "operator": "between", "value": [10, 40]},
        {"column": "price", "operator": "is_null", "value": False},
    ],
}
LOW_STOCK_SQL = """
    select identifier from products
    where webshop_uuid = :webshop and stock_on_hand between 10 and 40 and price is not null
    order by price desc, identifier"""

ROUND_TRIP_FILE = "round-trip.csv"
# The last products: 4 MB, with the special characters of mixed.csv and with texts that look like formulas.
ROUND_TRIP_PRODUCTS = 15_000

ORDERS_SQL = """
    select count(distinct orders.uuid) from buy_orders orders join buy_order_lines lines on buy_order_uuid = orders.uuid
    where orders.webshop_uuid = :webshop and deleted_at is null"""


@dataclass(frozen=True)
class Download:
    """The downloaded file of an export."""

    path: Path
    export: Mapping[str, Any]  # as the API returns it


def run_chapter(shop: Shop, databases: Databases, folder: Path) -> bool:
    """Makes all files, downloads them to `folder` and checks each. Returns whether all are as expected."""
    identifiers = databases.fetch_identifiers()
    [[orders]] = databases.fetch_rows(databases.product_conn, ORDERS_SQL)
    requests = dict(requests_for_every_source(shop))
    requests[LOW_STOCK_FILE] = LOW_STOCK
    requests[ROUND_TRIP_FILE] = request_products_from(identifiers[-ROUND_TRIP_PRODUCTS:][0])
    count, place = format_count(len(requests), "file"), screen.shorten(folder)
    print(f"Exporting {count} to {place}. The seconds are from the request to the end of the download.\n")
    print(f"  {'file':<34} {'rows':>8} {'bytes':>12} {'seconds':>8}")

    downloads = [run_export(shop, name, request, folder) for name, request in requests.items()]

    files = read_files(downloads)
    differences = [
        *check_files(downloads, files),
        *check_contents(files, len(identifiers), orders),
        *check_low_stock(folder / LOW_STOCK_FILE, databases),
        *check_round_trip(shop, folder / ROUND_TRIP_FILE, min(ROUND_TRIP_PRODUCTS, len(identifiers))),
    ]
    for difference in differences:
        screen.print_difference(difference)
    return not differences


def requests_for_every_source(shop: Shop) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the file name and the request for each file type of each source."""
    for source in shop.json("GET", "export-sources")["items"]:
        for file_type in source["file_types"]:
            yield f"{source['key']}.{file_type.lower()}", {"source": source["key"], "file_type": file_type}


def request_products_from(identifier: str) -> dict[str, Any]:
    """Returns the request for all columns of the products from `identifier` on."""
    filters = [{"column": "identifier", "operator": "gte", "value": identifier}]
    return {"source": "products", "file_type": "CSV", "filters": filters}


def run_export(shop: Shop, name: str, request: Mapping[str, Any], folder: Path) -> Download:
    """Requests an export, waits for it and downloads it. Raises Unexpected when it does not complete."""
    started_at = time.monotonic()
    created = shop.json("POST", "exports", {**request, "file_name": name}, {"Prefer": "respond-async"})

    def find_finished() -> Any:
        export = shop.json("GET", f"exports/{created['uuid']}")
        screen.print_progress(f"  {name:<34} {export['progress_rows'] or 0:>8,} rows so far …")
        return export if export["status"] in FINAL_STATES else None

    export = wait_for(f"The export {name}", find_finished, EXPORT_SECONDS)
    if export["status"] != "COMPLETED":
        raise Unexpected(f"The export {name} is {export['status']}: {export['error']}")
    shop.download(f"exports/{export['uuid']}/download", folder / name)
    seconds = time.monotonic() - started_at
    screen.print_line(f"  {name:<34} {export['rows']:>8,} {export['size_bytes']:>12,} {seconds:>8.2f}")
    return Download(folder / name, export)


def read_files(downloads: list[Download]) -> dict[str, Contents | BaseException]:
    """Reads every file. Returns by file name what it contains, or the error."""
    print("\nReading every file with csv, openpyxl or pypdf …", flush=True)
    started_at = time.monotonic()
    files: dict[str, Contents | BaseException] = {}
    with ProcessPoolExecutor(READER_PROCESSES, multiprocessing.get_context("spawn")) as pool:
        names = {pool.submit(contents.read, download.path): download.path.name for download in downloads}
        for future in as_completed(names):
            files[names[future]] = future.exception() or future.result()
            screen.print_progress(f"  {len(files)} of {format_count(len(downloads), 'file')} so far …")
    readable = [file for file in files.values() if isinstance(file, Contents)]
    rows, pages = sum(file.rows for file in readable), sum(file.pages for file in readable)
    seconds = time.monotonic() - started_at
    screen.print_line(
        f"  {len(readable)} of {format_count(len(downloads), 'file')} read in {seconds:.0f} s: "
        f"{format_count(rows, 'row')} and {format_count(pages, 'page')}."
    )
    return files


def check_files(downloads: list[Download], files: Mapping[str, Contents | BaseException]) -> Iterator[str]:
    """Yields where a file differs from the rows and the size that its export states."""
    for download in downloads:
        name, file = download.path.name, files[download.path.name]
        if isinstance(file, BaseException):
            yield f"{name} cannot be read: {file!r}"
            continue
        rows, size_bytes = download.export["rows"], download.export["size_bytes"]
        if not rows or (file.rows != rows and not file.pages):
            yield f"{name} has {file}, but its export states {format_count(rows or 0, 'row')}."
        if download.path.stat().st_size != size_bytes:
            actual = format_count(download.path.stat().st_size, "byte")
            yield f"{name} has {actual}, but its export states {format_count(size_bytes, 'byte')}."


def check_contents(files: Mapping[str, Contents | BaseException], products: int, orders: int) -> Iterator[str]:
    """Yields where the CSV and the XLSX file of a source differ, and where a file lacks rows of the database."""
    readable = {name: file for name, file in files.items() if isinstance(file, Contents)}
    for name, file in readable.items():
        csv_file = readable.get(name.replace(".xlsx", ".csv"), file)
        if csv_file != file:
            yield f"{name} has {file}, but the CSV file has {csv_file}, or their headings differ."
    if (table := readable.get("products.csv")) and table.rows != products:
        yield f"products.csv has {table}, but the database has {format_count(products, 'product')}."
    if (document := readable.get("buy_orders.pdf")) and document.pages < orders:
        yield f"buy_orders.pdf has {document}, but {format_count(orders, 'order')} should each begin a new page."


def check_low_stock(path: Path, databases: Databases) -> Iterator[str]:
    """Yields where the filtered and sorted export differs from the same query on the database."""
    expected = [row[0] for row in databases.fetch_rows(databases.product_conn, LOW_STOCK_SQL)]
    with path.open(encoding="utf-8-sig", newline="") as file:
        exported = [row[1] for row in list(csv.reader(file))[1:]]
    if exported != expected:
        count = format_count(len(exported), "product")
        yield f"{path.name} has {count}, but the database has {len(expected):,}, or the order differs."
        return
    screen.print_paragraph(
        f"{path.name} (stock from 10 to 40, highest price first) has {format_count(len(exported), 'product')}, "
        "in the same order as the database."
    )


def check_round_trip(shop: Shop, path: Path, products: int) -> Iterator[str]:
    """Imports an export, and yields where that changed a product."""
    print(f"\nThe export {path.name}, with all columns of {format_count(products, 'product')}, is imported again:")
    finished = run_import(shop, File(path.name, path.read_bytes(), "COMPLETED", applied=products))
    result = finished.result
    counts = ", ".join(f"{result[f'{kind}_rows']:,} {kind}" for kind in ("updated", "unchanged", "failed"))
    screen.print_paragraph(f"{counts}.")
    if not finished.is_as_expected or result["updated_rows"]:
        yield f"The import of {path.name} should leave all {format_count(products, 'product')} unchanged."
