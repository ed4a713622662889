"""Imports: four files, what became of them, and the proof in both databases."""

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

MAX_CLEAN_BYTES = 5_000_000  # just under the limit of 5,242,880
IMPORT_SECONDS = 60
MIRROR_SECONDS = 30
REPORT_LINES = 6
BAR_WIDTH = 30

SWEETS = "Süßes für Müller"

FINAL = {
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "INVALID_OPERATION_TYPE",
    "FAILED_HEADERS",
    "FAILED_WITH_VALIDATION_ERRORS",
    "FAILED_UNEXPECTEDLY",
}

# What may stand in a row of the mixed file: its cells after the identifier, and why it is refused.
MIXED_COLUMNS = ("identifier", "name", "price", "stock_on_hand", "ean_code", "status", "product_url")
BAD_CELLS = {
    "price is no number": ("", "12,5,0", "", "", "", ""),
    "price could be 1.234 or 1234": ("", "1,234", "", "", "", ""),
    "price has too many digits": ("", "9,999", "", "", "", ""),
    "price is negative": ("", "-1,00", "", "", "", ""),
    "stock is no whole number": ("", "", "1,5", "", "", ""),
    "EAN has a wrong check digit": ("", "", "", "4006381333932", "", ""),
    "EAN was damaged by a spreadsheet": ("", "", "", "4,00638E+12", "", ""),
    "status is not a choice": ("", "", "", "", "sold", ""),
    "URL is none": ("", "", "", "", "", "javascript:alert(1)"),
    "name cannot be cleared": ("NULL", "", "", "", "", ""),
    "name is too long": ("x" * 300, "", "", "", "", ""),
}


@dataclass(frozen=True)
class File:
    """A file to import, and how that should end."""

    name: str
    content: bytes
    status: str
    applied: int = 0  # rows: updated, or equal already
    failed: int = 0
    operation: str = "UPDATE"


BAD_HEADING = File("bad-heading.csv", b"identifier,prise\r\nP-1,1.00\r\n", "FAILED_HEADERS")
INSERT = File("insert.csv", b"identifier,name\r\nnew,New\r\n", "INVALID_OPERATION_TYPE", operation="INSERT")


@dataclass(frozen=True)
class Values:
    """What a product is to hold in both databases."""

    price: Decimal
    stock_on_hand: int
    article_code: str


@dataclass(frozen=True)
class Ended:
    """An import that is over."""

    file: File
    seen: Mapping[str, Any]  # the import as the API gives it
    seconds: float  # from the request to the final state, the upload included

    @property
    def as_expected(self) -> bool:
        """Whether it ended as its file says."""
        applied = self.seen["updated_rows"] + self.seen["unchanged_rows"]
        expected = (self.file.status, self.file.applied, self.file.failed, self.file.applied + self.file.failed)
        return (self.seen["status"], applied, self.seen["failed_rows"], self.seen["total_rows"]) == expected


def tell(shop: Shop, databases: Databases) -> bool:
    """Runs the files one after the other and shows what became of them; whether it is what should."""
    identifiers = databases.identifiers()
    print(f"The webshop {shop.webshop_uuid} has {len(identifiers):,} products.\n")
    clean, values = clean_file(identifiers)
    mixed, values = mixed_file(values)

    ended = [run_import(shop, file) for file in (clean, mixed, BAD_HEADING, INSERT)]

    show(ended)
    show_report(shop, ended[1])
    print("\nPrice, stock and code as the files say:")
    proofs = [prove(name, getattr(databases, name), databases, values) for name in ("product", "legacy")]
    for end in ended:
        if not end.as_expected:
            screen.fault(f"{end.file.name} should have ended {end.file.status}: {json.dumps(end.seen)}")
    return all(end.as_expected for end in ended) and all(proofs)


