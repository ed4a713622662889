"""Exports: every source in every type it has, products filtered and sorted, and an export that is imported again."""

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

EXPORT_SECONDS = 60
FINAL = {"COMPLETED", "FAILED", "EXPIRED"}
READERS = 2  # processes that open files

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
ROUND_TRIP_PRODUCTS = 15_000  # the last ones: 4 MB, with the import's odd texts and with texts that look like formulas

ORDERS_SQL = """
    select count(distinct orders.uuid) from buy_orders orders join buy_order_lines lines on buy_order_uuid = orders.uuid
    where orders.webshop_uuid = :webshop and deleted_at is null"""


@dataclass(frozen=True)
class Made:
    """An export whose file was downloaded."""

    path: Path
    seen: Mapping[str, Any]  # the export as the API gives it


def tell(shop: Shop, databases: Databases, folder: Path) -> bool:
    """Makes all files, leaves them in `folder`, opens each; whether they are what they should be."""
    identifiers = databases.identifiers()
    [[orders]] = databases.rows(databases.product, ORDERS_SQL)
    requests = dict(every_source(shop))
    requests[LOW_STOCK_FILE] = LOW_STOCK
    requests[ROUND_TRIP_FILE] = all_columns_from(identifiers[-ROUND_TRIP_PRODUCTS:][0])
    print(f"{len(requests)} files, left in {screen.short(folder)}; seconds from the request to the file here:\n")
    print(f"  {'file':<34} {'rows':>8} {'bytes':>12} {'seconds':>8}")

    made = [run_export(shop, name, request, folder) for name, request in requests.items()]

    read = read_all(made)
    faults = [
        *faults_of_files(made, read),
        *faults_of_contents(read, len(identifiers), orders),
        *faults_of_low_stock(folder / LOW_STOCK_FILE, databases),
        *faults_of_round_trip(shop, folder / ROUND_TRIP_FILE, min(ROUND_TRIP_PRODUCTS, len(identifiers))),
    ]
    for fault in faults:
        screen.fault(fault)
    return not faults


def every_source(shop: Shop) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and request of all that can be exported."""
    for source in shop.json("GET", "export-sources")["items"]:
        for file_type in source["file_types"]:
            yield f"{source['key']}.{file_type.lower()}", {"source": source["key"], "file_type": file_type}


def all_columns_from(identifier: str) -> dict[str, Any]:
    """The request for all columns of the products from one on."""
    filters = [{"column": "identifier", "operator": "gte", "value": identifier}]
    return {"source": "products", "file_type": "CSV", "filters": filters}


def run_export(shop: Shop, name: str, request: Mapping[str, Any], folder: Path) -> Made:
    """Asks for an export, waits for it and downloads it. Raises Unexpected when it is not made."""
    started = time.monotonic()
    asked = shop.json("POST", "exports", {**request, "file_name": name}, {"Prefer": "respond-async"})

    def over() -> Any:
        seen = shop.json("GET", f"exports/{asked['uuid']}")
        screen.passing(f"  {name:<34} {seen['progress_rows'] or 0:>8,} rows so far …")
        return seen if seen["status"] in FINAL else None

    seen = wait_for(f"The export {name}", over, EXPORT_SECONDS)
    if seen["status"] != "COMPLETED":
        raise Unexpected(f"{name} is {seen['status']}: {seen['error']}")
    shop.download(f"exports/{seen['uuid']}/download", folder / name)
    seconds = time.monotonic() - started
    screen.lasting(f"  {name:<34} {seen['rows']:>8,} {seen['size_bytes']:>12,} {seconds:>8.2f}")
    return Made(folder / name, seen)


def read_all(made: list[Made]) -> dict[str, Contents | BaseException]:
    """What is in each file, or why that cannot be read."""
    print("\nOpening each with csv, openpyxl or pypdf …", flush=True)
    begun = time.monotonic()
    read: dict[str, Contents | BaseException] = {}
    with ProcessPoolExecutor(READERS, multiprocessing.get_context("spawn")) as pool:
        reading = {pool.submit(contents.read, each.path): each.path.name for each in made}
        for done in as_completed(reading):
            read[reading[done]] = done.exception() or done.result()
            screen.passing(f"  {len(read)} of {len(made)} are read …")
    whole = [found for found in read.values() if isinstance(found, Contents)]
    rows, pages = sum(found.rows for found in whole), sum(found.pages for found in whole)
    seconds = time.monotonic() - begun
    screen.lasting(f"  {len(whole)} of {len(made)} could be read, in {seconds:.0f} s: {rows:,} rows, {pages:,} pages.")
    return read


def faults_of_files(made: list[Made], read: Mapping[str, Contents | BaseException]) -> Iterator[str]:
    """Where a file does not hold what its export promised."""
    for each in made:
        name, found = each.path.name, read[each.path.name]
        if isinstance(found, BaseException):
            yield f"{name} cannot be read: {found!r}"
            continue
        if not each.seen["rows"] or (found.rows != each.seen["rows"] and not found.pages):
            yield f"{name} holds {found}, its export says {each.seen['rows']} rows."
        if each.path.stat().st_size != each.seen["size_bytes"]:
            yield f"{name} has {each.path.stat().st_size} bytes, its export says {each.seen['size_bytes']}."


def faults_of_contents(read: Mapping[str, Contents | BaseException], products: int, orders: int) -> Iterator[str]:
    """Where files of one source differ, or where the database has more."""
    tables = {name: found for name, found in read.items() if isinstance(found, Contents)}
    for name, found in tables.items():
        twin = tables.get(name.replace(".xlsx", ".csv"), found)
        if twin != found:
            yield f"{name} holds {found}, the CSV {twin}; or their headings differ."
    if (table := tables.get("products.csv")) and table.rows != products:
        yield f"products.csv holds {table}, the database {products} products."
    if (document := tables.get("buy_orders.pdf")) and document.pages < orders:
        yield f"buy_orders.pdf has {document}, and there are {orders} orders, each on a new page."


def faults_of_low_stock(path: Path, databases: Databases) -> Iterator[str]:
    """Where filters and sorts gave something else than the database does."""
    wanted = [row[0] for row in databases.rows(databases.product, LOW_STOCK_SQL)]
    with path.open(encoding="utf-8-sig", newline="") as file:
        found = [row[1] for row in list(csv.reader(file))[1:]]
    if found != wanted:
        yield f"{path.name} has {len(found)} products, the database {len(wanted)}, or they stand in another order."
    screen.paragraph(f"{path.name}: stock from 10 to 40, dearest first: {len(found):,} products, as in the database.")


def faults_of_round_trip(shop: Shop, path: Path, products: int) -> Iterator[str]:
    """Where an export that is imported again would change something."""
    print(f"\nThe export {path.name}, all columns of {products:,} products, imported again:")
    end = run_import(shop, File(path.name, path.read_bytes(), "COMPLETED", applied=products))
    seen = end.seen
    counts = ", ".join(f"{seen[f'{what}_rows']:,} {what}" for what in ("updated", "unchanged", "failed"))
    screen.paragraph(f"{counts}.")
    if not end.as_expected or seen["updated_rows"]:
        yield f"{path.name} should go in again with {products:,} unchanged rows and nothing else."
