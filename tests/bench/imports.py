"""The import of a 5 MB file, end to end in the local stack and import_apply alone, against COPY and one UPDATE."""

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
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Engine, text

from functions.imports import gate, import_apply
from shared.clients.databases import connect_to
from shared.messages import ImportBatch
from shared.settings import DatabaseSettings

PRODUCTS = 100_000  # in the webshop
ROWS = 80_000  # of the file
ROUNDS = 5  # the median is quoted: single rounds swing with whatever else the machine does
COLUMNS = ("identifier", "price", "stock_on_hand", "article_code", "product_url")
APPLY_THREADS = 4  # as many as import_apply has in the local stack
MIB = 1024 * 1024


def measure() -> dict[str, dict[str, object]]:
    """Starts a local stack of its own and measures in it."""
    with local_stack() as stack:
        product = connect_to("PRODUCT", DatabaseSettings(url=stack["PRODUCT_DATABASE_URL"]), APPLY_THREADS)
        end_to_end, alone, rows_a_second = [], [], []
        for round_number in range(ROUNDS + 1):
            file = rows_of(product, stack["WEBSHOP_UUID"], round_number)
            seconds = import_file(stack, file)
            reference = copy_and_update(product, stack["WEBSHOP_UUID"], rows_of(product, stack["WEBSHOP_UUID"], 100))
            apply_seconds = apply_alone(product, UUID(stack["WEBSHOP_UUID"]), round_number)
            if round_number:  # the first warms everything up
                end_to_end.append(seconds / reference)
                alone.append(apply_seconds / reference)
                rows_a_second.append(ROWS / seconds)
        peak = max(peak_bytes(pid) for name, pid in processes(stack) if name.startswith("import"))
    return {
        "import end to end / COPY and one UPDATE": figure(statistics.median(end_to_end), "x", at_most=3.5),
        "import_apply alone, 160 batches / COPY and one UPDATE": figure(statistics.median(alone), "x", at_most=2.5),
        "import end to end": figure(statistics.median(rows_a_second), "rows/s"),
        "peak memory of an import's function process": figure(peak / MIB, "MiB", at_most=256),
    }


def figure(value: float, unit: str, at_most: float | None = None) -> dict[str, object]:
    """One line of the table; without a goal it is only told."""
    goal = "" if at_most is None else f"<= {at_most:g}"
    return {"value": round(value, 2), "unit": unit, "goal": goal, "met": at_most is None or value <= at_most}


