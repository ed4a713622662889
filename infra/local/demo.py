"""The story of imports, told on a running stack: four files, what became of them, and the proof in the databases.

Uses the stack that runs on this directory, or starts one of its own beside it and stops it again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from pg8000.native import Connection

from infra.local import identity, state
from infra.local.state import NotRunning, State

PRODUCTS = 70_000  # of the demo's own stack: as many rows fill a file of 5 MB
MAX_CLEAN_BYTES = 5_000_000  # just under the limit of 5,242,880
START_SECONDS = 120  # for a first start on a slow machine
IMPORT_SECONDS = 60
MIRROR_SECONDS = 30
POLL_SECONDS = 0.05
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
    updated: int = 0
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
        """Whether it ended as its file says; what held the value already is as good as updated."""
        applied = self.seen["updated_rows"] + self.seen["unchanged_rows"]
        expected = (self.file.status, self.file.updated, self.file.failed, self.file.updated + self.file.failed)
        return (self.seen["status"], applied, self.seen["failed_rows"], self.seen["total_rows"]) == expected


@dataclass(frozen=True)
class Shop:
    """A webshop's user at the API."""

    api_url: str
    webshop_uuid: str
    token: str

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        """Calls the API below the webshop. Raises HTTPError for a problem."""
        url = f"{self.api_url}/webshops/{self.webshop_uuid}/{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as response:
            content: bytes = response.read()
            return content

    def run_import(self, file: File, show: Callable[[Mapping[str, Any]], None]) -> Ended:
        """Uploads `file` and waits until its import is over. Raises TimeoutError when it never is."""
        started = time.monotonic()
        made = json.loads(self.call("POST", "imports", {"file_name": file.name, "operation": file.operation}))
        upload = urllib.request.Request(made["upload_url"], file.content, made["upload_headers"], method="PUT")
        urllib.request.urlopen(upload).close()
        while time.monotonic() - started < IMPORT_SECONDS:
            try:
                seen = json.loads(self.call("GET", f"imports/{made['uuid']}"))
            except urllib.error.HTTPError as error:
                if error.code != 404:  # the event of the upload is on its way
                    raise
            else:
                show(seen)
                if seen["status"] in FINAL:
                    return Ended(file, seen, time.monotonic() - started)
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"The import of {file.name} is not over after {IMPORT_SECONDS} s.")


def run() -> int:
    """Tells the story; 0 when everything came out as it should."""
    with a_stack() as where:
        return tell(where)


@contextmanager
def a_stack() -> Iterator[State]:
    """The stack that runs here, or one of the demo's own for as long as the demo takes."""
    here = state.here()
    try:
        here.load()
    except NotRunning:
        own = State(here.path("demo"))
        with started(own):
            yield own
    else:
        yield here


