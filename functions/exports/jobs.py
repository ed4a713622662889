"""An export as a job: its row, who works on it, and each change of it.

The number of the attempt is the lease's token: it goes up at each claim, and every write of an attempt names it and
RENDERING. So a claimant that slept through its lease cannot write over the next one's work, and nobody writes over a
final state. Each change that the history shows raises the version and is returned as the message to send; until the
history has that version, sweep sends it again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, RowMapping, and_, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from functions.exports.states import LEASE_SECONDS, MAX_ATTEMPTS, UNFINISHED, Status
from shared.errors import NothingToDo
from shared.messages import ExportHistory, ExportRequest
from shared.tables.service import exports

# Sweep sends a request, or a history record, again after this: twice what either takes through a busy Kafka.
WAKE_AFTER_SECONDS = 10
# Longer than a lease: an attempt renews its lease before it publishes, so by then nobody's file appears any more.
TIDY_AFTER_SECONDS = 2 * LEASE_SECONDS
MAX_AGE_HOURS = 24  # of an unfinished export that nobody so much as claims; its merchant has long asked again
AT_ONCE = 500  # of a kind in one sweep; the next one goes on

HISTORY = tuple(exports.c[field] for field in ExportHistory.__struct_fields__)


class NewExport(msgspec.Struct, frozen=True):
    """An export as it is asked for."""

    uuid: UUID
    webshop_uuid: UUID
    user_uuid: UUID
    name: str  # of the file, safe for a path
    source: str
    file_type: str
    request: str  # functions.exports.requests.CreateExport as JSON
    idempotency_key: str | None


class Claim(msgspec.Struct, frozen=True):
    """An export as it was when this claimant took it."""

    uuid: UUID
    webshop_uuid: UUID
    name: str
    file_type: str
    request: str
    attempts: int  # this one included: the token of everything it writes

    @property
    def path(self) -> str:
        """Where this attempt's file lies."""
        return path_of(self.webshop_uuid, self.uuid, self.attempts, self.name)


def path_of(webshop_uuid: UUID, export_uuid: UUID, attempt: int, name: str) -> str:
    """Where the file of one attempt lies: no two ever write the same object."""
    return f"{folder(webshop_uuid, export_uuid)}{attempt}/{name}"


def folder(webshop_uuid: UUID, export_uuid: UUID) -> str:
    """Where the files of all attempts at an export lie."""
    return f"exports/{webshop_uuid}/{export_uuid}/"


def now(plus_seconds: int = 0) -> ColumnElement[datetime]:
    """The database's clock: the only one that leases are measured by."""
    return func.clock_timestamp() + timedelta(seconds=plus_seconds)


def changed(**values: object) -> dict[str, Any]:
    """`values`, and what goes with every change that the history shows."""
    return {"version": exports.c.version + 1, "updated_at": now(), "history_due_at": now(WAKE_AFTER_SECONDS), **values}


def record(row: Row[Any] | RowMapping) -> ExportHistory:
    """The history's record of a row."""
    return msgspec.convert(row if isinstance(row, RowMapping) else row._mapping, ExportHistory, from_attributes=True)


def add(service: Connection, wanted: NewExport) -> ExportHistory | None:
    """Adds an export that waits to be claimed; None when there is one of its idempotency key already."""
    statement = (
        insert(exports)
        .values(
            **msgspec.structs.asdict(wanted),
            status=Status.PENDING,
            wake_at=now(WAKE_AFTER_SECONDS),
            history_due_at=now(WAKE_AFTER_SECONDS),
        )
        .on_conflict_do_nothing()
        .returning(*HISTORY)
    )
    row = service.execute(statement).one_or_none()
    return record(row) if row else None


def claim(service: Connection, export_uuid: UUID) -> tuple[Claim, ExportHistory]:
    """Takes the export for LEASE_SECONDS.

    Raises NothingToDo when the export cannot be claimed: it is unknown, final, tried often enough, or another
    worker's lease is still running. If that one dies, sweep brings the export back.
    """
    statement = (
        update(exports)
        .where(
            exports.c.uuid == export_uuid,
            exports.c.status.in_(UNFINISHED),
            exports.c.attempts < MAX_ATTEMPTS,
            func.coalesce(exports.c.lease_until, now()) <= now(),
        )
        .values(
            **changed(
                status=Status.RENDERING,
                attempts=exports.c.attempts + 1,
                lease_until=now(LEASE_SECONDS),
                progress_rows=0,
            )
        )
        .returning(exports)
    )
    row = service.execute(statement).mappings().one_or_none()
    if row is None:
        raise NothingToDo(f"export {export_uuid} is not to be claimed")
    return msgspec.convert(row, Claim, from_attributes=True), record(row)


def renew(service: Connection, held: Claim, rows: int) -> None:
    """Renews the lease and says how many rows are written. Raises NothingToDo when it is somebody else's, or over."""
    statement = update(exports).where(*held_by(held)).values(lease_until=now(LEASE_SECONDS), progress_rows=rows)
    if service.execute(statement).rowcount == 0:
        raise NothingToDo(f"attempt {held.attempts} at export {held.uuid} is over")


def back_off(service: Connection, held: Claim) -> None:
    """Lets the next claimant in after 2, 4, 8, 16 seconds, so that a passing fault does not use up the attempts."""
    seconds = min(2**held.attempts, LEASE_SECONDS)
    statement = update(exports).where(*held_by(held)).values(lease_until=now(seconds), wake_at=now(seconds))
    service.execute(statement)


