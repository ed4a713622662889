"""What was forgotten: uploads whose event was lost, imports nobody works on, outcomes not mirrored, old files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection, Engine, Uuid, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from functions.imports import import_upload
from functions.imports.jobs import now
from functions.imports.states import ACTIVE, MIRROR_AGAIN_SECONDS
from shared.messages import ImportTrigger, ProductsUpdated
from shared.tables.service import imports

if TYPE_CHECKING:  # at run time they come with whoever makes the clients
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)

UPLOADS_OF_THE_LAST = timedelta(days=1)  # older ones without a row are no lost event any more
WAKE_AGAIN_SECONDS = 10
STALLED_CLAIMS = 3  # one claim may die by chance; somebody should look at an import that three could not bring on
AT_ONCE = 500  # of a kind in one sweep; the next one goes on
FILE_RETENTION = timedelta(days=30)  # for so long an import can be retried, and its report shows the cells
OUTCOME_RETENTION_DAYS = 60  # twice the file's: nothing can ask for an outcome whose file is long gone


def lost_uploads(service: Engine, storage: Storage) -> list[ImportTrigger]:
    """Records the uploads of the last day that no import knows, and removes files that are kept no longer.

    Returns the triggers to send.
    """
    today = datetime.now(UTC)
    found = {}
    for stored in storage.list(import_upload.PREFIX):
        if stored.created_at < today - FILE_RETENTION:
            storage.remove(stored.path)
        upload = import_upload.upload_of(stored.path, stored.generation, stored.size_bytes, stored.metadata)
        if upload and stored.created_at > today - UPLOADS_OF_THE_LAST:
            found[upload.import_uuid] = upload
    triggers = []
    with service.connect() as reading:
        there = imports.c.uuid == func.any(literal(list(found), ARRAY(Uuid)))
        known = set(reading.execute(select(imports.c.uuid).where(there)).scalars())
    for import_uuid, upload in found.items():
        if import_uuid in known:
            continue
        log.warning("The event of %s was lost; recording it now", upload.path)
        try:
            with service.begin() as writing:
                trigger = import_upload.record(writing, upload)
        except DBAPIError:
            log.exception("%s cannot be recorded; the others are", upload.path)
            continue
        if trigger:
            triggers.append(trigger)
    return triggers


def sleeping_imports(service: Connection) -> list[ImportTrigger]:
    """The active imports whose lease ran out, or that nobody claimed; each is returned once in WAKE_AGAIN_SECONDS."""
    asleep = (
        select(imports.c.uuid)
        .where(
            imports.c.status.in_(ACTIVE),
            imports.c.wake_at <= now(),
            or_(imports.c.lease_until.is_(None), imports.c.lease_until <= now()),
        )
        .order_by(imports.c.wake_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(imports)
        .where(imports.c.uuid.in_(asleep))
        .values(wake_at=now(WAKE_AGAIN_SECONDS))
        .returning(imports.c.webshop_uuid, imports.c.uuid, imports.c.run, imports.c.claims)
    )
    woken = service.execute(statement).all()
    for row in woken:
        if row.claims >= STALLED_CLAIMS:
            log.warning("Import %s has not moved for %s claims", row.uuid, row.claims)
    return [ImportTrigger(row.webshop_uuid, row.uuid, row.run) for row in woken]


def unmirrored_outcomes(product: Connection) -> Sequence[ProductsUpdated]:
    """Outcomes that should be mirrored by now, each once in MIRROR_AGAIN_SECONDS: those that fail wait behind."""
    statement = text("""
        update import_outcomes set mirror_due_at = clock_timestamp() + make_interval(secs => :again)
        where (import_uuid, run, first_row) in (
            select import_uuid, run, first_row from import_outcomes
            where mirrored_at is null and mirror_due_at <= clock_timestamp()
            order by mirror_due_at limit :at_once for update skip locked
        )
        returning webshop_uuid, import_uuid, run, first_row, identifiers
    """)
    rows = product.execute(statement, {"again": MIRROR_AGAIN_SECONDS, "at_once": AT_ONCE}).mappings()
    return [msgspec.convert(dict(row), ProductsUpdated) for row in rows]


def forget_old_outcomes(product: Connection) -> None:
    """Removes what no delivery and no close can ask for any more."""
    keys = {"days": OUTCOME_RETENTION_DAYS}
    old = "< now() - make_interval(days => :days)"
    product.execute(text(f"delete from import_outcomes where mirrored_at is not null and applied_at {old}"), keys)
    product.execute(text(f"delete from import_gates where changed_at {old}"), keys)
