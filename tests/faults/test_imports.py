"""Imports under fire: killed at any call, delivered twice, late, at once, out of order, or never.

Whatever happens, the import reaches its right final state, each row is applied once, the ledger balances, and the
legacy database comes to equal the product database.
"""

import random
from collections import deque

import pytest

from functions.imports import closing, jobs
from functions.imports.states import Status
from shared.errors import NothingToDo
from shared.leases import LEASE_SECONDS
from shared.messages import BatchApplied, ImportBatch, ImportTrigger, ProductsUpdated
from tests.world import Killed, World, ledger, table

# To the outside, from the event to the last mirror of the file below: commits, reads, sends. Counted, not guessed.
CALLS_OF_AN_IMPORT = 30

MIRRORED = "name, sku_code, ean_code, article_code, price, stock_on_hand, minimum_stock, maximum_stock, status"


@pytest.fixture
def file(world: World) -> str:
    """1,200 rows in three batches, two of them refused: one by validation, one by the product database."""
    rows = [[identifier, f"{number}.25", str(number)] for number, identifier in enumerate(world.identifiers(1200))]
    rows[10][1] = "cheap"
    rows[600][0] = "no-such-product"
    return table([["identifier", "price", "stock_on_hand"], *rows])


def assert_applied(world: World, import_uuid) -> None:
    """The import ended as an undisturbed one does, and everything stands where it should."""
    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.COMPLETED_WITH_ERRORS, (1200, 1198, 0, 2)), found.reason
    assert set(world.errors(import_uuid)) == {12, 602}
    products = world.products("price, stock_on_hand")
    for number, identifier in enumerate(world.identifiers(1200)):
        if number not in (10, 600):
            assert [float(value) for value in products[identifier]] == [number + 0.25, number]
    assert_mirrored(world)
    applied = world.rows(
        "product",
        "select sum(updated) from import_outcomes where import_uuid = :i and run = :r",
        i=import_uuid,
        r=found.run,
    )
    assert applied == [(1198,)]


def assert_mirrored(world: World) -> None:
    """Every product that an import changed is in the legacy database as it is in the product database."""
    changed = {
        row[0] for row in world.rows("product", "select jsonb_array_elements_text(identifiers) from import_outcomes")
    }
    here, there = world.products(MIRRORED), world.products(MIRRORED, "legacy")
    assert {i: here[i] for i in changed} == {i: there.get(i) for i in changed}


def test_nothing_happens_to_an_undisturbed_import(world, file):
    """What all other tests here come to, without a fault."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.run()

    assert_applied(world, import_uuid)
    assert world.boundaries.passed == CALLS_OF_AN_IMPORT


def killed_at_each_call(world: World, deliver) -> int:
    """Calls `deliver` with a kill at its first call to the outside, its second, …; returns how many kills it took."""
    for boundary in range(1, 200):
        world.kill_at(boundary)
        try:
            deliver()
        except Killed:
            continue
        finally:
            world.kill_at(0)
        return boundary - 1
    raise AssertionError("never came through")


@pytest.mark.parametrize("boundary", range(1, CALLS_OF_AN_IMPORT + 1))
def test_a_kill_at_any_call_is_recovered_from(world, file, boundary):
    """One process dies at the n-th call to the outside, anywhere on the way; its delivery comes again."""
    import_uuid = world.upload(file)
    world.kill_at(boundary)
    deaths = 0
    try:
        world.deliver_upload(import_uuid)
    except Killed:
        deaths += 1
        world.kill_at(0)
        world.deliver_upload(import_uuid)
    while world.broker.waiting:
        message = world.broker.waiting[0]
        try:
            world.deliver(message)
        except Killed:
            deaths += 1
            world.kill_at(0)
            continue
        world.broker.waiting.popleft()

    world.kill_at(0)
    world.recover()

    assert_applied(world, import_uuid)
    assert deaths == 1


def test_every_message_delivered_twice(world, file):
    """Pub/Sub promises at least once, not once."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.deliver_upload(import_uuid)
    world.run(twice=True)

    assert_applied(world, import_uuid)


def test_messages_in_reverse_order(world, file):
    """No step relies on order."""
    import_uuid = world.upload(file)

    world.deliver_upload(import_uuid)
    world.run(order=deque.pop)

    assert_applied(world, import_uuid)


@pytest.mark.parametrize("seed", range(5))
def test_messages_in_any_order(world, file, seed):
    """Nor on a particular disorder."""
    chance = random.Random(seed)

    def any_of(waiting: deque):
        waiting.rotate(chance.randrange(len(waiting)))
        return waiting.popleft()

    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.run(order=any_of, twice=seed % 2 == 0)

    assert_applied(world, import_uuid)


