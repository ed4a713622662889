"""The exports' part of sweep: stalled exports, late history records, expired and orphaned files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine

from functions.exports import jobs
from shared.job_files import delete_orphaned_files
from shared.messages import ExportHistory, ExportRequest
from shared.tables.service import exports

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage


def requeue_stalled_exports(service_db: Engine) -> list[ExportHistory | ExportRequest]:
    """Gives up the stalled exports that have used up their attempts, and requeues the others.

    Returns the messages to send.
    """
    with service_db.begin() as conn:
        return [*jobs.give_up_stalled(conn), *jobs.requeue_stalled(conn)]


def requeue_late_history(service_db: Engine) -> list[ExportHistory]:
    """Returns the records to send again, because the history does not have them yet."""
    with service_db.begin() as conn:
        return jobs.requeue_late_history(conn)


def expire_exports(service_db: Engine, retention_days: int) -> list[ExportHistory]:
    """Marks exports as EXPIRED after the retention. Returns the records to send."""
    with service_db.begin() as conn:
        return jobs.expire_exports(conn, retention_days)


def delete_orphaned_export_files(service_db: Engine, storage: Storage) -> None:
    """Deletes the files that no export needs."""
    delete_orphaned_files(
        service_db,
        storage,
        exports,
        folder_of=lambda row: jobs.folder_path(row.webshop_uuid, row.uuid),
        needed_uris=lambda row: (row.file_uri,),
    )
