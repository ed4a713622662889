"""Imports under faults: killed at any call; messages delivered twice, late, at once, out of order, or never.

Whatever happens, the import reaches the right final state, each row is applied once, the ledger balances, and the
legacy database becomes equal to the product database.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

import pytest

from functions.imports import closing, jobs
from functions.imports.states import Status
from shared.errors import NothingToDo
from shared.leases import LEASE_SECONDS
from shared.messages import BatchApplied, ImportBatch, ImportTrigger, ProductsUpdated
from tests.world import Killed, ledger, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from shared.messages import Message
    from tests.world import World

# Calls to the outside (commits, reads, sends) from the event to the last mirroring of the file below; counted.
CALLS_OF_AN_IMPORT = 30

MIRRORED_COLUMNS = "name, sku_code, ean_code, article_code, price, stock_on_hand, minimum_stock, maximum_stock, status"


@pytest.fixture
def file(world: World) -> str:
    """1,200 rows in three batches, two of them refused: one by validation, one by the product database."""
    rows = [[identifier, f"{number}.25", str(number)] for number, identifier in enumerate(world.identifiers(1200))]
    rows[10][1] = "cheap"
    rows[600][0] = "no-such-product"
    return table([["identifier", "price", "stock_on_hand"], *rows])


def assert_applied(world: World, import_uuid: UUID) -> None:
    """Checks that the import ended as one without faults does, in all databases."""
    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.COMPLETED_WITH_ERRORS, (1200, 1198, 0, 2)), ended.reason
    assert set(world.errors(import_uuid)) == {12, 602}
    products = world.products("price, stock_on_hand")
    for number, identifier in enumerate(world.identifiers(1200)):
        if number not in (10, 600):
            assert [float(value) for value in products[identifier]] == [number + 0.25, number]
    assert_mirrored(world)
    updated = world.rows(
        "product",
        "select sum(updated) from import_outcomes where import_uuid = :i and run = :r",
        i=import_uuid,
        r=ended.run,
    )
    assert updated == [(1198,)]


def assert_mirrored(world: World) -> None:
    """Checks that every product that an import changed is equal in the legacy and the product database."""
    rows = world.rows("product", "select jsonb_array_elements_text(identifiers) from import_outcomes")
    changed = {identifier for (identifier,) in rows}
    products, mirrored = world.products(MIRRORED_COLUMNS), world.products(MIRRORED_COLUMNS, "legacy")
    assert {identifier: products[identifier] for identifier in changed} == {
        identifier: mirrored.get(identifier) for identifier in changed
    }


def test_an_import_without_faults_is_applied(world: World, file: str) -> None:
    """Most other tests here end in this state too, in spite of a fault."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.run()

    assert_applied(world, import_uuid)
    assert world.boundaries.passed == CALLS_OF_AN_IMPORT


def kill_at_each_call(world: World, deliver: Callable[[], object]) -> int:
    """Repeats `deliver` with a kill at its first call to the outside, at its second, and so on, until it succeeds.

    Returns the number of kills.
    """
    for boundary in range(1, 200):
        world.kill_at(boundary)
        try:
            deliver()
        except Killed:
            continue
        finally:
            world.kill_at(0)
        return boundary - 1
    raise AssertionError("every delivery was killed")


@pytest.mark.parametrize("boundary", range(1, CALLS_OF_AN_IMPORT + 1))
def test_an_import_survives_a_kill_at_any_call(world: World, file: str, boundary: int) -> None:
    """One process dies at the n-th call to the outside of the whole import. Its message is delivered again."""
    import_uuid = world.upload(file)
    world.kill_at(boundary)
    kills = 0
    try:
        world.deliver_upload(import_uuid)
    except Killed:
        kills += 1
        world.kill_at(0)
        world.deliver_upload(import_uuid)
    while world.broker.waiting:
        message = world.broker.waiting[0]
        try:
            world.deliver(message)
        except Killed:
            kills += 1
            world.kill_at(0)
            continue
        world.broker.waiting.popleft()

    world.kill_at(0)
    world.recover()

    assert_applied(world, import_uuid)
    assert kills == 1


