"""The imports' part of sweep: what lost events, messages and processes left behind, then retention."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Engine, Uuid, delete, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from functions.imports.import_upload import PREFIX, parse_upload, record_upload
from functions.imports.jobs import IMPORTS
from functions.imports.states import MIRROR_AGAIN_SECONDS
from shared.leases import MAX_ROWS_PER_SWEEP, now
from shared.messages import ImportTrigger, ProductsUpdated
from shared.tables.product import import_gates
from shared.tables.product import import_outcomes as batch_results
from shared.tables.service import imports

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)

MAX_EVENT_AGE = timedelta(days=1)  # an older upload without a row is not a lost event any more
STALLED_CLAIMS = 3  # one claim may die by chance: warn after three without progress
FILE_RETENTION = timedelta(days=30)  # for so long an import can be retried, and its error report shows the cells
RESULT_RETENTION_DAYS = 60  # twice the file's: a result is of no use once its file is long gone


def requeue_stalled_imports(service_db: Engine) -> list[ImportTrigger]:
    """The triggers of active imports that no worker holds, each at most once in REQUEUE_AFTER_SECONDS."""
    columns = (imports.c.webshop_uuid, imports.c.uuid, imports.c.run, imports.c.claims)
    with service_db.begin() as conn:
        rows = IMPORTS.requeue_stalled(conn, returning=columns)
    for row in rows:
        if row.claims >= STALLED_CLAIMS:
            log.warning("Import %s has made no progress in %s claims", row.uuid, row.claims)
    return [ImportTrigger(row.webshop_uuid, row.uuid, row.run) for row in rows]


def record_lost_uploads(service_db: Engine, storage: Storage) -> list[ImportTrigger]:
    """Records the uploads of the last day that have no import, and deletes files after FILE_RETENTION.

    Returns the triggers to send.
    """
    today = datetime.now(UTC)
    uploads = {}
    for stored in storage.list(PREFIX):
        if stored.created_at < today - FILE_RETENTION:
            storage.remove(stored.path)
        upload = parse_upload(stored.path, stored.generation, stored.size_bytes, stored.metadata)
        if upload and stored.created_at > today - MAX_EVENT_AGE:
            uploads[upload.import_uuid] = upload
    with service_db.connect() as conn:
        is_upload = imports.c.uuid == func.any(literal(list(uploads), ARRAY(Uuid)))
        recorded = set(conn.execute(select(imports.c.uuid).where(is_upload)).scalars())
    triggers = []
    for import_uuid, upload in uploads.items():
        if import_uuid in recorded:
            continue
        log.warning("The event of %s was lost; recording the import now", upload.path)
        try:
            with service_db.begin() as conn:
                trigger = record_upload(conn, upload)
        except DBAPIError:
            log.exception("%s cannot be recorded; the other uploads are", upload.path)
            continue
        if trigger:
            triggers.append(trigger)
    return triggers


def requeue_unmirrored_results(product_db: Engine) -> list[ProductsUpdated]:
    """The messages of batch results that are not mirrored, each at most once in MIRROR_AGAIN_SECONDS."""
    columns = batch_results.c
    key = (columns.import_uuid, columns.run, columns.first_row)
    unmirrored = (
        select(*key)
        .where(columns.mirrored_at.is_(None), columns.mirror_due_at <= now())
        .order_by(columns.mirror_due_at)
        .limit(MAX_ROWS_PER_SWEEP)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(batch_results).where(tuple_(*key).in_(unmirrored)).values(mirror_due_at=now(MIRROR_AGAIN_SECONDS))
    )
    message_columns = [columns[name] for name in ProductsUpdated.__struct_fields__]
    with product_db.begin() as conn:
        due_again = statement.values(mirror_due_at=now(MIRROR_AGAIN_SECONDS))
        rows = conn.execute(due_again.returning(*message_columns)).all()
    return [msgspec.convert(row, ProductsUpdated, from_attributes=True) for row in rows]


def delete_expired_results(product_db: Engine) -> None:
    """Deletes the batch results and gates that no delivery and no early end needs any more."""
    expired_before = func.now() - timedelta(days=RESULT_RETENTION_DAYS)
    is_mirrored = batch_results.c.mirrored_at.is_not(None)
    with product_db.begin() as conn:
        conn.execute(delete(batch_results).where(is_mirrored, batch_results.c.applied_at < expired_before))
        conn.execute(delete(import_gates).where(import_gates.c.changed_at < expired_before))