def test_all_messages_of_a_kind_at_the_same_moment(world, file):
    """Triggers, batches, results and mirror messages each arrive together, and each twice."""
    import_uuid = world.upload(file)
    world.at_once(lambda: world.deliver_upload(import_uuid), lambda: world.deliver_upload(import_uuid))

    for kind in (ImportTrigger, ImportBatch, BatchApplied, ProductsUpdated):
        messages = world.broker.take(kind) * 2
        assert messages
        world.at_once(*[lambda message=message: world.deliver(message) for message in messages])
    world.recover()

    assert_applied(world, import_uuid)


def test_the_last_two_results_at_the_same_moment(world, file):
    """Two transactions that each add one of the last two results must not both miss the end."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    for kind in (ImportTrigger, ImportBatch):
        for message in world.broker.take(kind):
            world.deliver(message)
    *first, last_but_one, last = world.broker.take(BatchApplied)
    for message in first:
        world.deliver(message)

    world.at_once(lambda: world.deliver(last_but_one), lambda: world.deliver(last))

    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.COMPLETED_WITH_ERRORS, (1200, 1198, 0, 2))


@pytest.mark.parametrize("kind", [ImportTrigger, ImportBatch, BatchApplied, ProductsUpdated])
def test_a_message_lost_for_good(world, file, kind):
    """Kafka and Pub/Sub lose nothing, until they do: sweep has it sent again."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    while not (lost := world.broker.take(kind)):
        world.deliver(world.broker.waiting.popleft())
    world.broker.waiting.extend(lost[1:])

    world.recover()

    assert_applied(world, import_uuid)


def test_a_storage_event_lost_for_good(world, file):
    """The import exists when its file does, event or not."""
    import_uuid = world.upload(file)

    world.recover()

    assert_applied(world, import_uuid)


def test_two_uploads_at_the_same_moment(world, file):
    """One runs; the other says which one, and can be retried when it is done."""
    one, two = world.upload(file), world.upload(file)

    world.at_once(lambda: world.deliver_upload(one), lambda: world.deliver_upload(two))
    states = {world.find(uuid).status: uuid for uuid in (one, two)}
    winner, loser = states[Status.IN_QUEUE], states[Status.FAILED_UNEXPECTEDLY]
    assert str(winner) in world.find(loser).reason
    world.run()
    assert_applied(world, winner)

    world.retry(loser)
    world.run()

    found = world.find(loser)
    assert (found.status, ledger(found)) == (Status.COMPLETED_WITH_ERRORS, (1200, 0, 1198, 2))


def test_a_claim_that_goes_stale_and_comes_back(world, file):
    """A claimant sleeps through its lease in the middle of sending; the next does the work, and it is not undone."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    slept = []

    def sleep_through(messages) -> None:
        if isinstance(messages[0], ImportBatch) and not slept:
            slept.append(True)
            world.let_time_pass()
            world.deliver(trigger)
            world.run()
            assert_applied(world, import_uuid)

    world.broker.before_send = sleep_through
    world.deliver(trigger)
    world.recover()

    assert slept
    assert_applied(world, import_uuid)


def test_giving_up_while_batches_are_on_their_way(world, file):
    """Nothing is applied behind the final state; what was applied before it counts; a retry afterwards works."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    first, *late = world.broker.take(ImportBatch)
    world.deliver(first)
    world.broker.take(BatchApplied)
    for _ in range(11):
        world.let_time_pass()
        world.sweep()
        for trigger in world.broker.take(ImportTrigger):
            world.deliver(trigger)
        late += world.broker.take(ImportBatch)

    found = world.find(import_uuid)
    assert found.status == Status.FAILED_UNEXPECTEDLY
    assert "gave up" in found.reason
    assert ledger(found) == (1200, 500, 0, 700)
    before = world.products("price")
    for batch in late:
        assert world.deliver(batch) == 200
    assert world.products("price") == before
    assert ledger(world.find(import_uuid)) == (1200, 500, 0, 700)

    world.retry(import_uuid)
    world.recover()
    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.COMPLETED_WITH_ERRORS, (1200, 698, 500, 2))
    assert_mirrored(world)


