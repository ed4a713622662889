"""The row of an export: who may write to it, and when nobody may any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, select, update

from functions.exports import export_history, jobs
from functions.exports.jobs import ExportClaim, NewExport
from functions.exports.states import MAX_ATTEMPTS
from shared import leases
from shared.errors import NothingToDo
from shared.tables.service import exports as table
from tests.exports_world import ExportsWorld


@pytest.fixture
def service(exports: ExportsWorld):
    """A transaction on the service database."""
    with exports.looking["service"].begin() as connection:
        yield connection


@pytest.fixture
def export_uuid(service: Connection, exports: ExportsWorld) -> UUID:
    """An export that nobody has begun."""
    new = NewExport(uuid4(), exports.webshop, exports.user, "a.csv", "suppliers", "CSV", "{}", None)
    assert jobs.insert_export(service, new)
    return new.uuid


def taken(service: Connection, export_uuid: UUID) -> ExportClaim:
    """Claims the export, whoever held it."""
    change(service, export_uuid, lease_until=None)
    return jobs.claim_export(service, export_uuid)[0]


def change(service: Connection, export_uuid: UUID, **values: Any) -> None:
    service.execute(update(table).where(table.c.uuid == export_uuid).values(**values))


def row(service: Connection, export_uuid: UUID) -> Any:
    return service.execute(table.select().where(table.c.uuid == export_uuid)).one()


WRITES = {
    "renew": lambda service, held: jobs.renew_lease(service, held, 5),
    "complete": lambda service, held: jobs.complete_export(service, held, 5, 50, "gs://b/f"),
    "fail": lambda service, held: jobs.fail_export(service, held, "It failed."),
    "back off": jobs.EXPORTS.back_off,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("over", ["overtaken", "completed", "failed", "deleted", "expired"])
def test_an_attempt_that_is_over_writes_nothing(service, exports, export_uuid, write, over):
    """Whatever it still tries, the row stays as the one who came after it left it."""
    held = taken(service, export_uuid)
    if over == "overtaken":
        taken(service, export_uuid)
    elif over == "failed":
        jobs.fail_export(service, held, "It failed before.")
    elif over == "deleted":
        jobs.delete_export(service, exports.webshop, export_uuid)
    else:
        jobs.complete_export(service, held, 1, 10, "gs://b/other")
        if over == "expired":
            jobs.expire_exports(service, retention_days=0)
    before = row(service, export_uuid)

    try:
        said = WRITES[write](service, held)
    except NothingToDo:
        said = None

    assert said is None
    assert row(service, export_uuid) == before


def test_a_file_of_a_deleted_export_completes_nothing(service, export_uuid):
    """Even where the row says RENDERING still."""
    held = taken(service, export_uuid)
    change(service, export_uuid, deleted_at=leases.now())

    with pytest.raises(NothingToDo):
        jobs.complete_export(service, held, 1, 10, "gs://b/f")


def test_only_one_claims_and_the_next_one_when_its_lease_runs_out(service, export_uuid):
    first, record = jobs.claim_export(service, export_uuid)

    with pytest.raises(NothingToDo):
        jobs.claim_export(service, export_uuid)
    second = taken(service, export_uuid)

    assert (first.attempts, second.attempts, record.status) == (1, 2, "RENDERING")
    assert first.path != second.path


def test_work_that_goes_on_keeps_its_lease(service, export_uuid):
    """A renewal moves the lease and says how far the work is, and is no change for the history."""
    held = taken(service, export_uuid)
    change(service, export_uuid, lease_until=leases.now(1))
    before = row(service, export_uuid)

    jobs.renew_lease(service, held, 12_000)

    after = row(service, export_uuid)
    assert after.lease_until > before.lease_until
    assert after.progress_rows == 12_000
    assert (after.version, after.updated_at) == (before.version, before.updated_at)


def test_a_failure_that_passes_lets_the_next_one_in_soon(service, export_uuid):
    """Sooner than the lease would have; later with every attempt."""
    waits = []
    for _ in range(3):
        held = taken(service, export_uuid)
        jobs.EXPORTS.back_off(service, held)
        found = row(service, export_uuid)
        waits.append(round((found.lease_until - service.scalar(select(leases.now()))).total_seconds()))
        assert abs(found.wake_at - found.lease_until) < timedelta(seconds=1)

    assert waits == [2, 4, 8]


def test_an_export_has_only_so_many_attempts(service, export_uuid):
    """Then it is ended with a sentence, and is claimed no more."""
    for _ in range(MAX_ATTEMPTS):
        taken(service, export_uuid)
    change(service, export_uuid, lease_until=None, wake_at=leases.now(-1))

    with pytest.raises(NothingToDo):
        jobs.claim_export(service, export_uuid)
    assert jobs.requeue_stalled(service) == []
    (record,) = jobs.give_up_stalled(service)

    assert (record.status, record.file_uri) == ("FAILED", None)
    assert str(MAX_ATTEMPTS) in row(service, export_uuid).error


def test_the_last_attempt_is_left_in_peace_while_it_goes_on(service, export_uuid):
    for _ in range(MAX_ATTEMPTS):
        taken(service, export_uuid)
    change(service, export_uuid, wake_at=leases.now(-1))

    assert jobs.give_up_stalled(service) == []


def test_an_export_that_nobody_ever_begins_ends_after_a_day(service, export_uuid):
    """Its requests may all be lost, or kill who takes them: no export stays in progress for ever."""
    change(service, export_uuid, wake_at=leases.now(-1))
    assert jobs.give_up_stalled(service) == []

    change(service, export_uuid, created_at=leases.now(-25 * 3600))

    assert [record.uuid for record in jobs.give_up_stalled(service)] == [export_uuid]


def test_a_sleeping_export_is_woken_once_in_a_while(service, export_uuid):
    """Sweep comes every second in some places; a request needs longer than that to arrive."""
    change(service, export_uuid, wake_at=leases.now(-1))

    assert [request.export_uuid for request in jobs.requeue_stalled(service)] == [export_uuid]
    assert jobs.requeue_stalled(service) == []


def test_every_change_of_the_record_is_due_to_the_history_until_it_is_there(service, export_uuid):
    """Behind it is, until the history has this version, and not an older one."""
    held = taken(service, export_uuid)
    old = jobs.fail_export(service, held, "It failed.")
    jobs.delete_export(service, held.webshop_uuid, export_uuid)

    export_history.store_record(service, old)
    assert row(service, export_uuid).history_due_at is not None
    change(service, export_uuid, history_due_at=leases.now(-1))
    (record,) = jobs.requeue_late_history(service)
    assert jobs.requeue_late_history(service) == []
    export_history.store_record(service, record)
    assert row(service, export_uuid).history_due_at is None


def test_a_file_is_kept_for_its_retention(service, export_uuid):
    """Not a day less, and what was deleted does not expire on top of it."""
    held = taken(service, export_uuid)
    jobs.complete_export(service, held, 1, 10, "gs://b/f")
    change(service, export_uuid, finished_at=leases.now(-29 * 24 * 3600))
    assert jobs.expire_exports(service, retention_days=30) == []

    change(service, export_uuid, finished_at=leases.now(-31 * 24 * 3600))
    (record,) = jobs.expire_exports(service, retention_days=30)

    assert (record.status, record.file_uri) == ("EXPIRED", None)
    assert jobs.expire_exports(service, retention_days=30) == []
