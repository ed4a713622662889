"""Connections between functions and databases that break in the middle of a step, on a stack of its own.

Its databases are not the stack's: they stand on the tests' own server, behind proxies in a row, each of which can cut.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PostgresServer
from tests.integration.catalogue import Catalogue, csv_of, new_values
from tests.integration.conftest import running_stack
from tests.integration.database import GATES, ONE_IMPORT, ONE_PRODUCT, Database, Hold
from tests.integration.proxies import HOST, Cutter, Toxiproxy, toxiproxy_program
from tests.integration.shop import Unavailable
from tests.integration.stack import Databases
from tests.integration.test_kills import APPLYING, BATCH_ROWS, COUNTING, MIRRORING, OPENING
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.proxies import Proxy
    from tests.integration.stack import LocalStack

PRODUCTS = 8_000
PROXIES = ("cutter", "toxiproxy") if toxiproxy_program() else ("cutter",)
DATABASES = ("service", "product", "legacy")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with three empty databases."""
    # Not pytest's own temporary folder: as root the server runs as another user, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-postgres-"))
    try:
        server = PostgresServer(folder).start()
        try:
            for name in DATABASES:
                server.create(name)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def proxies(server: PostgresServer) -> Iterator[dict[str, Proxy]]:
    """The proxies that there are, by name: each passes on to the one before it, the first to the server."""
    row: dict[str, Proxy] = {"cutter": Cutter(server.port).start()}
    try:
        if program := toxiproxy_program():
            row["toxiproxy"] = Toxiproxy(program, row["cutter"].port).start()
        yield row
    finally:
        for proxy in row.values():
            proxy.stop()


@pytest.fixture(scope="module")
def stack(proxies: dict[str, Proxy]) -> Iterator[LocalStack]:
    """A stack that reaches its databases through the proxies alone; it fills them itself."""
    port = list(proxies.values())[-1].port
    urls = {f"{name.upper()}_DATABASE_URL": f"postgresql://postgres@{HOST}:{port}/{name}" for name in DATABASES}
    with running_stack(PRODUCTS, urls) as running:
        yield running


@pytest.mark.parametrize("which", PROXIES)
def test_connections_that_break_in_the_middle_of_every_step(
    stack: LocalStack, server: PostgresServer, proxies: dict[str, Proxy], which: str
) -> None:
    """Sending, applying, counting and mirroring each lose their connection while a statement runs.

    Nobody knows then whether it was done. The import ends COMPLETED all the same, each row applied once.
    """
    databases = Databases(*(Database(server.url(name)) for name in DATABASES))  # not through the proxies
    shop = stack.shop()
    catalogue = Catalogue(databases, shop.webshop_uuid)
    rows = new_values(catalogue.identifiers(PRODUCTS))
    late = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-BATCH_ROWS // 2]}

    def cut_while(database: Database, statement: str, hold: Hold) -> None:
        """Breaks the connections of the sessions that `hold` has made wait in `statement`, and lets go."""
        held_up = database.wait_for_waiting(statement)
        with proxies[which].cutting():
            hold.release()
            wait_until(lambda: not held_up & database.sessions(), "the broken sessions to end")

    with (
        Hold(databases.product, ONE_PRODUCT, **late) as unapplied,
        Hold(databases.legacy, ONE_PRODUCT, **late) as unmirrored,
    ):
        with Hold(databases.product, GATES) as unsent:
            import_uuid = shop.upload(csv_of(rows))
            cut_while(databases.product, OPENING, unsent)
        shop.wait_for(import_uuid, "to be sent", despite=(Unavailable,), processing_step="APPLY")
        with Hold(databases.service, ONE_IMPORT, import_uuid=import_uuid) as uncounted:
            cut_while(databases.product, APPLYING, unapplied)
            cut_while(databases.service, COUNTING, uncounted)
            cut_while(databases.legacy, MIRRORING, unmirrored)
    seen = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (seen["status"], seen["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