@pytest.mark.parametrize("gone", [True, False], ids=["removed", "replaced"])
def test_a_file_gone_while_batches_are_on_their_way(world, file, gone):
    """The import says what happened to its file; batches that arrive afterwards are not applied."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    batches = world.broker.take(ImportBatch)
    world.deliver(batches[0])
    world.broker.waiting.clear()
    (stored,) = world.bucket.list("imports/")
    if gone:
        world.bucket.remove(stored.path)
    else:
        world.put(import_uuid, "identifier,price\r\nother,1\r\n")

    world.recover()

    found = world.find(import_uuid)
    assert found.status == Status.FAILED_UNEXPECTEDLY
    assert "products.csv" in found.reason
    assert ledger(found) == (1200, 500, 0, 700)
    before = world.products("price")
    for batch in batches[1:]:
        world.deliver(batch)
    assert world.products("price") == before
    assert_mirrored(world)


def test_closing_follows_the_ledger_when_all_was_applied(world, file):
    """All batches were applied, every result was lost, then the file: nothing was left undone, so it is no failure."""
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


def test_killed_while_closing(world, file):
    """Between the closed gate and the final state the process dies: the next claimant goes on with the same reason."""
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

    deaths = killed_at_each_call(world, claim_again)
    world.recover()

    assert deaths > 0
    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.FAILED_UNEXPECTEDLY, (1200, 0, 0, 1200))
    assert "gone" in found.reason


def test_a_claimant_that_lost_its_lease_closes_nothing(world, file):
    """It gives up on an import that somebody else brings to a good end: its words come too late."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    with world.looking["service"].begin() as service:
        stale = jobs.claim_import(service, trigger)
    world.let_time_pass()
    world.deliver(trigger)

    with pytest.raises(NothingToDo):
        closing.close_import(world.service, world.product, stale, "stale words")
    world.recover()

    assert_applied(world, import_uuid)


def test_a_long_queue_is_waited_for(world, file):
    """Batches that only wait are sent again less and less often, not given up on in minutes."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    leases_seconds = []
    for _ in range(4):
        world.deliver(world.broker.take(ImportTrigger)[-1])
        ((seconds,),) = world.rows("service", "select extract(epoch from lease_until - clock_timestamp()) from imports")
        leases_seconds.append(round(float(seconds), -1))
        world.let_time_pass()
        world.sweep()

    assert leases_seconds == [LEASE_SECONDS, LEASE_SECONDS, 2 * LEASE_SECONDS, 3 * LEASE_SECONDS]


def test_a_retry_while_an_old_claimant_wakes_up(world, file):
    """What the old run still sends and writes is fenced off; the new run is applied whole."""
    import_uuid = world.upload(file)
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    old_batches = []

    def sleep_through(messages) -> None:
        if isinstance(messages[0], ImportBatch) and not old_batches:
            old_batches.append(messages)
            world.let_time_pass()
            with world.looking["service"].begin() as service:
                jobs.finish_import(
                    service,
                    import_uuid,
                    1,
                    Status.FAILED_UNEXPECTEDLY,
                    "for the test",
                    total_rows=0,
                    updated_rows=0,
                    unchanged_rows=0,
                    failed_rows=0,
                )
            world.retry(import_uuid)
            world.deliver(world.broker.take(ImportTrigger)[0])

    world.broker.before_send = sleep_through
    world.deliver(trigger)
    world.recover()

    assert old_batches
    assert world.find(import_uuid).run == 2
    assert_applied(world, import_uuid)


def test_an_older_change_reaches_the_mirror_after_a_newer_one(world):
    """The mirror writes what the products are, not what a message says they were."""
    (identifier,) = world.identifiers(1)
    older = world.import_without_mirror(table([["identifier", "price"], [identifier, "1"]]))
    newer = world.import_without_mirror(table([["identifier", "price"], [identifier, "2"]]))

    for message in (*newer, *older):
        world.deliver(message)

    assert float(world.products("price", "legacy")[identifier]) == 2
    assert_mirrored(world)


def test_a_broker_that_is_down_costs_time_and_nothing_else(world, file):
    """Sends fail for a while: claims and outcomes stand, and everything is sent once the broker is back."""
    import_uuid = world.upload(file)
    world.broker.down = True
    assert world.deliver_upload(import_uuid) == 503
    world.let_time_pass()
    assert world.sweep() == 503
    world.broker.down = False
    world.recover()

    assert_applied(world, import_uuid)


def test_a_poison_message_is_put_aside_once(world):
    """What is no message is dead-lettered with its topic and the reason, and answered with success."""
    status = world.push_bytes(ImportBatch, b'{"webshop_uuid": "no"}')

    assert status == 200
    (letter,) = world.dead_letters.messages
    assert (letter.topic, letter.attributes["topic"]) == ("dead-letters", "webshop.products.import")
    assert "webshop_uuid" in letter.attributes["reason"]
    assert letter.data == b'{"webshop_uuid": "no"}'
