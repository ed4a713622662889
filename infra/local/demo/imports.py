"""Imports: uploads four files, shows the results, and checks the products in both databases."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from pg8000.native import Connection

from infra.local.demo import screen
from infra.local.demo.databases import Databases
from infra.local.demo.shop import NotFound, Shop, wait_for
from shared.wording import format_count

MAX_CLEAN_FILE_BYTES = 5_000_000  # just under the limit of 5,242,880
IMPORT_SECONDS = 60
MIRROR_SECONDS = 30
REPORT_ROWS = 6  # of the error report, that are printed
BAR_WIDTH = 30  # characters

SWEETS_NAME = "Süßes für Müller"

FINAL_STATES = {
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "INVALID_OPERATION_TYPE",
    "FAILED_HEADERS",
    "FAILED_WITH_VALIDATION_ERRORS",
    "FAILED_UNEXPECTEDLY",
}

# The bad rows of the mixed file: the cells after the identifier, by why the row is refused.
MIXED_COLUMNS = ("identifier", "name", "price", "stock_on_hand", "ean_code", "status", "product_url")
BAD_CELLS = {
    "price is not a number": ("", "12,5,0", "", "", "", ""),
    "price could be 1.234 or 1234": ("", "1,234", "", "", "", ""),
    "price has too many digits": ("", "9,999", "", "", "", ""),
    "price is negative": ("", "-1,00", "", "", "", ""),
    "stock is not a whole number": ("", "", "1,5", "", "", ""),
    "EAN has a wrong check digit": ("", "", "", "4006381333932", "", ""),
    "EAN was damaged by a spreadsheet": ("", "", "", "4,00638E+12", "", ""),
    "status is not one of the choices": ("", "", "", "", "sold", ""),
    "URL is not a web address": ("", "", "", "", "", "javascript:alert(1)"),
    "name cannot be cleared": ("NULL", "", "", "", "", ""),
    "name is too long": ("x" * 300, "", "", "", "", ""),
}


@dataclass(frozen=True)
class File:
    """A file to import, and the expected result."""

    name: str
    content: bytes
    status: str
    applied: int = 0  # rows: updated, or equal already
    failed: int = 0  # rows
    operation: str = "UPDATE"


BAD_HEADING = File("bad-heading.csv", b"identifier,prise\r\nP-1,1.00\r\n", "FAILED_HEADERS")
INSERT = File("insert.csv", b"identifier,name\r\nnew,New\r\n", "INVALID_OPERATION_TYPE", operation="INSERT")


@dataclass(frozen=True)
class Values:
    """The expected values of one product in both databases."""

    price: Decimal
    stock_on_hand: int
    article_code: str


@dataclass(frozen=True)
class FinishedImport:
    """An import in its final state."""

    file: File
    result: Mapping[str, Any]  # the import as the API returns it
    seconds: float  # from the request to the final state, the upload included

    @property
    def is_as_expected(self) -> bool:
        """Tells whether the state and the counts are those that the file expects."""
        applied = self.result["updated_rows"] + self.result["unchanged_rows"]
        expected = (self.file.status, self.file.applied, self.file.failed, self.file.applied + self.file.failed)
        return (self.result["status"], applied, self.result["failed_rows"], self.result["total_rows"]) == expected


def run_chapter(shop: Shop, databases: Databases) -> bool:
    """Imports the files one after the other and prints the results. Returns whether all are as expected."""
    identifiers = databases.fetch_identifiers()
    print(f"The webshop {shop.webshop_uuid} has {format_count(len(identifiers), 'product')}.\n")
    clean, values = make_clean_file(identifiers)
    mixed, values = make_mixed_file(values)

    finished = [run_import(shop, file) for file in (clean, mixed, BAD_HEADING, INSERT)]

    print_results(finished)
    print_error_report(shop, finished[1])
    print("\nProducts whose price, stock and article code are those of the files:")
    equal = [
        check_products("product database", databases.product_conn, databases, values),
        check_products("legacy database", databases.legacy_conn, databases, values),
    ]
    for each in finished:
        if not each.is_as_expected:
            screen.print_difference(f"{each.file.name} should end in {each.file.status}: {json.dumps(each.result)}")
    return all(each.is_as_expected for each in finished) and all(equal)


def run_import(shop: Shop, file: File) -> FinishedImport:
    """Uploads `file` and shows the progress of its import. Raises Unexpected when the import does not finish."""
    started_at = time.monotonic()
    created = shop.json("POST", "imports", {"file_name": file.name, "operation": file.operation})
    upload = urllib.request.Request(created["upload_url"], file.content, created["upload_headers"], method="PUT")
    urllib.request.urlopen(upload).close()

    def find_finished() -> Any:
        try:
            result = shop.json("GET", f"imports/{created['uuid']}")
        except NotFound:  # the event of the upload has not been handled yet
            return None
        if result["status"] in FINAL_STATES:
            return result
        screen.print_progress(format_progress(file, result))
        return None

    result = wait_for(f"The import of {file.name}", find_finished, IMPORT_SECONDS)
    screen.print_line(format_progress(file, result))
    return FinishedImport(file, result, time.monotonic() - started_at)


def make_clean_file(identifiers: list[str]) -> tuple[File, dict[str, Values]]:
    """Makes a file of valid rows for as many products as fit into 5 MB, and their expected values by identifier."""
    stamp = int(time.time()) % 1000  # differs from demo to demo, so that every demo changes values
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("identifier", "name", "price", "stock_on_hand", "article_code", "product_url"))
    values = {}
    for number, identifier in enumerate(identifiers):
        value = Values(
            Decimal(10_000 + stamp + number % 9000) / 100, (number + stamp) % 500, f"00{stamp:03}{number:06}"
        )
        name, url = f"Product {number} of today", f"https://shop.example/{number}"
        writer.writerow((identifier, name, value.price, value.stock_on_hand, value.article_code, url))
        values[identifier] = value
        if out.tell() > MAX_CLEAN_FILE_BYTES:
            break
    return File("clean.csv", out.getvalue().encode(), "COMPLETED", applied=len(values)), values


def make_mixed_file(values: dict[str, Values]) -> tuple[File, dict[str, Values]]:
    """Makes a file of valid rows and every kind of invalid rows for products of the clean file.

    `values` are the expected values after the clean file. Returns those after this file too.
    """
    last = list(values)[::-1]
    good = [
        (last[0], SWEETS_NAME, "1234,50", "7", "4006381333931", "enabled", "https://shop.example/süß"),
        (last[1], 'He said "no"\nand left', "2,25", "", "", "", ""),
        (last[2], "", "", "-3", "", "disabled", "NULL"),
    ]
    bad = [(identifier, *cells) for identifier, cells in zip(last[3:], BAD_CELLS.values(), strict=False)]
    bad += [
        (last[0], "twin of an earlier row", "", "", "", "", ""),
        ("no-such-product", "", "1,00", "", "", "", ""),
        ("", "no identifier", "", "", "", "", ""),
    ]
    out = io.StringIO()
    csv.writer(out, delimiter=";", lineterminator="\r\n").writerows((MIXED_COLUMNS, *good, *bad))
    changed = values | {
        last[0]: replace(values[last[0]], price=Decimal("1234.50"), stock_on_hand=7),
        last[1]: replace(values[last[1]], price=Decimal("2.25")),
        last[2]: replace(values[last[2]], stock_on_hand=-3),
    }
    content = out.getvalue().encode("cp1252")
    return File("mixed.csv", content, "COMPLETED_WITH_ERRORS", applied=len(good), failed=len(bad)), changed


def format_progress(file: File, result: Mapping[str, Any]) -> str:
    """Formats the file's name, a progress bar and the state."""
    filled = BAR_WIDTH * result["progress_percent"] // 100
    blocks = "█" * filled + "░" * (BAR_WIDTH - filled)
    return f"  {file.name:<16} {blocks} {result['progress_percent']:>3} %  {result['status']}"


