"""The jobs of exports: versions for the history, deletion, giving up, retention. tests/shared tests the leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Row, update

from functions.exports import export_history, jobs
from functions.exports.jobs import ExportClaim, NewExport
from functions.exports.states import MAX_ATTEMPTS
from shared import leases
from shared.errors import NothingToDo
from shared.messages import ExportRequest
from shared.tables.service import exports as exports_table
from tests.exports_world import ExportsWorld

DAY_SECONDS = 24 * 3600


@pytest.fixture
def conn(exports: ExportsWorld) -> Iterator[Connection]:
    """A transaction in the service database."""
    with exports.own_engines["service"].begin() as connection:
        yield connection


@pytest.fixture
def export_uuid(conn: Connection, exports: ExportsWorld) -> UUID:
    """An export that no worker has claimed."""
    export = NewExport(uuid4(), exports.webshop, exports.user, "a.csv", "suppliers", "CSV", "{}", None)
    assert jobs.insert_export(conn, export)
    return export.uuid


def claim(conn: Connection, export_uuid: UUID) -> ExportClaim:
    """Claims the export, also if another claim has a lease."""
    change(conn, export_uuid, lease_until=None)
    return jobs.claim_export(conn, export_uuid)[0]


def change(conn: Connection, export_uuid: UUID, **values: Any) -> None:
    """Changes the row of the export."""
    conn.execute(update(exports_table).where(exports_table.c.uuid == export_uuid).values(**values))


def read_row(conn: Connection, export_uuid: UUID) -> Row[Any]:
    return conn.execute(exports_table.select().where(exports_table.c.uuid == export_uuid)).one()


WRITES: dict[str, Callable[[Connection, ExportClaim], object]] = {
    "renew": lambda conn, claim: jobs.renew_lease(conn, claim, 5),
    "complete": lambda conn, claim: jobs.complete_export(conn, claim, 5, 50, "gs://b/f"),
    "fail": lambda conn, claim: jobs.fail_export(conn, claim, "It failed."),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("end", ["completed", "failed", "deleted", "expired"])
def test_a_worker_cannot_write_after_the_end_of_its_export(
    conn: Connection, exports: ExportsWorld, export_uuid: UUID, write: str, end: str
) -> None:
    """A worker that continues after the export has ended has nothing to do, and the row stays as it is."""
    ended = claim(conn, export_uuid)
    if end == "failed":
        jobs.fail_export(conn, ended, "It failed before.")
    elif end == "deleted":
        jobs.delete_export(conn, exports.webshop, export_uuid)
    else:
        jobs.complete_export(conn, ended, 1, 10, "gs://b/other")
        if end == "expired":
            jobs.expire_exports(conn, retention_days=0)
    before = read_row(conn, export_uuid)

    with pytest.raises(NothingToDo):
        WRITES[write](conn, ended)

    assert read_row(conn, export_uuid) == before


def test_a_deleted_export_is_not_completed(conn: Connection, export_uuid: UUID) -> None:
    """This holds even if its status is still RENDERING."""
    ended = claim(conn, export_uuid)
    change(conn, export_uuid, deleted_at=leases.now())

    with pytest.raises(NothingToDo):
        jobs.complete_export(conn, ended, 1, 10, "gs://b/f")


def test_each_attempt_has_its_own_path(conn: Connection, export_uuid: UUID) -> None:
    """A worker that lost its lease cannot overwrite the file of the next attempt."""
    first, second = claim(conn, export_uuid), claim(conn, export_uuid)

    assert (first.attempts, second.attempts) == (1, 2)
    assert first.path != second.path


def test_a_claim_is_a_change_for_the_history(conn: Connection, export_uuid: UUID) -> None:
    """The claim returns the record to send: the export is RENDERING, with the next version."""
    _, record = jobs.claim_export(conn, export_uuid)

    assert (record.uuid, record.status, record.version) == (export_uuid, "RENDERING", 2)


def test_progress_is_not_a_change_for_the_history(conn: Connection, export_uuid: UUID) -> None:
    """A renewal extends the lease and saves the progress. Version and time of the last change stay."""
    current = claim(conn, export_uuid)
    change(conn, export_uuid, lease_until=leases.now(1))
    before = read_row(conn, export_uuid)

    jobs.renew_lease(conn, current, 12_000)

    after = read_row(conn, export_uuid)
    assert after.lease_until > before.lease_until
    assert after.progress_rows == 12_000
    assert (after.version, after.updated_at) == (before.version, before.updated_at)


def test_an_export_is_given_up_after_its_last_attempt(conn: Connection, export_uuid: UUID) -> None:
    """It cannot be claimed and is not requeued. It is FAILED, and the error names the number of attempts."""
    for _ in range(MAX_ATTEMPTS):
        claim(conn, export_uuid)
    change(conn, export_uuid, lease_until=None, wake_at=leases.now(-1))

    with pytest.raises(NothingToDo):
        jobs.claim_export(conn, export_uuid)
    assert jobs.requeue_stalled(conn) == []
    (record,) = jobs.give_up_stalled(conn)

    assert (record.status, record.file_uri) == ("FAILED", None)
    assert str(MAX_ATTEMPTS) in read_row(conn, export_uuid).error


def test_an_export_is_not_given_up_during_its_last_attempt(conn: Connection, export_uuid: UUID) -> None:
    """Its worker has a lease, so the export has not stalled."""
    for _ in range(MAX_ATTEMPTS):
        claim(conn, export_uuid)
    change(conn, export_uuid, wake_at=leases.now(-1))

    assert jobs.give_up_stalled(conn) == []


def test_an_export_that_no_worker_claims_is_given_up_after_a_day(conn: Connection, export_uuid: UUID) -> None:
    """An export ends even if all its requests are lost, or kill every worker before the claim."""
    change(conn, export_uuid, wake_at=leases.now(-1))
    assert jobs.give_up_stalled(conn) == []

    change(conn, export_uuid, created_at=leases.now(-DAY_SECONDS - 3600))

    assert [record.uuid for record in jobs.give_up_stalled(conn)] == [export_uuid]


def test_a_stalled_export_is_requeued(conn: Connection, exports: ExportsWorld, export_uuid: UUID) -> None:
    """Its request is sent again, but not by every sweep: a request takes longer to arrive."""
    change(conn, export_uuid, wake_at=leases.now(-1))

    assert jobs.requeue_stalled(conn) == [ExportRequest(exports.webshop, export_uuid)]
    assert jobs.requeue_stalled(conn) == []


def test_a_change_is_sent_again_until_the_history_has_it(conn: Connection, export_uuid: UUID) -> None:
    """An older version in the history is not enough."""
    current = claim(conn, export_uuid)
    old_record = jobs.fail_export(conn, current, "It failed.")
    jobs.delete_export(conn, current.webshop_uuid, export_uuid)

    export_history.store_record(conn, old_record)
    assert read_row(conn, export_uuid).history_due_at is not None

    change(conn, export_uuid, history_due_at=leases.now(-1))
    (record,) = jobs.requeue_late_history(conn)
    assert jobs.requeue_late_history(conn) == []

    export_history.store_record(conn, record)
    assert read_row(conn, export_uuid).history_due_at is None


def test_an_export_expires_after_the_retention(conn: Connection, export_uuid: UUID) -> None:
    """It does not expire earlier, and it expires only once."""
    current = claim(conn, export_uuid)
    jobs.complete_export(conn, current, 1, 10, "gs://b/f")
    change(conn, export_uuid, finished_at=leases.now(-29 * DAY_SECONDS))
    assert jobs.expire_exports(conn, retention_days=30) == []

    change(conn, export_uuid, finished_at=leases.now(-31 * DAY_SECONDS))
    (record,) = jobs.expire_exports(conn, retention_days=30)

    assert (record.status, record.file_uri) == ("EXPIRED", None)
    assert jobs.expire_exports(conn, retention_days=30) == []
