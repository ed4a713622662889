"""The email deliveries' part of sweep: stalled deliveries, expired and orphaned files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from functions.buy_orders import jobs
from shared.job_files import delete_orphaned_files
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends as deliveries

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)


def requeue_stalled_deliveries(service_db: Engine) -> list[BuyOrderEmail]:
    """Ends the stalled deliveries that must not be tried again, and returns the messages that requeue the others."""
    with service_db.begin() as conn:
        for delivery_uuid in jobs.finish_dead_senders(conn):
            log.error("The worker of delivery %s died while it sent the email: it is UNCERTAIN", delivery_uuid)
        for delivery_uuid in jobs.give_up_stalled(conn):
            log.error("Delivery %s has used up its attempts: it is FAILED", delivery_uuid)
        return jobs.requeue_stalled(conn)


def expire_delivery_files(service_db: Engine, retention_days: int) -> None:
    """Detaches the files of deliveries after the retention."""
    with service_db.begin() as conn:
        jobs.expire_files(conn, retention_days)


def delete_orphaned_delivery_files(service_db: Engine, storage: Storage) -> None:
    """Deletes the files that no delivery needs."""
    delete_orphaned_files(
        service_db,
        storage,
        deliveries,
        folder_of=lambda row: jobs.folder_path(row.webshop_uuid, row.uuid),
        needed_uris=lambda row: row.file_uris,
    )