def test_every_message_may_be_delivered_twice(world: World, file: str) -> None:
    """Pub/Sub guarantees at least one delivery, not exactly one."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.deliver_upload(import_uuid)
    world.run(twice=True)

    assert_applied(world, import_uuid)


def test_messages_may_arrive_in_reverse_order(world: World, file: str) -> None:
    """No step relies on order."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.run(order=deque.pop)

    assert_applied(world, import_uuid)


@pytest.mark.parametrize("seed", range(5))
def test_messages_may_arrive_in_any_order(world: World, file: str, seed: int) -> None:
    """A random order per seed; half of the seeds deliver every message twice."""
    generator = random.Random(seed)

    def pop_any(waiting: deque[Message]) -> Message:
        waiting.rotate(generator.randrange(len(waiting)))
        return waiting.popleft()

    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.run(order=pop_any, twice=seed % 2 == 0)

    assert_applied(world, import_uuid)


def test_all_messages_of_a_kind_may_arrive_at_once(world: World, file: str) -> None:
    """Triggers, batches, results and mirror messages each arrive together, and each twice."""
    import_uuid = world.upload(file)
    world.at_once(lambda: world.deliver_upload(import_uuid), lambda: world.deliver_upload(import_uuid))

    for kind in (ImportTrigger, ImportBatch, BatchApplied, ProductsUpdated):
        messages = world.broker.take(kind) * 2
        assert messages
        world.at_once(*[lambda message=message: world.deliver(message) for message in messages])
    world.recover()

    assert_applied(world, import_uuid)


def test_the_last_two_results_may_arrive_at_once(world: World, file: str) -> None:
    """Two transactions that each store one of the last two results must not both miss that the import is done."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    for kind in (ImportTrigger, ImportBatch):
        for message in world.broker.take(kind):
            world.deliver(message)
    *first, last_but_one, last = world.broker.take(BatchApplied)
    for message in first:
        world.deliver(message)

    world.at_once(lambda: world.deliver(last_but_one), lambda: world.deliver(last))

    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.COMPLETED_WITH_ERRORS, (1200, 1198, 0, 2))


@pytest.mark.parametrize("kind", [ImportTrigger, ImportBatch, BatchApplied, ProductsUpdated])
def test_a_message_may_be_lost(world: World, file: str, kind: type[Message]) -> None:
    """Sweep causes a lost message of any kind to be sent again."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    while not (lost := world.broker.take(kind)):
        world.deliver(world.broker.waiting.popleft())
    world.broker.waiting.extend(lost[1:])

    world.recover()

    assert_applied(world, import_uuid)


def test_a_storage_event_may_be_lost(world: World, file: str) -> None:
    """The import exists because its file exists."""
    import_uuid = world.upload(file)

    world.recover()

    assert_applied(world, import_uuid)


def test_of_two_uploads_at_once_one_runs_and_the_other_can_be_retried(world: World, file: str) -> None:
    """The reason of the other import names the one that runs."""
    one, two = world.upload(file), world.upload(file)

    world.at_once(lambda: world.deliver_upload(one), lambda: world.deliver_upload(two))
    uuid_by_status = {world.find(uuid).status: uuid for uuid in (one, two)}
    active, failed = uuid_by_status[Status.IN_QUEUE], uuid_by_status[Status.FAILED_UNEXPECTEDLY]
    assert str(active) in world.find(failed).reason
    world.run()
    assert_applied(world, active)

    world.retry(failed)
    world.run()

    retried = world.find(failed)
    assert (retried.status, ledger(retried)) == (Status.COMPLETED_WITH_ERRORS, (1200, 0, 1198, 2))


