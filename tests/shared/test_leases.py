"""The engine of leased jobs, shared/leases.py: every table that uses it keeps the same contract."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import Connection, Engine, insert, select, text, update

from functions.buy_orders import states as delivery_states
from functions.buy_orders.jobs import DELIVERIES, DeliveryClaim
from functions.exports import states as export_states
from functions.exports.jobs import EXPORTS, ExportClaim
from functions.imports import states as import_states
from functions.imports.jobs import IMPORTS, ImportClaim
from shared import leases
from shared.clients.databases import connect_to
from shared.errors import NothingToDo
from shared.leases import LEASE_SECONDS, MAX_STALL_SECONDS, REQUEUE_AFTER_SECONDS, LeasedTable, LeaseKeeper, now
from shared.settings import DatabaseSettings
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Databases, PostgresServer

    AnyClaim = ImportClaim | ExportClaim | DeliveryClaim

PENDING_IMPORT = {
    "file_name": "products.csv",
    "object_path": "imports/products.csv",
    "generation": 1,
    "size_bytes": 1,
    "operation": "UPDATE",
    "on_error": "partial",
    "status": "IN_QUEUE",
}
PENDING_EXPORT = {"name": "products", "source": "products", "file_type": "CSV", "request": "{}"}


@dataclass(frozen=True)
class Jobs:
    """The jobs of one table in a real database."""

    table: LeasedTable
    claim_type: type[AnyClaim]
    pending_values: Mapping[str, object]  # of a new job, besides those that `insert` makes
    uuid_columns: tuple[str, ...]  # each new job gets a uuid of its own in them: a webshop has one active import
    failed_status: str
    failed_values: Mapping[str, Any]  # what the table's constraints demand of a failed job
    service_db: Engine

    def insert(self, **values: object) -> UUID:
        """Inserts a job that may be claimed now and that sweep may requeue now."""
        uuid = uuid4()
        uuids = {name: uuid4() for name in self.uuid_columns}
        due = {"wake_at": now(-60)}
        statement = insert(self.table.table).values({**self.pending_values, **uuids, **due, **values, "uuid": uuid})
        with self.service_db.begin() as conn:
            conn.execute(statement)
        return uuid

    def claim(self, uuid: UUID, conn: Connection | None = None) -> AnyClaim:
        """Claims a job, in a transaction of its own unless `conn` is given."""
        if conn is None:
            with self.service_db.begin() as own_conn:
                return self.claim(uuid, own_conn)
        row = self.table.claim(conn, uuid, returning=tuple(self.table.table.c))
        return msgspec.convert(row, self.claim_type, from_attributes=True)

    def finish(self, claim: AnyClaim) -> None:
        """Fails the job of a claim."""
        with self.service_db.begin() as conn:
            self.table.finish(conn, claim, self.failed_status, **self.failed_values)

    def change(self, uuid: UUID, **values: object) -> None:
        """Changes a row without the engine."""
        with self.service_db.begin() as conn:
            conn.execute(update(self.table.table).where(self.table.table.c.uuid == uuid).values(values))

    def end_lease(self, uuid: UUID) -> None:
        """Moves the end of a job's lease, and the time at which sweep requeues it, into the past."""
        self.change(uuid, lease_until=now(-60), wake_at=now(-60))

    def row(self, uuid: UUID) -> dict[str, Any]:
        with self.service_db.begin() as conn:
            return dict(conn.execute(select(self.table.table).where(self.table.table.c.uuid == uuid)).mappings().one())

    def requeue(self, conn: Connection) -> list[UUID]:
        return [row.uuid for row in self.table.requeue_stalled(conn, returning=(self.table.table.c.uuid,))]

    def fail_stalled(self, conn: Connection) -> list[UUID]:
        rows = self.table.finish_stalled(
            conn, self.failed_status, returning=(self.table.table.c.uuid,), **self.failed_values
        )
        return [row.uuid for row in rows]

    def requeue_now(self) -> list[UUID]:
        """Requeues what is stalled, in a transaction of its own."""
        with self.service_db.begin() as conn:
            return self.requeue(conn)


def imports_in(service_db: Engine) -> Jobs:
    return Jobs(
        IMPORTS,
        ImportClaim,
        PENDING_IMPORT,
        ("webshop_uuid",),
        import_states.Status.FAILED_UNEXPECTEDLY,
        {"reason": "The test failed it."},
        service_db,
    )


