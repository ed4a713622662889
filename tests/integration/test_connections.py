"""Connections between functions and databases break in the middle of a step.

These tests have their own stack. Its databases are on the tests' own server, behind a chain of proxies, each of which
can break the connections.
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
from tests.integration.proxies import HOST, Cutter, Toxiproxy, find_toxiproxy
from tests.integration.shop import Unavailable
from tests.integration.stack import Databases
from tests.integration.test_kills import APPLYING, BATCH_ROWS, COUNTING, MIRRORING, OPENING
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.proxies import Proxy
    from tests.integration.stack import LocalStack

PRODUCTS = 8_000
PROXIES = ("cutter", "toxiproxy") if find_toxiproxy() else ("cutter",)
DATABASES = ("service", "product", "legacy")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with three empty databases."""
    # As root, the server runs as another user, who may not enter pytest's own temporary folder.
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
    """The available proxies, by name. The first one connects to the server, each other one to its predecessor."""
    chain: dict[str, Proxy] = {"cutter": Cutter(server.port).start()}
    try:
        if program := find_toxiproxy():
            chain["toxiproxy"] = Toxiproxy(program, chain["cutter"].port).start()
        yield chain
    finally:
        for proxy in chain.values():
            proxy.stop()


@pytest.fixture(scope="module")
def stack(proxies: dict[str, Proxy]) -> Iterator[LocalStack]:
    """A stack that connects to its databases only through the proxies, and seeds them."""
    port = list(proxies.values())[-1].port
    urls = {f"{name.upper()}_DATABASE_URL": f"postgresql://postgres@{HOST}:{port}/{name}" for name in DATABASES}
    with running_stack(PRODUCTS, urls) as running:
        yield running


@pytest.mark.parametrize("name", PROXIES)
def test_an_import_survives_broken_connections_in_every_step(
    stack: LocalStack, server: PostgresServer, proxies: dict[str, Proxy], name: str
) -> None:
    """Sending, applying, counting and mirroring each lose their connection while a statement runs.

    The function cannot know whether the statement took effect. The import still ends COMPLETED, and each row is applied
    once.
    """
    databases = Databases(*(Database(server.url(database)) for database in DATABASES))  # not through the proxies
    shop = stack.shop()
    catalogue = Catalogue(databases, shop.webshop_uuid)
    rows = new_values(catalogue.identifiers(PRODUCTS))
    late = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-BATCH_ROWS // 2]}

    def cut_during(database: Database, statement: str, hold: Hold) -> None:
        """Breaks the connections of the sessions that `hold` blocks in `statement`, and releases it."""
        blocked = database.wait_for_blocked(statement)
        with proxies[name].cutting():
            hold.release()
            wait_until(lambda: not blocked & database.find_sessions(), "the broken sessions to end")

    with (
        Hold(databases.product, ONE_PRODUCT, **late) as unapplied,
        Hold(databases.legacy, ONE_PRODUCT, **late) as unmirrored,
    ):
        with Hold(databases.product, GATES) as unsent:
            import_uuid = shop.upload(csv_of(rows))
            cut_during(databases.product, OPENING, unsent)
        shop.wait_for(import_uuid, "to be sent", despite=(Unavailable,), processing_step="APPLY")
        with Hold(databases.service, ONE_IMPORT, import_uuid=import_uuid) as uncounted:
            cut_during(databases.product, APPLYING, unapplied)
            cut_during(databases.service, COUNTING, uncounted)
            cut_during(databases.legacy, MIRRORING, unmirrored)
    ended = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (ended["status"], ended["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