@contextmanager
def started(where: State) -> Iterator[None]:
    """A stack on `where`. Raises NotRunning with what it printed when it does not come up."""
    print(f"Starting a stack of its own with {PRODUCTS:,} products in {where.directory} …", flush=True)
    where.directory.mkdir(parents=True, exist_ok=True)
    output = where.path("up.log")
    command = [sys.executable, "-m", "infra.local", "up", "--products", str(PRODUCTS)]
    environment = os.environ | {state.DIRECTORY_VARIABLE: str(where.directory)}
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not where.path("stack.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotRunning(f"The stack did not come up:\n{output.read_text()}")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait()


def tell(where: State) -> int:
    """Runs the files one after the other and shows what became of them."""
    told = where.load()["environment"]
    token = identity.token(identity.signing_key(where.directory), told["API_URL"], told["USER_UUID"])
    shop = Shop(told["API_URL"], told["WEBSHOP_UUID"], token)
    product, legacy = (connect(told[f"{name}_DATABASE_URL"]) for name in ("PRODUCT", "LEGACY"))
    identifiers = [
        row[0]
        for row in product.run(
            "select identifier from products where webshop_uuid = cast(:webshop as uuid) order by identifier",
            webshop=shop.webshop_uuid,
        )
    ]
    clean, values = clean_file(identifiers)
    mixed, values = mixed_file(values)
    print(f"The webshop {shop.webshop_uuid} has {len(identifiers):,} products.\n")

    ended = [shop.run_import(file, Bar(file)) for file in (clean, mixed, BAD_HEADING, INSERT)]

    print(f"\n{table(ended)}")
    show_report(shop, ended[1])
    print()
    proofs = [prove("product", product, shop, values), prove("legacy", legacy, shop, values)]
    good = all(end.as_expected for end in ended) and all(proofs)
    for end in ended:
        if not end.as_expected:
            print(f"NOT AS EXPECTED: {end.file.name} should have ended {end.file.status}: {json.dumps(end.seen)}")
    print("\nEverything came out as it should." if good else "\nNot everything came out as it should.")
    return 0 if good else 1


def connect(url: str) -> Connection:
    """A connection to a libpq URL."""
    parts = urlsplit(url)
    return Connection(
        parts.username or "postgres",
        parts.hostname or "localhost",
        parts.path.lstrip("/"),
        parts.port or 5432,
        parts.password,
    )


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
    return File("clean.csv", out.getvalue().encode(), "COMPLETED", updated=len(values)), values


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
    return File("mixed.csv", content, "COMPLETED_WITH_ERRORS", updated=len(good), failed=len(bad)), changed


class Bar:
    """Shows how far an import is: a bar that moves on a terminal, one line elsewhere."""

    def __init__(self, file: File) -> None:
        """For one file."""
        self._file = file
        self._moves = sys.stdout.isatty()

    def __call__(self, seen: Mapping[str, Any]) -> None:
        """Draws the import as it is now."""
        over = seen["status"] in FINAL
        if not self._moves and not over:
            return
        filled = BAR_WIDTH * seen["progress_percent"] // 100
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        line = f"  {self._file.name:<16} {bar} {seen['progress_percent']:>3} %  {seen['status']}"
        print(f"\r{line:<79}" if self._moves else line, end="\n" if over else "", flush=True)


def table(ended: list[Ended]) -> str:
    """What became of each file."""
    lines = [f"  {'file':<16} {'state':<24} {'total':>7} {'updated':>8} {'unchanged':>10} {'failed':>7} {'rows/s':>8}"]
    for end in ended:
        seen = end.seen
        speed = f"{seen['total_rows'] / end.seconds:,.0f}" if seen["total_rows"] else ""
        lines.append(
            f"  {end.file.name:<16} {seen['status']:<24} {seen['total_rows']:>7,} {seen['updated_rows']:>8,}"
            f" {seen['unchanged_rows']:>10,} {seen['failed_rows']:>7,} {speed:>8}"
        )
    reasons = [f"  {end.file.name}: {end.seen['reason']}" for end in ended if end.seen["reason"]]
    return "\n".join([*lines, "", *reasons])


def show_report(shop: Shop, mixed: Ended) -> None:
    """The first lines of the error report: what was refused, and why."""
    report = shop.call("GET", f"imports/{mixed.seen['uuid']}/errors").decode("utf-8-sig")
    delimiter = ";" if ";" in report.splitlines()[0] else ","
    head, *rows = csv.reader(io.StringIO(report), delimiter=delimiter)
    at = {heading.casefold(): index for index, heading in enumerate(head)}
    print(f"\nThe error report of {mixed.file.name} ({mixed.seen['encoding']}, {len(rows)} rows), its first lines:")
    for row in rows[:REPORT_LINES]:
        print(f"  row {row[at['row number']]}: {row[at['errors']]}")


def prove(name: str, database: Connection, shop: Shop, values: Mapping[str, Values]) -> bool:
    """Reads every product of the files from a database; waits while the mirror is on its way."""
    deadline = time.monotonic() + MIRROR_SECONDS
    right = 0
    while right < len(values) and time.monotonic() < deadline:
        rows = database.run(
            "select identifier, price, stock_on_hand, article_code from products "
            "where webshop_uuid = cast(:webshop as uuid)",
            webshop=shop.webshop_uuid,
        )
        right = sum(values.get(identifier) == Values(*found) for identifier, *found in rows)
    [[sweets]] = database.run(
        "select count(*) from products where webshop_uuid = cast(:webshop as uuid) and name = :name",
        webshop=shop.webshop_uuid,
        name=SWEETS,
    )
    print(
        f"The {name} database: {right:,} of {len(values):,} products hold what the files say (price, stock, code);"
        f" {sweets} is called {SWEETS}."
    )
    return right == len(values) and sweets >= 1
