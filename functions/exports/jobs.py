"""An export as a job: its row, its claim, and its transitions.

The number of the attempt is the fencing token. Each change that the history shows raises the row's version, and is
returned as the message to send. Sweep sends the message again until the history has that version.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from functions.exports.states import MAX_ATTEMPTS, UNFINISHED, Status
from shared.leases import MAX_ROWS_PER_SWEEP, ORPHANED_AFTER_SECONDS, REQUEUE_AFTER_SECONDS, LeasedTable, now
from shared.messages import ExportHistory, ExportRequest
from shared.tables.service import exports

MAX_AGE_HOURS = 24  # of an unfinished export, also if no worker ever claimed it: by then no merchant waits for it

EXPORTS = LeasedTable(
    exports, claimable=UNFINISHED, unfinished=UNFINISHED, working=Status.RENDERING, max_attempts=MAX_ATTEMPTS
)
HISTORY_COLUMNS = tuple(exports.c[name] for name in ExportHistory.__struct_fields__)


class NewExport(msgspec.Struct, frozen=True):
    """A new export, to be inserted."""

    uuid: UUID
    webshop_uuid: UUID
    user_uuid: UUID
    name: str  # of the file, safe as a part of a path
    source: str
    file_type: str
    request: str  # CreateExport as JSON
    idempotency_key: str | None


class ExportClaim(msgspec.Struct, frozen=True):
    """An export as it was when this worker claimed it."""

    uuid: UUID
    webshop_uuid: UUID
    name: str
    file_type: str
    request: str
    attempts: int  # this one included: the fencing token

    @property
    def attempts_so_far(self) -> int:
        """See shared.leases.Claim."""
        return self.attempts

    @property
    def path(self) -> str:
        """The path of this attempt's file in the bucket."""
        return file_path(self.webshop_uuid, self.uuid, self.attempts, self.name)


def file_path(webshop_uuid: UUID, export_uuid: UUID, attempt: int, name: str) -> str:
    """Returns the path of one attempt's file. Two attempts never write the same object."""
    return f"{folder_path(webshop_uuid, export_uuid)}{attempt}/{name}"


def folder_path(webshop_uuid: UUID, export_uuid: UUID) -> str:
    """Returns the folder that holds the files of all attempts of an export."""
    return f"exports/{webshop_uuid}/{export_uuid}/"


def insert_export(conn: Connection, export: NewExport) -> ExportHistory | None:
    """Inserts a pending export. Returns None if an export with its idempotency key exists."""
    statement = (
        insert(exports)
        .values(
            **msgspec.structs.asdict(export),
            status=Status.PENDING,
            wake_at=now(REQUEUE_AFTER_SECONDS),
            history_due_at=now(REQUEUE_AFTER_SECONDS),
        )
        .on_conflict_do_nothing()
        .returning(*HISTORY_COLUMNS)
    )
    row = conn.execute(statement).one_or_none()
    return to_history(row) if row else None


def claim_export(conn: Connection, export_uuid: UUID) -> tuple[ExportClaim, ExportHistory]:
    """Claims the export. Returns the claim and the history record of this change.

    Raises NothingToDo when the export cannot be claimed.
    """
    row = EXPORTS.claim(conn, export_uuid, returning=tuple(exports.c), **history_change(progress_rows=0))
    return msgspec.convert(row, ExportClaim, from_attributes=True), to_history(row)


def renew_lease(conn: Connection, claim: ExportClaim, progress_rows: int) -> None:
    """Renews the lease and saves the number of rows written so far. Raises NothingToDo when the lease was lost."""
    EXPORTS.renew(conn, claim, progress_rows=progress_rows)


def complete_export(conn: Connection, claim: ExportClaim, rows: int, size_bytes: int, file_uri: str) -> ExportHistory:
    """Completes the export with the file of this attempt.

    Raises NothingToDo when the export was deleted or the lease was lost: then nothing needs the file.
    """
    values = history_change(
        rows=rows,
        progress_rows=rows,
        size_bytes=size_bytes,
        file_uri=file_uri,
        # A worker that died in an earlier attempt may have left a file.
        tidy_at=now(ORPHANED_AFTER_SECONDS) if claim.attempts > 1 else None,
    )
    not_deleted = exports.c.deleted_at.is_(None)
    row = EXPORTS.finish(conn, claim, Status.COMPLETED, not_deleted, returning=HISTORY_COLUMNS, **values)
    return to_history(row)


