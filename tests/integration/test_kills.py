"""Processes and servers killed in the middle of a step. A lock that the test holds says where the middle is."""

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
    from tests.integration.shop import Shop
    from tests.integration.stack import Databases, LocalStack

BATCH_ROWS = 500

# What each function's session does when a lock holds it up, as far as the statement's text tells it from others.
RECORDING = "INSERT INTO imports"  # import_upload
WAKING = "UPDATE imports SET wake_at"  # sweep
OPENING = "insert into import_gates"  # import_batches, before it sends anything
SENDING = "processing_offset="  # import_batches, between two bundles of batches
COUNTING = "SELECT imports.uuid, imports.webshop_uuid"  # import_progress, locking the import's row
APPLYING = "update products p"  # import_apply
MIRRORING = "select identifier from products"  # import_mirror, locking what it is about to write


def test_every_function_is_killed_once_during_one_import(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """Each function of the import, the bridge and the Pub/Sub server die in the middle of their work: nobody notices.

    The import ends COMPLETED, each row applied once, the ledger balanced and the mirror equal. No message was given up
    on: five tries last longer than it takes to start a process again.
    """
    given_up = stack.dead_letters()
    rows = new_values(catalogue.identifiers(20_000))
    service, product, legacy = databases.service, databases.product, databases.legacy
    one_late = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-BATCH_ROWS // 2]}
    one_of_the_rest = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-4 * BATCH_ROWS]}

    with (
        Hold(product, GATES) as unsent,
        Hold(product, ONE_PRODUCT, **one_late),
        Hold(legacy, ONE_PRODUCT, **one_of_the_rest),
    ):
        with Hold(service, IMPORTS):
            import_uuid = shop.upload(csv_of(rows))
            service.wait_for_waiting(RECORDING)
            service.wait_for_waiting(WAKING)
            stack.kill("import_upload", "sweep")

        shop.wait_for(import_uuid, "to be validated", total_rows=len(rows))
        with Hold(service, ONE_IMPORT, import_uuid=import_uuid):
            unsent.release()
            wait_until(lambda: catalogue.count_applied(import_uuid)[0], "the first batch to be applied")
            stack.kill("kafka_bridge")
            service.wait_for_waiting(SENDING)
            service.wait_for_waiting(COUNTING)
            stack.kill("import_batches", "import_progress", *own_pubsub(stack), "imports_api")

        # From here on nobody works on it but sweep, which comes when the dead claimant's lease is over.
        product.wait_for_waiting(APPLYING)
        legacy.wait_for_waiting(MIRRORING)
        stack.kill("import_apply", "import_mirror")
    seen = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (seen["status"], seen["updated_rows"], seen["run"]) == ("COMPLETED", len(rows), 1)
    catalogue.assert_applied(import_uuid, rows)
    assert stack.dead_letters() == given_up


def own_pubsub(stack: LocalStack) -> tuple[str, ...]:
    """The Pub/Sub server, where it is the stack's own, which keeps what it took: another may keep it in memory."""
    return tuple({"pubsub"} & stack.processes().keys())


def test_the_database_server_is_killed(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """PostgreSQL dies while batches are being applied, counted and mirrored, and takes all of their sessions along."""
    given_up = stack.dead_letters()
    rows = new_values(catalogue.identifiers(20_000))
    blocked = {"webshop": shop.webshop_uuid, "identifier": list(rows)[10 * BATCH_ROWS]}

    with Hold(databases.product, ONE_PRODUCT, **blocked):
        import_uuid = shop.upload(csv_of(rows))
        databases.product.wait_for_waiting(APPLYING)
        stack.kill("postgres")
    seen = shop.wait_for_end(import_uuid, despite=(Unavailable,))

    assert (seen["status"], seen["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
    assert stack.dead_letters() == given_up


def test_an_upload_whose_event_is_lost_is_imported_all_the_same(
    stack: LocalStack, shop: Shop, catalogue: Catalogue
) -> None:
    """Sweep finds the file without its event; the event that comes after all finds it recorded and changes nothing."""
    rows = new_values(catalogue.identifiers(50))
    watcher = stack.processes()["storage_events"]
    os.kill(watcher, signal.SIGSTOP)
    try:
        import_uuid = shop.upload(csv_of(rows))
        seen = shop.wait_for_end(import_uuid)
        assert not stack.delivered(import_uuid)
    finally:
        os.kill(watcher, signal.SIGCONT)
    wait_until(lambda: stack.delivered(import_uuid), "the late event")

    assert (seen["status"], seen["updated_rows"]) == ("COMPLETED", len(rows))
    catalogue.assert_applied(import_uuid, rows)
    assert shop.find(import_uuid) == seen
