"""Who works on an import: claiming it, keeping it, and writing to it only while it is held.

The token goes up at each claim, so a claimant that slept through its lease cannot write over the next one's work.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, update

from functions.imports.states import ACTIVE, LEASE_SECONDS, Status, Step
from shared.errors import NothingToDo, PermanentError
from shared.messages import ImportTrigger
from shared.tables.service import imports

log = logging.getLogger(__name__)


class Claim(msgspec.Struct, frozen=True):
    """An import as it was when this claimant took it."""

    uuid: UUID
    webshop_uuid: UUID
    object_path: str
    generation: int
    size_bytes: int
    operation: str
    on_error: str
    run: int
    token: int
    claims: int  # in a row without progress, this one included
    processing_step: Step

    @property
    def reference(self) -> str:
        """What a merchant can tell us, and what stands in the log beside every failure of the run."""
        return f"{self.uuid}/{self.run}"


def now(plus_seconds: int = 0) -> ColumnElement[datetime]:
    """The database's clock: the only one that leases are measured by."""
    return func.clock_timestamp() + timedelta(seconds=plus_seconds)


def claim(service: Connection, trigger: ImportTrigger) -> Claim:
    """Takes the import for LEASE_SECONDS.

    Raises NothingToDo when the import cannot be claimed: it is unknown, final, of another run, or another worker's
    lease is still running. If that one dies, the sweep brings the import back.
    """
    statement = (
        update(imports)
        .where(
            imports.c.uuid == trigger.import_uuid,
            imports.c.run == trigger.run,
            imports.c.status.in_(ACTIVE),
            func.coalesce(imports.c.lease_until, now()) <= now(),
        )
        .values(
            status=Status.IMPORTING,
            token=imports.c.token + 1,
            claims=imports.c.claims + 1,
            lease_until=now(LEASE_SECONDS),
            updated_at=now(),
        )
        .returning(*(imports.c[field] for field in Claim.__struct_fields__))
    )
    row = service.execute(statement).one_or_none()
    if row is None:
        raise NothingToDo(f"import {trigger.import_uuid} is not to be claimed for run {trigger.run}")
    return msgspec.convert(row._mapping, Claim, from_attributes=True)


def write(service: Connection, held: Claim, **values: object) -> None:
    """Writes to the import's row and renews the lease for LEASE_SECONDS, unless `values` say for how long.

    Raises NothingToDo when somebody else holds it, or it is final.
    """
    statement = (
        update(imports)
        .where(
            imports.c.uuid == held.uuid,
            imports.c.run == held.run,
            imports.c.token == held.token,
            imports.c.status.in_(ACTIVE),
        )
        .values(**{"lease_until": now(LEASE_SECONDS), "updated_at": now(), **values})
    )
    if service.execute(statement).rowcount == 0:
        raise NothingToDo(
            f"run {held.run} of import {held.uuid} is over, or somebody else's by now (token {held.token})"
        )


@contextmanager
def claimed(service_database: Engine, trigger: ImportTrigger) -> Iterator[Claim]:
    """Claims the import for the work inside. Work that fails shortens the lease, a little less with every claim.

    So a passing fault costs seconds, and one that stays does not use up the claims in a minute. A process that dies
    inside leaves the lease as it is.
    """
    with service_database.begin() as service:
        held = claim(service, trigger)
    try:
        yield held
    except (NothingToDo, PermanentError):
        raise
    except Exception:
        log.warning("A claim of an import failed, reference %s", held.reference)
        with service_database.begin() as service:
            back_off(service, held)
        raise


def back_off(service: Connection, held: Claim) -> None:
    """Lets the next claimant in after 2, 4, 8, 16, at last LEASE_SECONDS seconds."""
    seconds = min(2**held.claims, LEASE_SECONDS)
    statement = update(imports).where(imports.c.uuid == held.uuid, imports.c.token == held.token)
    service.execute(statement.values(lease_until=now(seconds), wake_at=now(seconds)))


def lock(service: Connection, import_uuid: UUID, run: int) -> Row[Any]:
    """Locks the import's row until the transaction ends and returns it.

    Raises NothingToDo when it is final or of another run.
    """
    row = service.execute(select(imports).where(imports.c.uuid == import_uuid).with_for_update()).one_or_none()
    if row is None or row.status not in ACTIVE or row.run != run:
        raise NothingToDo(f"run {run} of import {import_uuid} is over")
    return row


def finish(service: Connection, import_uuid: UUID, run: int, status: Status, reason: str, **values: object) -> None:
    """Writes a final state, ends the lease and raises the token. The caller holds the row, by lock or by write."""
    statement = (
        update(imports)
        .where(imports.c.uuid == import_uuid, imports.c.run == run, imports.c.status.in_(ACTIVE))
        .values(
            status=status,
            reason=reason,
            token=imports.c.token + 1,
            lease_until=None,
            updated_at=now(),
            finished_at=now(),
            **values,
        )
    )
    if service.execute(statement).rowcount == 0:
        raise NothingToDo(f"run {run} of import {import_uuid} is over")