def exports_in(service_db: Engine) -> Jobs:
    return Jobs(
        EXPORTS,
        ExportClaim,
        PENDING_EXPORT,
        ("webshop_uuid", "user_uuid"),
        export_states.Status.FAILED,
        {"error": "The test failed it."},
        service_db,
    )


def deliveries_in(service_db: Engine) -> Jobs:
    return Jobs(
        DELIVERIES,
        DeliveryClaim,
        {"request": "{}"},
        ("webshop_uuid", "buy_order_uuid"),
        delivery_states.Status.FAILED,
        {"reason": "The test failed it."},
        service_db,
    )


EVERY_TABLE = (
    pytest.param(imports_in, id="imports"),
    pytest.param(exports_in, id="exports"),
    pytest.param(deliveries_in, id="deliveries"),
)
WITH_LIMIT = EVERY_TABLE[1:]  # tables whose jobs are not claimed again after max_attempts


@pytest.fixture(scope="module")
def shared_service_db(postgres: PostgresServer, database_templates: Databases) -> Iterator[Engine]:
    """A service database for the tests here: one copy, because a copy of all three per test would take minutes."""
    assert database_templates.service_url
    engine = connect_to("TEST", DatabaseSettings(url=postgres.create("leases", "service_template")), 8)
    yield engine
    engine.dispose()
    postgres.drop("leases")


@pytest.fixture
def service_db(shared_service_db: Engine) -> Engine:
    """The service database, without jobs."""
    with shared_service_db.begin() as conn:
        conn.execute(text("truncate imports, exports, buy_order_sends cascade"))
    return shared_service_db


@pytest.fixture(params=EVERY_TABLE)
def jobs(request: pytest.FixtureRequest, service_db: Engine) -> Jobs:
    """The jobs of each table in turn."""
    jobs_of_table: Jobs = request.param(service_db)
    return jobs_of_table


@contextmanager
def database_times(conn: Connection) -> Iterator[list[datetime]]:
    """Reads the database's clock at the beginning and at the end of a block. The list holds both times afterwards."""
    times: list[datetime] = [conn.execute(select(now())).scalar_one()]
    yield times
    times.append(conn.execute(select(now())).scalar_one())


def assert_lasts(until: datetime, seconds: float, times: list[datetime]) -> None:
    """Checks that `until` is `seconds` after a moment between two times."""
    assert times[0] <= until - timedelta(seconds=seconds) <= times[1]


# Claims


def test_a_claim_takes_the_lease_raises_the_fencing_token_and_counts_the_attempt(jobs: Jobs) -> None:
    """All of it is one statement: there is no moment in which a job is claimed and not fenced."""
    uuid = jobs.insert()
    before = jobs.row(uuid)

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        claim = jobs.claim(uuid, conn)

    after = jobs.row(uuid)
    assert after[jobs.table.token] == before[jobs.table.token] + 1 == getattr(claim, jobs.table.token)
    assert after[jobs.table.attempts] == before[jobs.table.attempts] + 1 == claim.attempts_so_far
    assert after["status"] == (jobs.table.working or before["status"])
    assert_lasts(after["lease_until"], LEASE_SECONDS, times)


def test_a_job_with_a_live_lease_is_not_claimed(jobs: Jobs) -> None:
    """One worker at a time: the second delivery has nothing to do, and does not disturb the first."""
    uuid = jobs.insert()
    jobs.claim(uuid)
    before = jobs.row(uuid)

    with pytest.raises(NothingToDo):
        jobs.claim(uuid)

    assert jobs.row(uuid) == before


def test_only_one_of_two_workers_that_claim_at_once_gets_the_job(jobs: Jobs) -> None:
    """The second claim waits for the row, sees the lease of the first, and has nothing to do."""
    uuid = jobs.insert()

    with ThreadPoolExecutor(1) as threads:
        with jobs.service_db.begin() as conn:
            jobs.claim(uuid, conn)
            second = threads.submit(jobs.claim, uuid)
            wait_until(lambda: waits_for_a_row(jobs.service_db), "the second claim to wait for the row")

        with pytest.raises(NothingToDo):
            second.result()

    assert jobs.row(uuid)[jobs.table.attempts] == 1