def run_import(shop: Shop, file: File) -> Ended:
    """Uploads `file`, waits until its import is over, and shows how far it is. Raises Unexpected when it never is."""
    started = time.monotonic()
    made = shop.json("POST", "imports", {"file_name": file.name, "operation": file.operation})
    upload = urllib.request.Request(made["upload_url"], file.content, made["upload_headers"], method="PUT")
    urllib.request.urlopen(upload).close()

    def over() -> Any:
        try:
            seen = shop.json("GET", f"imports/{made['uuid']}")
        except NotFound:  # the event of the upload is on its way
            return None
        if seen["status"] in FINAL:
            return seen
        screen.passing(bar(file, seen))
        return None

    seen = wait_for(f"The import of {file.name}", over, IMPORT_SECONDS)
    screen.lasting(bar(file, seen))
    return Ended(file, seen, time.monotonic() - started)


def clean_file(identifiers: list[str]) -> tuple[File, dict[str, Values]]:
    """A file with a good row for as many products as go into 5 MB, and what those are to hold then."""
    stamp = int(time.time()) % 1000  # so that the next demo has something to change
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
        if out.tell() > MAX_CLEAN_BYTES:
            break
    return File("clean.csv", out.getvalue().encode(), "COMPLETED", applied=len(values)), values


def mixed_file(values: dict[str, Values]) -> tuple[File, dict[str, Values]]:
    """Good rows and every kind of bad ones for products of the clean file, and what those are to hold then."""
    last = list(values)[::-1]
    good = [
        (last[0], SWEETS, "1234,50", "7", "4006381333931", "enabled", "https://shop.example/süß"),
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


def bar(file: File, seen: Mapping[str, Any]) -> str:
    """How far an import is."""
    filled = BAR_WIDTH * seen["progress_percent"] // 100
    blocks = "█" * filled + "░" * (BAR_WIDTH - filled)
    return f"  {file.name:<16} {blocks} {seen['progress_percent']:>3} %  {seen['status']}"


def show(ended: list[Ended]) -> None:
    """Prints what became of each file, and why."""
    print(f"\n  {'file':<16} {'state':<24} {'total':>7} {'updated':>8} {'unchanged':>10} {'failed':>7} {'rows/s':>8}")
    for end in ended:
        seen = end.seen
        speed = f"{seen['total_rows'] / end.seconds:,.0f}" if seen["total_rows"] else "-"
        print(
            f"  {end.file.name:<16} {seen['status']:<24} {seen['total_rows']:>7,} {seen['updated_rows']:>8,}"
            f" {seen['unchanged_rows']:>10,} {seen['failed_rows']:>7,} {speed:>8}"
        )
    print()
    for end in ended:
        if end.seen["reason"]:
            screen.paragraph(f"{end.file.name}: {end.seen['reason']}")


def show_report(shop: Shop, mixed: Ended) -> None:
    """The first lines of the error report: what was refused, and why."""
    report = shop.call("GET", f"imports/{mixed.seen['uuid']}/errors").decode("utf-8-sig")
    delimiter = ";" if ";" in report.splitlines()[0] else ","
    head, *rows = csv.reader(io.StringIO(report), delimiter=delimiter)
    at = {heading.casefold(): index for index, heading in enumerate(head)}
    print(f"\nThe error report of {mixed.file.name} ({mixed.seen['encoding']}, {len(rows)} rows), its first lines:")
    for row in rows[:REPORT_LINES]:
        screen.paragraph(f"row {row[at['row number']]}: {row[at['errors']]}")


def prove(name: str, database: Connection, databases: Databases, values: Mapping[str, Values]) -> bool:
    """Reads every product of the files from a database; waits while the mirror is on its way."""
    deadline = time.monotonic() + MIRROR_SECONDS
    right = 0
    while right < len(values) and time.monotonic() < deadline:
        sql = "select identifier, price, stock_on_hand, article_code from products where webshop_uuid = :webshop"
        rows = databases.rows(database, sql)
        right = sum(values.get(identifier) == Values(*found) for identifier, *found in rows)
    sql = "select count(*) from products where webshop_uuid = :webshop and name = :name"
    [[sweets]] = databases.rows(database, sql, name=SWEETS)
    screen.paragraph(f"{name + ' database':<17} {right:,} of {len(values):,} products; {sweets} is called {SWEETS}")
    return right == len(values) and sweets >= 1
