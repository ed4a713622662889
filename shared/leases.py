"""Leased jobs: rows of any table that one worker at a time processes.

A claim gives a worker the lease of a row until a time on the database's clock, counts the attempt and raises the
fencing token. A write of the worker has an effect only while the row has that token and a state that allows the write,
so a worker cannot overwrite the work of the next one. If a worker dies, its lease ends and sweep requeues the job.

Each feature's `jobs.py` describes the states and columns of its table. Nothing here depends on what a job does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, Self
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import NothingToDo

log = logging.getLogger(__name__)

DATABASE_ERRORS = (SQLAlchemyError, OSError)  # pg8000 raises a bare OSError when the first read of a connection fails

LEASE_SECONDS = 30  # many times RENEW_SECONDS, and not long to wait after a worker has died
REQUEUE_AFTER_SECONDS = 10  # twice the time that a message takes through a busy Kafka and Pub/Sub
# A worker renews its lease before it publishes a file, so two leases later no earlier attempt can still publish one.
ORPHANED_AFTER_SECONDS = 2 * LEASE_SECONDS
MAX_ROWS_PER_SWEEP = 500  # of each kind; the next sweep continues with the others

RENEW_SECONDS = 1.0  # between two renewals by a LeaseKeeper; each saves the progress that a merchant watches
# After this time without progress a LeaseKeeper stops renewing: longer than the time-out of a database connection.
MAX_STALL_SECONDS = 120


class Claim(Protocol):
    """A job as it was when a worker claimed it.

    It has a field for each column that its LeasedTable names in `token` and `fence`.
    """

    @property
    def uuid(self) -> UUID:
        """The key of the job's row."""

    @property
    def attempts_so_far(self) -> int:
        """The number of claims that count towards giving up, this one included."""


def now(plus_seconds: float = 0) -> ColumnElement[datetime]:
    """Returns the time `plus_seconds` from now on the database's clock, the only clock that leases use."""
    return func.clock_timestamp() + timedelta(seconds=plus_seconds)