def test_a_paused_worker_does_not_undo_the_work_of_the_next_one(world: World, file: str) -> None:
    """A worker is paused while it sends, until its lease has ended. The next worker completes the import meanwhile."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    paused: list[bool] = []

    def pause(messages: Sequence[Message]) -> None:
        if isinstance(messages[0], ImportBatch) and not paused:
            paused.append(True)
            world.let_time_pass()
            world.deliver(trigger)
            world.run()
            assert_applied(world, import_uuid)

    world.broker.before_send = pause
    world.deliver(trigger)
    world.recover()

    assert paused
    assert_applied(world, import_uuid)


def test_no_batch_is_applied_after_the_import_was_given_up(world: World, file: str) -> None:
    """Rows that were applied before it count, and a retry works."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    first, *late_batches = world.broker.take(ImportBatch)
    world.deliver(first)
    world.broker.take(BatchApplied)
    for _ in range(11):
        world.let_time_pass()
        world.sweep()
        for trigger in world.broker.take(ImportTrigger):
            world.deliver(trigger)
        late_batches += world.broker.take(ImportBatch)

    given_up = world.find(import_uuid)
    assert given_up.status == Status.FAILED_UNEXPECTEDLY
    assert "gave up" in given_up.reason
    assert ledger(given_up) == (1200, 500, 0, 700)
    before = world.products("price")
    for batch in late_batches:
        assert world.deliver(batch) == 200
    assert world.products("price") == before
    assert ledger(world.find(import_uuid)) == (1200, 500, 0, 700)

    world.retry(import_uuid)
    world.recover()
    retried = world.find(import_uuid)
    assert (retried.status, ledger(retried)) == (Status.COMPLETED_WITH_ERRORS, (1200, 698, 500, 2))
    assert_mirrored(world)


@pytest.mark.parametrize("is_removed", [pytest.param(True, id="removed"), pytest.param(False, id="replaced")])
def test_a_file_that_is_lost_while_batches_wait_fails_the_import(world: World, file: str, is_removed: bool) -> None:
    """The reason says what happened to the file. Batches that arrive afterwards are not applied."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    batches = world.broker.take(ImportBatch)
    world.deliver(batches[0])
    world.broker.waiting.clear()
    (stored,) = world.bucket.list("imports/")
    if is_removed:
        world.bucket.remove(stored.path)
    else:
        world.put(import_uuid, "identifier,price\r\nother,1\r\n")

    world.recover()

    ended = world.find(import_uuid)
    assert ended.status == Status.FAILED_UNEXPECTEDLY
    assert "products.csv" in ended.reason
    assert ledger(ended) == (1200, 500, 0, 700)
    before = world.products("price")
    for batch in batches[1:]:
        world.deliver(batch)
    assert world.products("price") == before
    assert_mirrored(world)


def test_an_import_whose_rows_were_all_applied_does_not_fail_without_its_file(world: World, file: str) -> None:
    """All batches were applied, then every result and the file were lost: the ledger shows that nothing is missing."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    for kind in (ImportTrigger, ImportBatch):
        for message in world.broker.take(kind):
            world.deliver(message)
    world.broker.waiting.clear()
    for stored in list(world.bucket.list("imports/")):
        world.bucket.remove(stored.path)

    world.recover()

    assert_applied(world, import_uuid)