def waits_for_a_row(service_db: Engine) -> bool:
    """Whether a session of this database waits for a lock."""
    statement = "select count(*) > 0 from pg_stat_activity where datname = current_database() and wait_event_type = :w"
    with service_db.connect() as conn:
        return bool(conn.execute(text(statement), {"w": "Lock"}).scalar_one())


def test_an_ended_lease_can_be_claimed_again(jobs: Jobs) -> None:
    """A worker that died holds up its job for one lease only."""
    uuid = jobs.insert()
    first = jobs.claim(uuid)
    jobs.end_lease(uuid)

    second = jobs.claim(uuid)

    assert getattr(second, jobs.table.token) == getattr(first, jobs.table.token) + 1
    assert second.attempts_so_far == first.attempts_so_far + 1


def test_an_unknown_job_is_not_claimed(jobs: Jobs) -> None:
    """A message can name a job that does not exist."""
    jobs.insert()

    with pytest.raises(NothingToDo):
        jobs.claim(uuid4())


def test_a_claim_that_misses_a_condition_changes_nothing(jobs: Jobs) -> None:
    """A feature adds its own conditions: the run of an import, the webshop of a delivery."""
    uuid = jobs.insert()
    before = jobs.row(uuid)

    with jobs.service_db.begin() as conn, pytest.raises(NothingToDo):
        jobs.table.claim(conn, uuid, jobs.table.table.c.webshop_uuid == uuid4(), returning=(jobs.table.table.c.uuid,))

    assert jobs.row(uuid) == before


@pytest.mark.parametrize("jobs", WITH_LIMIT, indirect=True)
def test_a_job_without_attempts_left_is_not_claimed(jobs: Jobs) -> None:
    """The last attempt is claimed, and none after it."""
    assert jobs.table.max_attempts
    uuid = jobs.insert(**{jobs.table.attempts: jobs.table.max_attempts - 1})
    jobs.claim(uuid)
    jobs.end_lease(uuid)

    with pytest.raises(NothingToDo):
        jobs.claim(uuid)

    assert jobs.row(uuid)[jobs.table.attempts] == jobs.table.max_attempts


# Writes


def write(jobs: Jobs, conn: Connection, claim: AnyClaim) -> None:
    jobs.table.write(conn, claim, lease_until=None)


def renew(jobs: Jobs, conn: Connection, claim: AnyClaim) -> None:
    jobs.table.renew(conn, claim)


def back_off(jobs: Jobs, conn: Connection, claim: AnyClaim) -> None:
    jobs.table.back_off(conn, claim)


def finish(jobs: Jobs, conn: Connection, claim: AnyClaim) -> None:
    jobs.table.finish(conn, claim, jobs.failed_status, **jobs.failed_values)


EVERY_WRITE = (
    pytest.param(write, id="write"),
    pytest.param(renew, id="renew"),
    pytest.param(back_off, id="back_off"),
    pytest.param(finish, id="finish"),
)


@pytest.mark.parametrize("operation", EVERY_WRITE)
def test_a_worker_whose_lease_was_taken_over_changes_nothing(
    jobs: Jobs, operation: Callable[[Jobs, Connection, AnyClaim], None]
) -> None:
    """A worker may be paused for minutes and continue: the token of its claim is too low by then."""
    uuid = jobs.insert()
    lost = jobs.claim(uuid)
    jobs.end_lease(uuid)
    jobs.claim(uuid)
    before = jobs.row(uuid)

    with jobs.service_db.begin() as conn, pytest.raises(NothingToDo):
        operation(jobs, conn, lost)

    assert jobs.row(uuid) == before


@pytest.mark.parametrize("operation", EVERY_WRITE)
def test_after_the_end_of_a_job_its_worker_changes_nothing(
    jobs: Jobs, operation: Callable[[Jobs, Connection, AnyClaim], None]
) -> None:
    """A final state is final, also for the worker that wrote it."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    jobs.finish(claim)
    before = jobs.row(uuid)

    with jobs.service_db.begin() as conn, pytest.raises(NothingToDo):
        operation(jobs, conn, claim)

    assert jobs.row(uuid) == before


@pytest.mark.parametrize("operation", EVERY_WRITE)
@pytest.mark.parametrize("jobs", EVERY_TABLE[:1], indirect=True)
def test_a_worker_of_an_earlier_run_changes_nothing(
    jobs: Jobs, operation: Callable[[Jobs, Connection, AnyClaim], None]
) -> None:
    """The fence of imports has a second column: a retry starts the next run."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    jobs.change(uuid, run=2)
    before = jobs.row(uuid)

    with jobs.service_db.begin() as conn, pytest.raises(NothingToDo):
        operation(jobs, conn, claim)

    assert jobs.row(uuid) == before