def complete(service: Connection, held: Claim, rows: int, size_bytes: int, file_uri: str) -> ExportHistory:
    """Completes the export with the file of this attempt.

    Raises NothingToDo when it was deleted, or is somebody else's or over: then nobody needs that file.
    """
    statement = (
        update(exports)
        .where(*held_by(held), exports.c.deleted_at.is_(None))
        .values(
            **over(Status.COMPLETED),
            rows=rows,
            progress_rows=rows,
            size_bytes=size_bytes,
            file_uri=file_uri,
            # An earlier attempt may have left a file.
            tidy_at=now(TIDY_AFTER_SECONDS) if held.attempts > 1 else None,
        )
        .returning(*HISTORY)
    )
    row = service.execute(statement).one_or_none()
    if row is None:
        raise NothingToDo(f"attempt {held.attempts} at export {held.uuid} is over")
    return record(row)


def fail(service: Connection, held: Claim, error: str) -> ExportHistory | None:
    """Ends the export without a file, `error` being a sentence for its merchant; None when the attempt was over."""
    statement = update(exports).where(*held_by(held)).values(**failed(error)).returning(*HISTORY)
    row = service.execute(statement).one_or_none()
    return record(row) if row else None


def delete(service: Connection, webshop_uuid: UUID, export_uuid: UUID) -> ExportHistory | None:
    """Deletes the export, and ends it when it was not finished; None when the webshop has none of that uuid.

    Its row and its history stay. Its files are for the caller to remove; sweep does it too, later.
    """
    unfinished = exports.c.status.in_(UNFINISHED)
    statement = (
        update(exports)
        .where(exports.c.uuid == export_uuid, exports.c.webshop_uuid == webshop_uuid, exports.c.deleted_at.is_(None))
        .values(
            **changed(
                deleted_at=now(),
                file_uri=None,
                tidy_at=now(TIDY_AFTER_SECONDS),
                status=case((unfinished, Status.FAILED.value), else_=exports.c.status),
                error=case((unfinished, "It was deleted before it was finished."), else_=exports.c.error),
                finished_at=func.coalesce(exports.c.finished_at, now()),
                lease_until=None,
            )
        )
        .returning(*HISTORY)
    )
    row = service.execute(statement).one_or_none()
    return record(row) if row else None


def give_up(service: Connection) -> list[ExportHistory]:
    """Ends the exports that nobody works on and that have had their attempts, or their time."""
    old = exports.c.created_at < now(-MAX_AGE_HOURS * 3600)
    sentence = (
        f"It was tried {MAX_ATTEMPTS} times, or for {MAX_AGE_HOURS} hours, and could not be finished. Ask for it"
        " again; if that fails too, ask for fewer rows or columns, or tell us the number of this export."
    )
    statement = (
        update(exports)
        .where(exports.c.uuid.in_(asleep(or_(exports.c.attempts >= MAX_ATTEMPTS, old))))
        .values(**failed(sentence))
        .returning(*HISTORY)
    )
    return [record(row) for row in service.execute(statement)]


def wake(service: Connection) -> list[ExportRequest]:
    """The exports that nobody works on; each is returned once in WAKE_AFTER_SECONDS."""
    statement = (
        update(exports)
        .where(exports.c.uuid.in_(asleep(exports.c.attempts < MAX_ATTEMPTS)))
        .values(wake_at=now(WAKE_AFTER_SECONDS))
        .returning(exports.c.webshop_uuid, exports.c.uuid)
    )
    return [ExportRequest(*row) for row in service.execute(statement)]


def expire(service: Connection, retention_days: int) -> list[ExportHistory]:
    """Ends the exports whose files are kept no longer; sweep removes the files."""
    old = (
        select(exports.c.uuid)
        .where(exports.c.file_uri.is_not(None), exports.c.finished_at <= now(-retention_days * 24 * 3600))
        .order_by(exports.c.finished_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(exports)
        .where(exports.c.uuid.in_(old))
        .values(**changed(status=Status.EXPIRED, file_uri=None, tidy_at=now()))
        .returning(*HISTORY)
    )
    return [record(row) for row in service.execute(statement)]


def behind_in_history(service: Connection) -> list[ExportHistory]:
    """The exports whose history is late; each is returned once in WAKE_AFTER_SECONDS."""
    late = (
        select(exports.c.uuid)
        .where(exports.c.history_due_at <= now())
        .order_by(exports.c.history_due_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(exports)
        .where(exports.c.uuid.in_(late))
        .values(history_due_at=now(WAKE_AFTER_SECONDS))
        .returning(*HISTORY)
    )
    return [record(row) for row in service.execute(statement)]


def held_by(held: Claim) -> tuple[ColumnElement[bool], ...]:
    """What every write of an attempt is bound to."""
    return (exports.c.uuid == held.uuid, exports.c.attempts == held.attempts, exports.c.status == Status.RENDERING)


def over(status: Status) -> dict[str, Any]:
    """What goes with a final state."""
    return changed(status=status, lease_until=None, finished_at=now())


def failed(error: str) -> dict[str, Any]:
    """What goes with a failure: a file may be there all the same, of an attempt that died."""
    return {**over(Status.FAILED), "error": error, "tidy_at": now(TIDY_AFTER_SECONDS)}


def asleep(condition: ColumnElement[bool]) -> Any:
    """The unfinished exports under `condition` that nobody works on, as a query of their uuids that locks them."""
    nobody_works_on_it = or_(exports.c.lease_until.is_(None), exports.c.lease_until <= now())
    return (
        select(exports.c.uuid)
        .where(and_(exports.c.status.in_(UNFINISHED), exports.c.wake_at <= now(), nobody_works_on_it, condition))
        .order_by(exports.c.wake_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
