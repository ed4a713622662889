"""How long the three files of a mailed buy order of 500 lines take, from the database on."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable
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
PRODUCTS = 10_000  # enough for an order of 500 lines, and for an index to matter
ROUNDS = 5
MOST_SECONDS = 1.0


def measure() -> dict[str, dict[str, object]]:
    """The seconds of all three together, of each alone, and of the first in a process that has drawn nothing yet."""
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-bench-"))
    folder.chmod(0o755)
    server = PostgresServer(folder).start()
    try:
        urls = [server.create(name) for name in ("service", "product", "legacy")]
        seeding.migrate(*urls)
        tenants = seeding.seed(urls[1], urls[2], PRODUCTS)
        return measured(urls[1], tenants.webshop_uuid)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measured(product_url: str, webshop_uuid: UUID) -> dict[str, dict[str, object]]:
    """Measures on a seeded product database."""
    engine = connect_to("BENCH", DatabaseSettings(url=product_url), 2)
    is_order = (buy_orders.c.webshop_uuid == webshop_uuid, buy_orders.c.number == ORDER_NUMBER)
    with engine.connect() as product:
        order_uuid = product.scalars(select(buy_orders.c.uuid).where(*is_order)).one()
        lines = product.scalars(select(buy_order_lines.c.uuid).where(buy_order_lines.c.buy_order_uuid == order_uuid))
        if (found := len(lines.all())) != LINES:
            raise RuntimeError(f"{ORDER_NUMBER} has {found} lines instead of {LINES}")

    def all_three() -> None:
        with engine.connect() as product:
            begin_snapshot(product)
            files.render_files(
                product,
                webshop_uuid,
                order_uuid,
                ORDER_NUMBER,
                identifiers=DEFAULT_IDENTIFIERS,
                progress=lambda _rows: None,
            )

    def one(file_type: FileType) -> None:
        request = CreateExport(files.SOURCE, "order", file_type, parents={"buy_order_uuid": order_uuid})
        with engine.connect() as product:
            rendering.render(product, webshop_uuid, request, DEFAULT_IDENTIFIERS, io.BytesIO(), lambda _rows: None)

    first = seconds_of(all_three)
    together = min(seconds_of(all_three) for _ in range(ROUNDS))
    alone = {file_type: min(seconds_of(lambda: one(file_type)) for _ in range(ROUNDS)) for file_type in FileType}  # noqa: B023
    engine.dispose()
    name = f"files of a mailed order of {LINES} lines"
    return {
        name: figure(together, at_most=MOST_SECONDS),
        f"{name}, the first time": figure(first),
        **{f"{name}, {file_type} alone": figure(seconds) for file_type, seconds in alone.items()},
    }


def seconds_of(step: Callable[[], None]) -> float:
    """How long `step` takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def figure(seconds: float, at_most: float | None = None) -> dict[str, object]:
    """One line of the table."""
    goal = "" if at_most is None else f"<= {at_most:g}"
    return {"value": round(seconds, 3), "unit": "s", "goal": goal, "met": at_most is None or seconds <= at_most}


if __name__ == "__main__":
    for name, found in measure().items():
        print(f"{name:60} {found['value']:>8} {found['unit']} {found['goal']:>8}  {found['met']}")
