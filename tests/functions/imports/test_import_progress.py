"""import_progress, through the framework: the ledger of an import, batch by batch."""

import uuid

import pytest

from functions.imports.states import Status
from shared.messages import BatchApplied, ImportBatch, ImportTrigger
from tests.world import World, ledger, table


@pytest.fixture
def started(world: World) -> uuid.UUID:
    """An import of 1,000 rows in two batches, both sent and none applied."""
    rows = [[identifier, "1"] for identifier in world.identifiers(1000)]
    import_uuid = world.upload(table([["identifier", "price"], *rows]))
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.take(ImportTrigger)[0])
    assert len(world.broker.take(ImportBatch)) == 2
    return import_uuid


def result(world: World, import_uuid: uuid.UUID, first_row: int, updated: int = 500, run: int = 1) -> BatchApplied:
    return BatchApplied(world.webshop, import_uuid, run, first_row, updated, 500 - updated, ())


def test_progress_shows_while_results_come_in_and_the_last_ends_it(world, started):
    """Half the rows are half the way; all of them are the end."""
    world.deliver(result(world, started, 2))
    half = world.find(started)
    world.deliver(result(world, started, 502, updated=100))
    done = world.find(started)

    assert (half.status, half.progress_percent, ledger(half)) == (Status.IMPORTING, 50, (1000, 500, 0, 0))
    assert (done.status, done.progress_percent, ledger(done)) == (Status.COMPLETED, 100, (1000, 600, 400, 0))
    assert done.reason == "All 1,000 rows are applied: 600 updated, 400 already up to date."
    assert done.finished_at is not None


def test_a_result_that_comes_again_is_dropped(world, started):
    """Counts are sums of what is stored; a twin, even one that says something else, changes nothing."""
    world.deliver(result(world, started, 2))

    assert world.deliver(result(world, started, 2, updated=7)) == 200

    assert ledger(world.find(started)) == (1000, 500, 0, 0)


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param({"run": 0}, id="lower run"),
        pytest.param({"run": 2}, id="higher run"),
        pytest.param({"first_row": 3}, id="unknown batch"),
    ],
)
def test_a_result_of_another_run_or_batch_is_dropped(world, started, foreign):
    """What this run did not send, it does not count."""
    assert world.deliver(result(world, started, **{"first_row": 2, **foreign})) == 200

    assert ledger(world.find(started)) == (1000, 0, 0, 0)


def test_a_result_after_the_end_changes_nothing(world, started):
    """A final state is final."""
    world.deliver(result(world, started, 2))
    world.deliver(result(world, started, 502))
    before = world.find(started)

    assert world.deliver(result(world, started, 502, updated=0)) == 200

    assert world.find(started) == before


def test_a_result_extends_the_lease(world, started):
    """As long as results come in, nobody else need look after the import."""
    world.let_time_pass()
    world.deliver(result(world, started, 2))
    world.sweep()

    assert not world.broker.take(ImportTrigger)


def test_a_result_does_not_extend_the_lease_of_a_sender_that_failed(world, started):
    """Batches are still to be sent: whoever sends them next is not kept waiting by results of the others."""
    world.change("service", "update imports set processing_step = 'PUBLISH'")
    world.let_time_pass()
    world.deliver(result(world, started, 2))
    world.sweep()

    assert len(world.broker.take(ImportTrigger)) == 1