def test_a_worker_may_write_until_another_one_claims_its_job(jobs: Jobs) -> None:
    """A lease that ended alone stops no worker: only the next claim does."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    jobs.end_lease(uuid)

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        jobs.table.renew(conn, claim)

    assert_lasts(jobs.row(uuid)["lease_until"], LEASE_SECONDS, times)


def test_finish_sets_the_final_state_and_ends_the_lease(jobs: Jobs) -> None:
    """A finished job has no lease, the time of its end, and cannot be claimed again."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        finish(jobs, conn, claim)

    row = jobs.row(uuid)
    assert (row["status"], row["lease_until"]) == (jobs.failed_status, None)
    assert_lasts(row["finished_at"], 0, times)
    with pytest.raises(NothingToDo):
        jobs.claim(uuid)


# Backing off


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [
        pytest.param(1, 2, id="first attempt"),
        pytest.param(2, 4, id="second attempt"),
        pytest.param(4, 16, id="fourth attempt"),
        pytest.param(5, 30, id="fifth attempt"),
    ],
)
def test_back_off_shortens_the_lease_less_with_every_attempt(jobs: Jobs, attempt: int, seconds: int) -> None:
    """The job can be claimed and requeued after that time, on the database's clock."""
    uuid = jobs.insert(**{jobs.table.attempts: attempt - 1})
    claim = jobs.claim(uuid)

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        jobs.table.back_off(conn, claim)

    row = jobs.row(uuid)
    assert_lasts(row["lease_until"], seconds, times)
    assert_lasts(row["wake_at"], seconds, times)


