"""Measures how long the three files of an emailed buy order of 500 lines take, including the reads of the database."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from functions.buy_orders import files
from functions.exports import rendering
from functions.exports.identifiers import DEFAULT_IDENTIFIERS
from functions.exports.queries import begin_snapshot
from functions.exports.requests import CreateExport
from functions.exports.source import FileType
from infra.local import seeding
from shared.clients.databases import connect_to
from shared.settings import DatabaseSettings
from shared.tables.product import buy_order_lines, buy_orders
from tests.conftest import PostgresServer

ORDER_NUMBER = "BO-10002"
LINES = 500
PRODUCTS = 10_000  # enough for an order of 500 lines, and for the indexes to be used
ROUNDS = 5
MAX_SECONDS = 1.0


def measure() -> dict[str, dict[str, object]]:
    """Measures all three files together, each one alone, and all three for the first time in the process."""
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-bench-"))
    folder.chmod(0o755)
    server = PostgresServer(folder).start()
    try:
        urls = [server.create(name) for name in ("service", "product", "legacy")]
        seeding.migrate(*urls)
        tenants = seeding.seed(urls[1], urls[2], PRODUCTS)
        return measure_in(urls[1], tenants.webshop_uuid)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure_in(product_url: str, webshop_uuid: UUID) -> dict[str, dict[str, object]]:
    """Measures in a seeded product database."""
    engine = connect_to("BENCH", DatabaseSettings(url=product_url), 2)
    is_order = (buy_orders.c.webshop_uuid == webshop_uuid, buy_orders.c.number == ORDER_NUMBER)
    with engine.connect() as conn:
        order_uuid = conn.scalars(select(buy_orders.c.uuid).where(*is_order)).one()
        lines = conn.scalars(select(buy_order_lines.c.uuid).where(buy_order_lines.c.buy_order_uuid == order_uuid))
        if (line_count := len(lines.all())) != LINES:
            raise RuntimeError(f"{ORDER_NUMBER} has {line_count} lines instead of {LINES}")

    def render_all() -> None:
        with engine.connect() as conn:
            begin_snapshot(conn)
            files.render_files(
                conn,
                webshop_uuid,
                order_uuid,
                ORDER_NUMBER,
                identifiers=DEFAULT_IDENTIFIERS,
                progress=lambda _rows: None,
            )

    def render_one(file_type: FileType) -> None:
        request = CreateExport(files.SOURCE, "order", file_type, parents={"buy_order_uuid": order_uuid})
        with engine.connect() as conn:
            rendering.render(conn, webshop_uuid, request, DEFAULT_IDENTIFIERS, io.BytesIO(), lambda _rows: None)

    first = measure_seconds(render_all)
    together = min(measure_seconds(render_all) for _ in range(ROUNDS))
    alone = {
        file_type: min(measure_seconds(partial(render_one, file_type)) for _ in range(ROUNDS)) for file_type in FileType
    }
    engine.dispose()
    name = f"files of an emailed order of {LINES} lines"
    return {
        name: figure(together, at_most=MAX_SECONDS),
        f"{name}, the first time": figure(first),
        **{f"{name}, {file_type} alone": figure(seconds) for file_type, seconds in alone.items()},
    }


def measure_seconds(work: Callable[[], None]) -> float:
    """Returns the duration of `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def figure(seconds: float, at_most: float | None = None) -> dict[str, object]:
    """Returns a measured value with its goal. Without a goal it is only reported."""
    goal = "" if at_most is None else f"<= {at_most:g}"
    return {"value": round(seconds, 3), "unit": "s", "goal": goal, "met": at_most is None or seconds <= at_most}
