"""import_progress, called through functions-framework: the ledger of an import, one batch result at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from functions.imports.states import Status
from shared.messages import BatchApplied, ImportBatch, ImportTrigger
from tests.world import ledger, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from tests.world import World


@pytest.fixture
def import_uuid(world: World) -> UUID:
    """An import of 1,000 rows in two batches. Both are sent and none is applied."""
    rows = [[identifier, "1"] for identifier in world.identifiers(1000)]
    uuid = world.upload(table([["identifier", "price"], *rows]))
    world.deliver_upload(uuid)
    world.deliver(world.broker.take(ImportTrigger)[0])
    assert len(world.broker.take(ImportBatch)) == 2
    return uuid


def batch_result(world: World, import_uuid: UUID, first_row: int, updated: int = 500, run: int = 1) -> BatchApplied:
    """The result of a batch of 500 rows, none refused."""
    return BatchApplied(world.webshop, import_uuid, run, first_row, updated, 500 - updated, ())


def test_results_show_the_progress_and_the_last_one_ends_the_import(world: World, import_uuid: UUID) -> None:
    """Half of the rows are 50 per cent. All of them are the end."""
    world.deliver(batch_result(world, import_uuid, 2))
    half_done = world.find(import_uuid)
    world.deliver(batch_result(world, import_uuid, 502, updated=100))
    ended = world.find(import_uuid)

    assert (half_done.status, half_done.progress_percent) == (Status.IMPORTING, 50)
    assert ledger(half_done) == (1000, 500, 0, 0)
    assert (ended.status, ended.progress_percent, ledger(ended)) == (Status.COMPLETED, 100, (1000, 600, 400, 0))
    assert ended.reason == "All 1,000 rows are applied: 600 updated, 400 already up to date."
    assert ended.finished_at is not None


def test_a_result_that_comes_again_is_ignored(world: World, import_uuid: UUID) -> None:
    """Counts are sums of stored results: a duplicate changes nothing, even if its counts differ."""
    world.deliver(batch_result(world, import_uuid, 2))

    assert world.deliver(batch_result(world, import_uuid, 2, updated=7)) == 200

    assert ledger(world.find(import_uuid)) == (1000, 500, 0, 0)


@pytest.mark.parametrize(
    "foreign_key",
    [
        pytest.param({"run": 0}, id="lower run"),
        pytest.param({"run": 2}, id="higher run"),
        pytest.param({"first_row": 3}, id="unknown batch"),
    ],
)
def test_a_result_of_another_run_or_batch_is_ignored(
    world: World, import_uuid: UUID, foreign_key: Mapping[str, int]
) -> None:
    """A run counts only the batches that it sent."""
    assert world.deliver(batch_result(world, import_uuid, **{"first_row": 2, **foreign_key})) == 200

    assert ledger(world.find(import_uuid)) == (1000, 0, 0, 0)


def test_a_result_after_the_end_changes_nothing(world: World, import_uuid: UUID) -> None:
    """A final state is final."""
    world.deliver(batch_result(world, import_uuid, 2))
    world.deliver(batch_result(world, import_uuid, 502))
    before = world.find(import_uuid)

    assert world.deliver(batch_result(world, import_uuid, 502, updated=0)) == 200

    assert world.find(import_uuid) == before


def test_a_result_extends_the_lease(world: World, import_uuid: UUID) -> None:
    """While results arrive, sweep does not requeue the import."""
    world.let_time_pass()
    world.deliver(batch_result(world, import_uuid, 2))
    world.sweep()

    assert not world.broker.take(ImportTrigger)


def test_a_result_does_not_extend_the_lease_of_a_worker_that_failed_to_send(world: World, import_uuid: UUID) -> None:
    """Some batches are still to be sent: results of the others do not delay the next worker."""
    world.change("service", "update imports set processing_step = 'PUBLISH'")
    world.let_time_pass()
    world.deliver(batch_result(world, import_uuid, 2))
    world.sweep()

    assert len(world.broker.take(ImportTrigger)) == 1