def test_back_off_if_possible_accepts_a_lost_lease(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The failure that made the worker back off is what its caller must see."""
    uuid = jobs.insert()
    lost = jobs.claim(uuid)
    jobs.end_lease(uuid)
    jobs.claim(uuid)
    before = jobs.row(uuid)

    jobs.table.back_off_if_possible(jobs.service_db, lost)

    assert jobs.row(uuid) == before
    assert str(uuid) in caplog.text


def test_back_off_if_possible_accepts_an_error_of_the_database(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """Here the database refuses the write; the lease ends at its own time."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    before = jobs.row(uuid)

    jobs.table.back_off_if_possible(jobs.service_db, claim, status=None)

    assert jobs.row(uuid) == before
    assert str(uuid) in caplog.text


def test_back_off_if_possible_raises_any_other_error(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug must be seen."""
    claim = jobs.claim(jobs.insert())

    def fail(_plus_seconds: float = 0) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(leases, "now", fail)

    with pytest.raises(ZeroDivisionError):
        jobs.table.back_off_if_possible(jobs.service_db, claim)


# Stalled jobs


def test_a_stalled_job_is_requeued_once_until_its_message_had_time_to_arrive(jobs: Jobs) -> None:
    """Sweep runs more often than a message needs to arrive. It does not send the message of one job again and again."""
    uuid = jobs.insert()

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        assert jobs.requeue(conn) == [uuid]
    assert jobs.requeue_now() == []

    assert_lasts(jobs.row(uuid)["wake_at"], REQUEUE_AFTER_SECONDS, times)
    jobs.change(uuid, wake_at=now(-1))
    assert jobs.requeue_now() == [uuid]


def test_a_job_whose_worker_died_is_requeued(jobs: Jobs) -> None:
    """Its lease has ended, and its state says that a worker had it."""
    uuid = jobs.insert()
    jobs.claim(uuid)
    jobs.end_lease(uuid)

    assert jobs.requeue_now() == [uuid]


def test_a_job_with_a_live_lease_is_not_requeued(jobs: Jobs) -> None:
    """Its worker is alive, however long ago the job was due."""
    uuid = jobs.insert()
    jobs.claim(uuid)

    assert jobs.requeue_now() == []


def test_a_finished_job_is_not_requeued(jobs: Jobs) -> None:
    """A final state is final."""
    uuid = jobs.insert()
    jobs.finish(jobs.claim(uuid))

    assert jobs.requeue_now() == []


@pytest.mark.parametrize("jobs", WITH_LIMIT, indirect=True)
def test_a_job_without_attempts_left_is_not_requeued(jobs: Jobs) -> None:
    """Sweep gives it up instead."""
    jobs.insert(**{jobs.table.attempts: jobs.table.max_attempts})

    assert jobs.requeue_now() == []


@pytest.mark.parametrize("jobs", EVERY_TABLE[:1], indirect=True)
def test_a_table_without_a_limit_requeues_after_any_number_of_attempts(jobs: Jobs) -> None:
    """The worker of an import gives it up itself, so it must get the message."""
    uuid = jobs.insert(**{jobs.table.attempts: 100})

    assert jobs.requeue_now() == [uuid]


@pytest.mark.parametrize("jobs", EVERY_TABLE[2:], indirect=True)
def test_a_stalled_job_in_a_state_that_is_not_claimable_is_finished_and_not_requeued(jobs: Jobs) -> None:
    """A worker that died while it sent an email: the email is never sent a second time."""
    uuid = jobs.insert(status=delivery_states.Status.SENDING, lease_until=now(-60))

    assert jobs.requeue_now() == []
    with jobs.service_db.begin() as conn:
        assert jobs.fail_stalled(conn) == [uuid]


def test_finish_stalled_changes_stalled_jobs_only(jobs: Jobs) -> None:
    """A job with a worker, one that is not due yet and one that is finished stay as they are."""
    stalled, with_worker, not_due, finished = (jobs.insert() for _ in range(4))
    jobs.claim(stalled)
    jobs.end_lease(stalled)
    jobs.claim(with_worker)
    jobs.change(not_due, wake_at=now(60))
    jobs.finish(jobs.claim(finished))
    others = (with_worker, not_due, finished)
    before = [jobs.row(uuid) for uuid in others]

    with jobs.service_db.begin() as conn, database_times(conn) as times:
        assert jobs.fail_stalled(conn) == [stalled]

    assert [jobs.row(uuid) for uuid in others] == before
    row = jobs.row(stalled)
    assert (row["status"], row["lease_until"]) == (jobs.failed_status, None)
    assert_lasts(row["finished_at"], 0, times)


def test_finish_stalled_keeps_to_its_conditions(jobs: Jobs) -> None:
    """A feature says which stalled jobs it gives up."""
    chosen, other = jobs.insert(), jobs.insert()
    before = jobs.row(other)
    uuid_column = jobs.table.table.c.uuid

    with jobs.service_db.begin() as conn:
        rows = jobs.table.finish_stalled(
            conn, jobs.failed_status, uuid_column == chosen, returning=(uuid_column,), **jobs.failed_values
        )

    assert [row.uuid for row in rows] == [chosen]
    assert jobs.row(other) == before


def test_a_worker_cannot_write_after_its_job_was_finished_as_stalled(jobs: Jobs) -> None:
    """The worker was only slow; the merchant has read that its job failed."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    jobs.end_lease(uuid)
    with jobs.service_db.begin() as conn:
        jobs.fail_stalled(conn)

    with jobs.service_db.begin() as conn, pytest.raises(NothingToDo):
        jobs.table.renew(conn, claim)


@pytest.mark.parametrize(
    "sweep", [pytest.param(Jobs.requeue, id="requeue"), pytest.param(Jobs.fail_stalled, id="finish")]
)
def test_two_sweeps_at_once_take_different_jobs(
    jobs: Jobs, sweep: Callable[[Jobs, Connection], list[UUID]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sweep skips the rows that the other has locked, and continues with the next oldest instead of waiting."""
    oldest, next_oldest = jobs.insert(wake_at=now(-120)), jobs.insert(wake_at=now(-60))
    monkeypatch.setattr(leases, "MAX_ROWS_PER_SWEEP", 1)

    with jobs.service_db.begin() as first, jobs.service_db.begin() as second:
        second.execute(text("set local lock_timeout = '1s'"))  # a sweep that waits fails here
        found = [sweep(jobs, first), sweep(jobs, second), sweep(jobs, second)]

    assert found == [[oldest], [next_oldest], []]


# LeaseKeeper


@pytest.fixture
def quick_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LeaseKeeper renews without a pause, so that a test does not wait for it."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.001)


def is_lease_lost(keeper: LeaseKeeper) -> bool:
    """Whether `report` raises NothingToDo."""
    try:
        keeper.report(1)
    except NothingToDo:
        return True
    return False


@pytest.mark.usefixtures("quick_renewals")
def test_a_lease_keeper_renews_while_a_step_runs(jobs: Jobs) -> None:
    """The lease moves with the time, and each renewal is given the progress."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)
    jobs.end_lease(uuid)
    saved_rows: list[int] = []

    def renew_lease(conn: Connection, rows: int) -> None:
        jobs.table.renew(conn, claim)
        saved_rows.append(rows)

    with LeaseKeeper(jobs.service_db, renew_lease) as keeper:
        keeper.report(7)
        wait_until(lambda: 7 in saved_rows, "a renewal with the progress")
        first = jobs.row(uuid)["lease_until"]
        wait_until(lambda: jobs.row(uuid)["lease_until"] > first, "a later renewal")

    with pytest.raises(NothingToDo):
        jobs.claim(uuid)


@pytest.mark.usefixtures("quick_renewals")
def test_a_lease_keeper_stops_when_the_step_is_done(jobs: Jobs) -> None:
    """Its thread has ended before the step's result is written."""
    renewals = Renewals(jobs, jobs.claim(jobs.insert()))

    with LeaseKeeper(jobs.service_db, renewals):
        renewals.wait_for_another("a renewal")

    assert "lease" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("quick_renewals")
def test_a_step_learns_from_its_next_report_that_the_lease_was_lost(jobs: Jobs) -> None:
    """It does not have to finish a file that cannot be published."""
    uuid = jobs.insert()
    claim = jobs.claim(uuid)

    with LeaseKeeper(jobs.service_db, lambda conn, _rows: jobs.table.renew(conn, claim)) as keeper:
        keeper.report(1)
        take_over(jobs, uuid)
        before = jobs.row(uuid)
        wait_until(lambda: is_lease_lost(keeper), "the loss of the lease")
        with pytest.raises(NothingToDo):
            keeper.renew()

    assert jobs.row(uuid) == before


def take_over(jobs: Jobs, uuid: UUID) -> None:
    """Claims the job for another worker, in one transaction, so that no renewal comes between."""
    with jobs.service_db.begin() as conn:
        conn.execute(update(jobs.table.table).where(jobs.table.table.c.uuid == uuid).values(lease_until=now(-60)))
        jobs.claim(uuid, conn)


@pytest.mark.usefixtures("quick_renewals")
def test_a_lease_keeper_stops_renewing_without_progress(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A step that hangs loses its job to the next worker; one that is only slow keeps it."""
    clock = Clock()
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    claim = jobs.claim(jobs.insert())
    renewals = Renewals(jobs, claim)

    with LeaseKeeper(jobs.service_db, renewals) as keeper:
        clock.seconds = MAX_STALL_SECONDS
        keeper.report(1)
        clock.seconds = 2 * MAX_STALL_SECONDS
        renewals.wait_for_another("a renewal of the slow step")
        assert "No progress" not in caplog.text

        keeper.report(1)
        clock.seconds += 1
        wait_until(lambda: "No progress" in caplog.text, "the end of the renewals")
        count = renewals.count

    assert renewals.count == count


@pytest.mark.usefixtures("quick_renewals")
def test_a_lease_keeper_survives_an_error_of_the_database(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """The next renewal may come in time: the step continues."""
    claim = jobs.claim(jobs.insert())
    renewals = Renewals(jobs, claim)

    def fail_once(conn: Connection, rows: int) -> None:
        if "was not renewed" not in caplog.text:
            conn.execute(text("select 1 / 0"))
        renewals(conn, rows)

    with LeaseKeeper(jobs.service_db, fail_once) as keeper:
        renewals.wait_for_another("a renewal after the error")
        keeper.report(1)

    assert caplog.text.count("A lease was not renewed") == 1


class Clock:
    """A monotonic clock that a test moves."""

    seconds: float = 0


class Renewals:
    """Renews a claim, and counts how often."""

    def __init__(self, jobs: Jobs, claim: AnyClaim) -> None:
        self._jobs, self._claim = jobs, claim
        self.count = 0

    def __call__(self, conn: Connection, _rows: int) -> None:
        self._jobs.table.renew(conn, self._claim)
        self.count += 1

    def wait_for_another(self, what: str) -> None:
        """Waits for two renewals: the first may have begun before the call."""
        enough = self.count + 2
        wait_until(lambda: self.count >= enough, what)