@contextlib.contextmanager
def local_stack() -> Iterator[dict[str, str]]:
    """A stack in a temporary folder; its environment as `env` prints it."""
    with tempfile.TemporaryDirectory(prefix="imports-and-exports-bench-") as folder:
        environment = {**os.environ, "LOCAL_STATE_DIR": folder}
        up = [sys.executable, "-m", "infra.local", "up", "--products", str(PRODUCTS)]
        log = (Path(folder) / "up.log").open("wb")
        process = subprocess.Popen(up, env=environment, stdout=log, stderr=log)
        try:
            yield environment | ready(environment, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            log.close()


def ready(environment: dict[str, str], process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Waits for the stack."""
    while process.poll() is None:
        command = [sys.executable, "-m", "infra.local", "env"]
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return dict(line.split("=", 1) for line in answer.stdout.splitlines())
        time.sleep(0.2)
    raise RuntimeError("the local stack did not come up")


def rows_of(product: Engine, webshop_uuid: str, round_number: int) -> list[tuple[str, ...]]:
    """ROWS rows that each change their product."""
    statement = text("select identifier from products where webshop_uuid = :w order by identifier limit :n")
    with product.connect() as connection:
        identifiers = connection.execute(statement, {"w": webshop_uuid, "n": ROWS}).scalars().all()
    return [
        (identifier, f"{(number + round_number) % 900}.{number % 90 + 10}", str((number + round_number) % 997),
         f"00{round_number}-{number:06d}", f"https://shop.example/{round_number}/{number}")
        for number, identifier in enumerate(identifiers)
    ]  # fmt: skip


def csv_of(rows: list[tuple[str, ...]]) -> bytes:
    """The rows as a file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([COLUMNS, *rows])
    return out.getvalue().encode()


def import_file(stack: dict[str, str], rows: list[tuple[str, ...]]) -> float:
    """Seconds from the end of the upload until the import is COMPLETED."""
    token = subprocess.run([sys.executable, "-m", "infra.local", "token"], env=stack, capture_output=True, check=True)
    headers = {"Authorization": f"Bearer {token.stdout.decode().strip()}", "Content-Type": "application/json"}
    imports = f"{stack['API_URL']}/webshops/{stack['WEBSHOP_UUID']}/imports"
    made = call("POST", imports, headers, b'{"file_name": "bench.csv"}')
    call(made["upload_method"], made["upload_url"], made["upload_headers"], csv_of(rows))
    uploaded = time.perf_counter()
    service = connect_to("SERVICE", DatabaseSettings(url=stack["SERVICE_DATABASE_URL"]), 1)
    statement = text("select status, reason, updated_rows from imports where uuid = :uuid")
    with service.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while True:
            row = connection.execute(statement, {"uuid": made["uuid"]}).one_or_none()
            if row and row.status not in ("IN_QUEUE", "IMPORTING"):
                seconds = time.perf_counter() - uploaded
                break
            time.sleep(0.01)
    service.dispose()
    if (row.status, row.updated_rows) != ("COMPLETED", ROWS):
        raise RuntimeError(f"the import ended {row.status}: {row.reason}")
    wait_for_mirror(stack, made["uuid"])
    return seconds


def wait_for_mirror(stack: dict[str, str], import_uuid: str) -> None:
    """The next round begins when the last one has left nothing to do."""
    product = connect_to("PRODUCT", DatabaseSettings(url=stack["PRODUCT_DATABASE_URL"]), 1)
    statement = text("select count(*) from import_outcomes where import_uuid = :uuid and mirrored_at is null")
    with product.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(statement, {"uuid": import_uuid}).scalar_one():
            time.sleep(0.1)
    product.dispose()


def call(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """One HTTP request; its JSON answer, or nothing where the answer is none."""
    request = urllib.request.Request(url, body, dict(headers), method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
    try:
        return dict(msgspec.json.decode(content))
    except msgspec.DecodeError:
        return {}


def copy_and_update(product: Engine, webshop_uuid: str, rows: list[tuple[str, ...]]) -> float:
    """The reference: seconds of one COPY into a temporary table and one UPDATE of the same rows, rolled back."""
    content = csv_of(rows)
    connection = product.raw_connection()
    cursor = connection.cursor()
    begun = time.perf_counter()
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
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def apply_alone(product: Engine, webshop_uuid: UUID, round_number: int) -> float:
    """Seconds of the step for all batches of the file, by as many threads as the function has."""
    import_uuid = uuid4()
    rows = rows_of(product, str(webshop_uuid), 200 + round_number)
    with product.begin() as connection:
        gate.open_gate(connection, import_uuid, 1)
    batches = [
        ImportBatch(webshop_uuid, import_uuid, 1, tuple(range(start + 2, start + 502)), COLUMNS,
                    tuple(rows[start : start + 500]))
        for start in range(0, len(rows), 500)
    ]  # fmt: skip

    def apply(batch: ImportBatch) -> int:
        with product.begin() as connection:
            return len(import_apply.apply_batch(connection, batch).updated)

    begun = time.perf_counter()
    with ThreadPoolExecutor(APPLY_THREADS) as threads:
        updated = sum(threads.map(apply, batches))
    seconds = time.perf_counter() - begun
    if updated != ROWS:
        raise RuntimeError(f"{updated} of {ROWS} rows were updated")
    with product.begin() as connection:
        connection.execute(text("delete from import_outcomes where import_uuid = :uuid"), {"uuid": import_uuid})
    return seconds


def processes(stack: dict[str, str]) -> list[tuple[str, int]]:
    """The stack's processes by name."""
    command = [sys.executable, "-m", "infra.local", "ps"]
    listed = subprocess.run(command, env=stack, capture_output=True, text=True, check=True).stdout
    return [(line.split()[0], int(line.split()[1])) for line in listed.splitlines()]


def peak_bytes(pid: int) -> int:
    """The most memory a process ever held. https://docs.kernel.org/filesystems/proc.html ."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
