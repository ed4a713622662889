"""Processes and servers are killed in the middle of a step. A lock that the test holds stops the step there."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.integration.catalogue import csv_of, new_values
from tests.integration.database import GATES, IMPORTS, ONE_IMPORT, ONE_PRODUCT, Hold
from tests.integration.shop import Unavailable
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.catalogue import Catalogue
    from tests.integration.database import Database
    from tests.integration.shop import Shop
    from tests.integration.stack import Databases, LocalStack

BATCH_ROWS = 500

# The statement in which a lock blocks each function's session: as much of its text as distinguishes it from others.
RECORDING = "INSERT INTO imports"  # import_upload
REQUEUEING = "UPDATE imports SET wake_at"  # sweep
OPENING = "insert into import_gates"  # import_batches, before it sends anything
SENDING = "processing_offset="  # import_batches, between two bundles of batches
COUNTING = "SELECT imports.uuid, imports.webshop_uuid"  # import_progress, locking the import's row
APPLYING = "update products p"  # import_apply
MIRRORING = "select identifier from products"  # import_mirror, locking what it is about to write


def test_every_function_is_killed_once_during_one_import(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """Each function of the import, the bridge and the Pub/Sub server die in the middle of their work.

    The import still ends COMPLETED, each row is applied once, the ledger balances and the mirror is equal. No message
    becomes a dead letter, because five attempts last longer than a process needs to start again.
    """
    dead_letters = stack.dead_letters()
    rows = new_values(catalogue.identifiers(20_000))
    service_db, product_db, legacy_db = databases.service, databases.product, databases.legacy
    late_to_apply = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-BATCH_ROWS // 2]}
    late_to_mirror = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-4 * BATCH_ROWS]}

    with (
        Hold(product_db, GATES) as unsent,
        Hold(product_db, ONE_PRODUCT, **late_to_apply),
        Hold(legacy_db, ONE_PRODUCT, **late_to_mirror),
    ):
        with Hold(service_db, IMPORTS):
            import_uuid = shop.upload(csv_of(rows))
            service_db.wait_for_blocked(RECORDING)
            service_db.wait_for_blocked(REQUEUEING)
            stack.kill("import_upload", "sweep")

        shop.wait_for(import_uuid, "to be validated", total_rows=len(rows))
        with Hold(service_db, ONE_IMPORT, import_uuid=import_uuid):
            unsent.release()
            wait_until(lambda: catalogue.count_applied(import_uuid)[0], "the first batch to be applied")
            stack.kill("kafka_bridge")
            service_db.wait_for_blocked(SENDING)
            service_db.wait_for_blocked(COUNTING)
            stack.kill("import_batches", "import_progress", *find_own_pubsub(stack), "imports_api")

        # Now only sweep can continue the import, when the lease of the dead worker has expired.
        let_leases_end(service_db, import_uuid)
        product_db.wait_for_blocked(APPLYING)
        legacy_db.wait_for_blocked(MIRRORING)
        stack.kill("import_apply", "import_mirror")
    ended = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (ended["status"], ended["updated_rows"], ended["run"]) == ("COMPLETED", len(rows), 1)
    catalogue.assert_applied(import_uuid, rows)
    assert stack.dead_letters() == dead_letters


def let_leases_end(service_db: Database, import_uuid: str) -> None:
    """Ends the import's lease and lets sweep requeue it, as if minutes had passed."""
    earlier = ", ".join(f"{column} = {column} - interval '10 min'" for column in ("lease_until", "wake_at"))
    service_db.rows(f"update imports set {earlier} where uuid = cast(:import_uuid as uuid)", import_uuid=import_uuid)


def find_own_pubsub(stack: LocalStack) -> tuple[str, ...]:
    """Returns the name of the stack's own Pub/Sub server, if it has one.

    That server stores accepted messages on disk. A foreign server must not be killed: it may store them in memory.
    """
    return tuple({"pubsub"} & stack.processes().keys())


def test_an_import_survives_a_killed_database_server(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """PostgreSQL dies, with all its sessions, while batches are applied, counted and mirrored."""
    dead_letters = stack.dead_letters()
    rows = new_values(catalogue.identifiers(20_000))
    blocked = {"webshop": shop.webshop_uuid, "identifier": list(rows)[10 * BATCH_ROWS]}

    with Hold(databases.product, ONE_PRODUCT, **blocked):
        import_uuid = shop.upload(csv_of(rows))
        databases.product.wait_for_blocked(APPLYING)
        stack.kill("postgres")
    ended = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (ended["status"], ended["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
    assert stack.dead_letters() == dead_letters


def test_an_upload_is_imported_without_its_event(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """Sweep finds a file whose event is missing. If the event arrives late, it changes nothing."""
    rows = new_values(catalogue.identifiers(50))
    watcher = stack.processes()["storage_events"]
    os.kill(watcher, signal.SIGSTOP)
    try:
        import_uuid = shop.upload(csv_of(rows))
        ended = shop.wait_for_end(import_uuid)
        assert not stack.is_delivered(import_uuid)
    finally:
        os.kill(watcher, signal.SIGCONT)
    wait_until(lambda: stack.is_delivered(import_uuid), "the late event")

    assert (ended["status"], ended["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
    assert shop.find(import_uuid) == ended