def print_results(finished: list[FinishedImport]) -> None:
    """Prints the state and the counts of each import in a table, and the reasons below it."""
    print(f"\n  {'file':<16} {'state':<29} {'total':>7} {'updated':>8} {'unchanged':>10} {'failed':>7} {'rows/s':>8}")
    for each in finished:
        result = each.result
        rows_per_second = f"{result['total_rows'] / each.seconds:,.0f}" if result["total_rows"] else "-"
        print(
            f"  {each.file.name:<16} {result['status']:<29} {result['total_rows']:>7,} {result['updated_rows']:>8,}"
            f" {result['unchanged_rows']:>10,} {result['failed_rows']:>7,} {rows_per_second:>8}"
        )
    print()
    for each in finished:
        if each.result["reason"]:
            screen.print_paragraph(f"{each.file.name}: {each.result['reason']}")


def print_error_report(shop: Shop, mixed: FinishedImport) -> None:
    """Prints the first rows of the error report: which rows were refused, and why."""
    report = shop.call("GET", f"imports/{mixed.result['uuid']}/errors").decode("utf-8-sig")
    delimiter = ";" if ";" in report.splitlines()[0] else ","
    heading, *rows = csv.reader(io.StringIO(report), delimiter=delimiter)
    positions = {name.casefold(): position for position, name in enumerate(heading)}
    count, encoding = format_count(len(rows), "row"), mixed.result["encoding"]
    print(f"\nThe error report of {mixed.file.name}, which was read as {encoding}, has {count}. It begins with:")
    for row in rows[:REPORT_ROWS]:
        screen.print_paragraph(f"row {row[positions['row number']]}: {row[positions['errors']]}")


def check_products(name: str, conn: Connection, databases: Databases, values: Mapping[str, Values]) -> bool:
    """Compares every product of the files with a database, and prints how many are equal.

    Repeats that for up to MIRROR_SECONDS, because the legacy database is updated after the import has finished.
    Returns whether all are equal.
    """
    deadline = time.monotonic() + MIRROR_SECONDS
    equal = 0
    while equal < len(values) and time.monotonic() < deadline:
        sql = "select identifier, price, stock_on_hand, article_code from products where webshop_uuid = :webshop"
        rows = databases.fetch_rows(conn, sql)
        equal = sum(values.get(identifier) == Values(*columns) for identifier, *columns in rows)
    sql = "select count(*) from products where webshop_uuid = :webshop and name = :name"
    [[sweets]] = databases.fetch_rows(conn, sql, name=SWEETS_NAME)
    screen.print_paragraph(
        f"{name + ':':<17} {equal:,} of {format_count(len(values), 'product')}; "
        f"{format_count(sweets, 'product')} with the name {SWEETS_NAME}"
    )
    return equal == len(values) and sweets >= 1
