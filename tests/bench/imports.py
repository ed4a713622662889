"""Measures the import of a 5 MB file, end to end and import_apply alone, compared with COPY and one UPDATE."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Engine, text

from functions.imports import gate, import_apply
from shared.clients.databases import connect_to
from shared.messages import ImportBatch
from shared.settings import DatabaseSettings

PRODUCTS = 100_000  # in the webshop
ROWS = 80_000  # of the file
ROUNDS = 5  # the figures are medians: single rounds vary with the other load of the machine
COLUMNS = ("identifier", "price", "stock_on_hand", "article_code", "product_url")
APPLY_THREADS = 4  # as many as import_apply has in the local stack
MIB = 1024 * 1024


def measure() -> dict[str, dict[str, object]]:
    """Starts a local stack of its own and returns the figures measured in it, by name."""
    with run_local_stack() as stack:
        webshop_uuid = stack["WEBSHOP_UUID"]
        product_db = connect_to("PRODUCT", DatabaseSettings(url=stack["PRODUCT_DATABASE_URL"]), APPLY_THREADS)
        end_to_end, alone, rows_per_second = [], [], []
        for round_number in range(ROUNDS + 1):
            seconds = import_rows(stack, make_rows(product_db, webshop_uuid, round_number))
            reference_seconds = copy_and_update(product_db, webshop_uuid, make_rows(product_db, webshop_uuid, 100))
            apply_seconds = apply_batches(product_db, UUID(webshop_uuid), round_number)
            if round_number:  # the first round fills caches and is not counted
                end_to_end.append(seconds / reference_seconds)
                alone.append(apply_seconds / reference_seconds)
                rows_per_second.append(ROWS / seconds)
        peak_bytes = max(read_peak_bytes(pid) for name, pid in list_processes(stack) if name.startswith("import"))
    return {
        "import end to end / COPY and one UPDATE": figure(statistics.median(end_to_end), "x", at_most=3.5),
        "import_apply alone, 160 batches / COPY and one UPDATE": figure(statistics.median(alone), "x", at_most=2.5),
        "import end to end": figure(statistics.median(rows_per_second), "rows/s"),
        "peak memory of an import's function process": figure(peak_bytes / MIB, "MiB", at_most=256),
    }


def figure(value: float, unit: str, at_most: float | None = None) -> dict[str, object]:
    """One line of the table. Without a goal the figure is only printed."""
    goal = "" if at_most is None else f"<= {at_most:g}"
    return {"value": round(value, 2), "unit": unit, "goal": goal, "met": at_most is None or value <= at_most}


@contextlib.contextmanager
def run_local_stack() -> Iterator[dict[str, str]]:
    """Runs a local stack in a temporary folder. Yields the environment with the variables that `env` prints."""
    with tempfile.TemporaryDirectory(prefix="imports-and-exports-bench-") as folder:
        environment = {**os.environ, "LOCAL_STATE_DIR": folder}
        up = [sys.executable, "-m", "infra.local", "up", "--products", str(PRODUCTS)]
        log = (Path(folder) / "up.log").open("wb")
        process = subprocess.Popen(up, env=environment, stdout=log, stderr=log)
        try:
            yield environment | wait_for_stack(environment, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


def wait_for_stack(environment: dict[str, str], process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Waits until the stack is ready. Returns the variables that `env` prints."""
    while process.poll() is None:
        command = [sys.executable, "-m", "infra.local", "env"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return dict(line.split("=", 1) for line in result.stdout.splitlines())
        time.sleep(0.2)
    raise RuntimeError("the local stack did not start")


def make_rows(product_db: Engine, webshop_uuid: str, round_number: int) -> list[tuple[str, ...]]:
    """ROWS rows, each with new values for its product."""
    statement = text("select identifier from products where webshop_uuid = :w order by identifier limit :n")
    with product_db.connect() as conn:
        identifiers = conn.execute(statement, {"w": webshop_uuid, "n": ROWS}).scalars().all()
    return [
        (identifier, f"{(number + round_number) % 900}.{number % 90 + 10}", str((number + round_number) % 997),
         f"00{round_number}-{number:06d}", f"https://shop.example/{round_number}/{number}")
        for number, identifier in enumerate(identifiers)
    ]  # fmt: skip


def to_csv(rows: list[tuple[str, ...]]) -> bytes:
    """The rows as a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([COLUMNS, *rows])
    return out.getvalue().encode()


def import_rows(stack: dict[str, str], rows: list[tuple[str, ...]]) -> float:
    """Uploads a file. Returns the seconds from the end of the upload until the import is COMPLETED."""
    token = subprocess.run([sys.executable, "-m", "infra.local", "token"], env=stack, capture_output=True, check=True)
    headers = {"Authorization": f"Bearer {token.stdout.decode().strip()}", "Content-Type": "application/json"}
    imports = f"{stack['API_URL']}/webshops/{stack['WEBSHOP_UUID']}/imports"
    started = send_request("POST", imports, headers, b'{"file_name": "bench.csv"}')
    send_request(started["upload_method"], started["upload_url"], started["upload_headers"], to_csv(rows))
    uploaded_at = time.perf_counter()
    service_db = connect_to("SERVICE", DatabaseSettings(url=stack["SERVICE_DATABASE_URL"]), 1)
    statement = text("select status, reason, updated_rows from imports where uuid = :uuid")
    with service_db.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while True:
            row = conn.execute(statement, {"uuid": started["uuid"]}).one_or_none()
            if row and row.status not in ("IN_QUEUE", "IMPORTING"):
                seconds = time.perf_counter() - uploaded_at
                break
            time.sleep(0.01)
    service_db.dispose()
    if (row.status, row.updated_rows) != ("COMPLETED", ROWS):
        raise RuntimeError(f"the import ended {row.status}: {row.reason}")
    wait_for_mirror(stack, started["uuid"])
    return seconds


def wait_for_mirror(stack: dict[str, str], import_uuid: str) -> None:
    """Waits until every batch result is mirrored, so that no work is left for the next round."""
    product_db = connect_to("PRODUCT", DatabaseSettings(url=stack["PRODUCT_DATABASE_URL"]), 1)
    statement = text("select count(*) from import_outcomes where import_uuid = :uuid and mirrored_at is null")
    with product_db.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        while conn.execute(statement, {"uuid": import_uuid}).scalar_one():
            time.sleep(0.1)
    product_db.dispose()


def send_request(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Sends an HTTP request. Returns the JSON object in the response; an empty one if the response is not JSON."""
    request = urllib.request.Request(url, body, dict(headers), method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        content = response.read()
    try:
        return dict(msgspec.json.decode(content))
    except msgspec.DecodeError:
        return {}


def copy_and_update(product_db: Engine, webshop_uuid: str, rows: list[tuple[str, ...]]) -> float:
    """The reference: copies the rows into a temporary table and updates their products by one UPDATE.

    Returns the seconds.
    """
    content = to_csv(rows)
    connection = product_db.raw_connection()
    cursor: Any = connection.cursor()  # pg8000's, whose `execute` takes the stream of a COPY
    begun_at = time.perf_counter()
    cursor.execute(
        "create temporary table reference (identifier text, price numeric, stock integer, code text, url text)"
        " on commit drop"
    )
    cursor.execute("copy reference from stdin with (format csv, header)", stream=io.BytesIO(content))
    cursor.execute(
        "update products p set price = r.price, stock_on_hand = r.stock, article_code = r.code, product_url = r.url"
        " from reference r where p.webshop_uuid = cast(%s as uuid) and p.identifier = r.identifier",
        (webshop_uuid,),
    )
    connection.commit()
    seconds = time.perf_counter() - begun_at
    connection.close()
    return seconds


def apply_batches(product_db: Engine, webshop_uuid: UUID, round_number: int) -> float:
    """Applies all batches of a file by import_apply's step, in as many threads as the function has.

    Returns the seconds.
    """
    import_uuid = uuid4()
    rows = make_rows(product_db, str(webshop_uuid), 200 + round_number)
    with product_db.begin() as conn:
        gate.open_gate(conn, import_uuid, 1)
    batches = [
        ImportBatch(webshop_uuid, import_uuid, 1, tuple(range(start + 2, start + 502)), COLUMNS,
                    tuple(rows[start : start + 500]))
        for start in range(0, len(rows), 500)
    ]  # fmt: skip

    def apply(batch: ImportBatch) -> int:
        with product_db.begin() as conn:
            return len(import_apply.apply_batch(conn, batch).updated)

    begun_at = time.perf_counter()
    with ThreadPoolExecutor(APPLY_THREADS) as threads:
        updated = sum(threads.map(apply, batches))
    seconds = time.perf_counter() - begun_at
    if updated != ROWS:
        raise RuntimeError(f"{updated} of {ROWS} rows were updated")
    with product_db.begin() as conn:
        conn.execute(text("delete from import_outcomes where import_uuid = :uuid"), {"uuid": import_uuid})
    return seconds


def list_processes(stack: dict[str, str]) -> list[tuple[str, int]]:
    """The name and the process id of every process of the stack."""
    command = [sys.executable, "-m", "infra.local", "ps"]
    output = subprocess.run(command, env=stack, capture_output=True, text=True, check=True).stdout
    return [(line.split()[0], int(line.split()[1])) for line in output.splitlines()]


def read_peak_bytes(pid: int) -> int:
    """The peak resident memory of a process: VmHWM in https://docs.kernel.org/filesystems/proc.html ."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