@dataclass(frozen=True)
class LeasedTable:
    """A table of jobs. Besides the columns named here it has uuid, status, lease_until, wake_at and finished_at."""

    table: Table
    claimable: tuple[str, ...]  # states in which a worker may claim a job
    unfinished: tuple[str, ...]  # states that are not final
    working: str | None = None  # the state that a claim sets; None: a claim leaves the state as it is
    token: str = "attempts"  # the column of the fencing token, which rises with every claim  # noqa: S105
    attempts: str = "attempts"  # the column that counts claims towards max_attempts
    fence: tuple[str, ...] = ()  # more columns that must still have the claim's values when it writes
    max_attempts: int | None = None  # with so many a job cannot be claimed again; None: the worker decides
    on_write: Mapping[str, Any] = field(default_factory=dict)  # more columns that each write sets, except requeueing

    def claim(
        self,
        conn: Connection,
        uuid: UUID,
        *conditions: ColumnElement[bool],
        returning: Sequence[ColumnElement[Any]],
        **values: Any,
    ) -> Row[Any]:
        """Claims a job for LEASE_SECONDS, sets `values`, and returns the columns `returning` of its row.

        Raises NothingToDo when the job cannot be claimed: it does not exist, is in another state, has used up its
        attempts, does not meet `conditions`, or another worker's lease has not ended.
        """
        columns = self.table.c
        where = [
            columns.uuid == uuid,
            columns.status.in_(self.claimable),
            func.coalesce(columns.lease_until, now()) <= now(),
            *conditions,
        ]
        if self.max_attempts is not None:
            where.append(columns[self.attempts] < self.max_attempts)
        claimed: dict[str, Any] = {name: columns[name] + 1 for name in {self.token, self.attempts}}
        if self.working is not None:
            claimed["status"] = self.working
        claimed["lease_until"] = now(LEASE_SECONDS)
        statement = update(self.table).where(*where).values({**self.on_write, **claimed, **values})
        row = conn.execute(statement.returning(*returning)).one_or_none()
        if row is None:
            raise NothingToDo(f"{self.table.name} {uuid} cannot be claimed")
        return row

    def write(
        self,
        conn: Connection,
        claim: Claim,
        *conditions: ColumnElement[bool],
        states: Sequence[str] = (),
        returning: Sequence[ColumnElement[Any]] = (),
        **values: Any,
    ) -> Row[Any]:
        """Writes `values` to the row of a claim and returns its columns `returning`.

        Raises NothingToDo when another worker has claimed the job since, or when the job is not in one of `states` (by
        default the state that a claim leaves it in) or does not meet `conditions`.
        """
        columns = self.table.c
        allowed = states or ((self.working,) if self.working else self.claimable)
        fence = [columns[name] == getattr(claim, name) for name in (self.token, *self.fence)]
        statement = (
            update(self.table)
            .where(columns.uuid == claim.uuid, *fence, columns.status.in_(allowed), *conditions)
            .values({**self.on_write, **values})
            .returning(*(returning or (columns.uuid,)))
        )
        row = conn.execute(statement).one_or_none()
        if row is None:
            raise NothingToDo(f"the claim of {self.table.name} {claim.uuid} has ended")
        return row

    def renew(self, conn: Connection, claim: Claim, **values: Any) -> None:
        """Renews the lease for LEASE_SECONDS and writes `values`. Raises NothingToDo when the lease was lost."""
        self.write(conn, claim, **{"lease_until": now(LEASE_SECONDS), **values})

    def back_off(self, conn: Connection, claim: Claim, **values: Any) -> None:
        """Shortens the lease to 2, 4, 8 or 16 seconds, twice as long with every attempt, then to LEASE_SECONDS.

        A short fault thus costs seconds, and a long one does not use up all attempts within a minute. Raises
        NothingToDo when the lease was lost.
        """
        until = now(min(2**claim.attempts_so_far, LEASE_SECONDS))
        self.write(conn, claim, lease_until=until, wake_at=until, **values)

    def back_off_if_possible(self, service_db: Engine, claim: Claim, **values: Any) -> None:
        """Backs off in a separate transaction. If that fails, the next attempt waits until the lease ends."""
        try:
            with service_db.begin() as conn:
                self.back_off(conn, claim, **values)
        except (NothingToDo, *DATABASE_ERRORS):
            log.warning("The lease of %s %s could not be shortened", self.table.name, claim.uuid, exc_info=True)

    def finish(
        self,
        conn: Connection,
        claim: Claim,
        status: str,
        *conditions: ColumnElement[bool],
        states: Sequence[str] = (),
        returning: Sequence[ColumnElement[Any]] = (),
        **values: Any,
    ) -> Row[Any]:
        """Ends the job in `status`. Raises NothingToDo as `write` does."""
        final = {**self.final_values(status), **values}
        return self.write(conn, claim, *conditions, states=states, returning=returning, **final)

    def final_values(self, status: str) -> dict[str, Any]:
        """Returns the values of every final state: no lease, the time, and a new token unless it counts attempts."""
        values: dict[str, Any] = {"status": status, "lease_until": None, "finished_at": now()}
        if self.token != self.attempts:  # else only the state fences workers off
            values[self.token] = self.table.c[self.token] + 1
        return values

    def requeue_stalled(
        self, conn: Connection, *conditions: ColumnElement[bool], returning: Sequence[ColumnElement[Any]]
    ) -> Sequence[Row[Any]]:
        """Postpones `wake_at` of the stalled jobs that can be claimed, and returns their columns `returning`.

        The caller sends their messages. Each job is returned at most once in REQUEUE_AFTER_SECONDS.
        """
        may_be_claimed = [self.table.c.status.in_(self.claimable), *conditions]
        if self.max_attempts is not None:
            may_be_claimed.append(self.table.c[self.attempts] < self.max_attempts)
        statement = update(self.table).where(self.table.c.uuid.in_(self._find_stalled(*may_be_claimed)))
        return conn.execute(statement.values(wake_at=now(REQUEUE_AFTER_SECONDS)).returning(*returning)).all()

    def finish_stalled(
        self,
        conn: Connection,
        status: str,
        *conditions: ColumnElement[bool],
        returning: Sequence[ColumnElement[Any]],
        **values: Any,
    ) -> Sequence[Row[Any]]:
        """Ends the stalled jobs that meet `conditions`, and returns the columns `returning` of their rows."""
        statement = update(self.table).where(self.table.c.uuid.in_(self._find_stalled(*conditions)))
        final = {**self.on_write, **self.final_values(status), **values}
        return conn.execute(statement.values(final).returning(*returning)).all()

    def _find_stalled(self, *conditions: ColumnElement[bool]) -> Select[tuple[UUID]]:
        """Selects and locks the unfinished jobs without a live lease whose `wake_at` has come, earliest first."""
        columns = self.table.c
        return (
            select(columns.uuid)
            .where(
                columns.status.in_(self.unfinished),
                columns.wake_at <= now(),
                or_(columns.lease_until.is_(None), columns.lease_until <= now()),
                *conditions,
            )
            .order_by(columns.wake_at)
            .limit(MAX_ROWS_PER_SWEEP)
            .with_for_update(skip_locked=True)
        )


class LeaseKeeper:
    """Renews a lease from its own thread while a long step runs: the first row of a large sort may take a minute."""

    def __init__(self, service_db: Engine, renew: Callable[[Connection, int], None]) -> None:
        """`renew` renews the lease and saves the progress, in rows. It raises NothingToDo when the lease was lost."""
        self._service_db = service_db
        self._renew = renew
        self._rows = 0
        self._progressed_at = time.monotonic()
        self._lost: NothingToDo | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def report(self, rows: int) -> None:
        """Reports the number of rows that are done. Raises NothingToDo when the lease was lost."""
        if rows != self._rows:
            self._rows, self._progressed_at = rows, time.monotonic()
        if self._lost:
            raise self._lost

    def renew(self) -> None:
        """Renews the lease now. Raises NothingToDo when it was lost."""
        with self._service_db.begin() as conn:
            self._renew(conn, self._rows)

    def _run(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            if time.monotonic() - self._progressed_at > MAX_STALL_SECONDS:
                log.error("No progress for %s s: the lease is not renewed any more", MAX_STALL_SECONDS)
                return
            try:
                self.renew()
            except NothingToDo as lost:
                self._lost = lost
                return
            except DATABASE_ERRORS:
                log.warning("A lease was not renewed", exc_info=True)