def test_a_kill_while_an_import_is_closed_keeps_its_reason(world: World, file: str) -> None:
    """The process dies between the closed gate and the final state. The next worker writes the same reason."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    world.broker.waiting.clear()
    for stored in list(world.bucket.list("imports/")):
        world.bucket.remove(stored.path)
    trigger = ImportTrigger(world.webshop, import_uuid, 1)

    def claim_again() -> None:
        world.let_time_pass()
        world.deliver(trigger)

    kills = kill_at_each_call(world, claim_again)
    world.recover()

    assert kills > 0
    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.FAILED_UNEXPECTEDLY, (1200, 0, 0, 1200))
    assert "gone" in ended.reason


def test_a_worker_that_lost_its_lease_cannot_close_the_import(world: World, file: str) -> None:
    """It wants to fail an import that the next worker completes."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    with world.own_engines["service"].begin() as conn:
        lost_claim = jobs.claim_import(conn, trigger)
    world.let_time_pass()
    world.deliver(trigger)

    with pytest.raises(NothingToDo):
        closing.close_import(world.service_db, world.product_db, lost_claim, "of the lost claim")
    world.recover()

    assert_applied(world, import_uuid)


def test_an_import_waits_longer_with_every_claim_for_batches_in_a_queue(world: World, file: str) -> None:
    """The batches are only late: they are sent again less and less often, and the import is not given up soon."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    lease_seconds = []
    for _ in range(4):
        world.deliver(world.broker.take(ImportTrigger)[-1])
        ((seconds,),) = world.rows("service", "select extract(epoch from lease_until - clock_timestamp()) from imports")
        lease_seconds.append(round(float(seconds), -1))
        world.let_time_pass()
        world.sweep()

    assert lease_seconds == [LEASE_SECONDS, LEASE_SECONDS, 2 * LEASE_SECONDS, 3 * LEASE_SECONDS]


def test_a_paused_worker_of_an_old_run_does_not_disturb_a_retry(world: World, file: str) -> None:
    """The old run's batches and writes have no effect. The new run is applied completely."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    old_batches: list[Sequence[Message]] = []

    def pause(messages: Sequence[Message]) -> None:
        if isinstance(messages[0], ImportBatch) and not old_batches:
            old_batches.append(messages)
            world.let_time_pass()
            with world.own_engines["service"].begin() as conn:
                no_rows = dict.fromkeys(("total_rows", "updated_rows", "unchanged_rows", "failed_rows"), 0)
                jobs.finish_import(conn, import_uuid, 1, Status.FAILED_UNEXPECTEDLY, "for the test", **no_rows)
            world.retry(import_uuid)
            world.deliver(world.broker.take(ImportTrigger)[0])

    world.broker.before_send = pause
    world.deliver(trigger)
    world.recover()

    assert old_batches
    assert world.find(import_uuid).run == 2
    assert_applied(world, import_uuid)


def test_an_older_change_that_is_mirrored_last_does_not_overwrite_a_newer_one(world: World) -> None:
    """The mirror writes the products as they are now, and not as they were when the message was sent."""
    (identifier,) = world.identifiers(1)
    older = world.import_without_mirror(table([["identifier", "price"], [identifier, "1"]]))
    newer = world.import_without_mirror(table([["identifier", "price"], [identifier, "2"]]))

    for message in (*newer, *older):
        world.deliver(message)

    assert float(world.products("price", "legacy")[identifier]) == 2
    assert_mirrored(world)


def test_an_import_survives_a_broker_that_is_down(world: World, file: str) -> None:
    """Sends fail for a while. Committed rows stay, and every message is sent once the broker is back."""
    import_uuid = world.upload(file)
    world.broker.down = True
    assert world.deliver_upload(import_uuid) == 503
    world.let_time_pass()
    assert world.sweep() == 503
    world.broker.down = False
    world.recover()

    assert_applied(world, import_uuid)


def test_an_invalid_message_becomes_one_dead_letter(world: World) -> None:
    """The dead letter has the topic and the reason. The push is answered with 200, so that it is not repeated."""
    status = world.push_bytes(ImportBatch, b'{"webshop_uuid": "no"}')

    assert status == 200
    (letter,) = world.dead_letters.messages
    assert (letter.topic, letter.attributes["topic"]) == ("dead-letters", "webshop.products.import")
    assert "webshop_uuid" in letter.attributes["reason"]
    assert letter.data == b'{"webshop_uuid": "no"}'