def fail_export(conn: Connection, claim: ExportClaim, error: str) -> ExportHistory:
    """Ends the export as FAILED. `error` is a sentence for the merchant. Raises NothingToDo when the lease was lost."""
    values = failure_values(error)
    return to_history(EXPORTS.finish(conn, claim, Status.FAILED, returning=HISTORY_COLUMNS, **values))


def delete_export(conn: Connection, webshop_uuid: UUID, export_uuid: UUID) -> ExportHistory | None:
    """Marks the export as deleted, and as FAILED if it was not finished.

    Returns None if the webshop has no such export. The row and its history stay. The caller deletes the files; sweep
    does so later if that fails.
    """
    unfinished = exports.c.status.in_(UNFINISHED)
    statement = (
        update(exports)
        .where(exports.c.uuid == export_uuid, exports.c.webshop_uuid == webshop_uuid, exports.c.deleted_at.is_(None))
        .values(
            **history_change(
                deleted_at=now(),
                file_uri=None,
                tidy_at=now(ORPHANED_AFTER_SECONDS),
                status=case((unfinished, Status.FAILED.value), else_=exports.c.status),
                error=case((unfinished, "The export was deleted before it was finished."), else_=exports.c.error),
                finished_at=func.coalesce(exports.c.finished_at, now()),
                lease_until=None,
            )
        )
        .returning(*HISTORY_COLUMNS)
    )
    row = conn.execute(statement).one_or_none()
    return to_history(row) if row else None


def give_up_stalled(conn: Connection) -> list[ExportHistory]:
    """Ends the stalled exports that have used up their attempts or are too old, and returns their records."""
    is_given_up = or_(exports.c.attempts >= MAX_ATTEMPTS, exports.c.created_at < now(-MAX_AGE_HOURS * 3600))
    error = (
        f"The export could not be finished in {MAX_ATTEMPTS} attempts or {MAX_AGE_HOURS} hours. Request it again. If"
        " that fails too, request fewer rows or columns, or contact support with the uuid of this export."
    )
    values = failure_values(error)
    rows = EXPORTS.finish_stalled(conn, Status.FAILED, is_given_up, returning=HISTORY_COLUMNS, **values)
    return list(map(to_history, rows))


def requeue_stalled(conn: Connection) -> list[ExportRequest]:
    """Returns the messages that requeue the stalled exports, each at most once in REQUEUE_AFTER_SECONDS."""
    rows = EXPORTS.requeue_stalled(conn, returning=(exports.c.webshop_uuid, exports.c.uuid))
    return [ExportRequest(row.webshop_uuid, row.uuid) for row in rows]


def expire_exports(conn: Connection, retention_days: int) -> list[ExportHistory]:
    """Marks exports as EXPIRED after the retention, and returns their records. Sweep deletes their files later."""
    expired = (
        select(exports.c.uuid)
        .where(exports.c.file_uri.is_not(None), exports.c.finished_at <= now(-retention_days * 24 * 3600))
        .order_by(exports.c.finished_at)
        .limit(MAX_ROWS_PER_SWEEP)
        .with_for_update(skip_locked=True)
    )
    values = history_change(status=Status.EXPIRED, file_uri=None, tidy_at=now())
    statement = update(exports).where(exports.c.uuid.in_(expired)).values(**values).returning(*HISTORY_COLUMNS)
    return list(map(to_history, conn.execute(statement)))


def requeue_late_history(conn: Connection) -> list[ExportHistory]:
    """Returns the records that the history still lacks, each at most once in REQUEUE_AFTER_SECONDS."""
    late = (
        select(exports.c.uuid)
        .where(exports.c.history_due_at <= now())
        .order_by(exports.c.history_due_at)
        .limit(MAX_ROWS_PER_SWEEP)
        .with_for_update(skip_locked=True)
    )
    statement = update(exports).where(exports.c.uuid.in_(late)).values(history_due_at=now(REQUEUE_AFTER_SECONDS))
    return list(map(to_history, conn.execute(statement.returning(*HISTORY_COLUMNS))))


def history_change(**values: Any) -> dict[str, Any]:
    """Returns `values` together with the columns that every change sets which the history shows."""
    change = {"version": exports.c.version + 1, "updated_at": now(), "history_due_at": now(REQUEUE_AFTER_SECONDS)}
    return {**change, **values}


def failure_values(error: str) -> dict[str, Any]:
    """Returns the columns that a failure sets. Sweep looks for files, which a worker that died may have left."""
    return history_change(error=error, tidy_at=now(ORPHANED_AFTER_SECONDS))


def to_history(row: Row[Any]) -> ExportHistory:
    """Returns the history record of a row."""
    return msgspec.convert(row, ExportHistory, from_attributes=True)
