"""sweep, through the framework: what was forgotten is found, once, and nothing else is touched."""

from dataclasses import replace
from datetime import timedelta

from functions.imports.recovery import FILE_RETENTION, MAX_EVENT_AGE, STALLED_CLAIMS
from shared.leases import MAX_ROWS_PER_SWEEP
from shared.messages import ImportTrigger, ProductsUpdated
from tests.world import World, table

FILE = "identifier,price\r\nnowhere,1\r\n"


def aged(world: World, age: timedelta) -> None:
    """Makes every object in the bucket older."""
    for path, (stored, content) in world.bucket.objects.items():
        world.bucket.objects[path] = (replace(stored, created_at=stored.created_at - age), content)


def test_an_upload_without_a_row_is_recorded(world):
    """A lost event loses no import."""
    import_uuid = world.upload(FILE)

    world.sweep()

    assert world.broker.sent == [ImportTrigger(world.webshop, import_uuid, 1)]
    assert world.find(import_uuid).file_name == "products.csv"


def test_an_old_upload_without_a_row_is_no_lost_event(world):
    """After a day nobody expects it any more; after the retention the file goes."""
    world.upload(FILE)
    aged(world, MAX_EVENT_AGE)

    world.sweep()
    assert (world.broker.sent, len(world.bucket.objects)) == ([], 1)

    aged(world, FILE_RETENTION)
    world.sweep()
    assert world.bucket.objects == {}


def test_an_import_nobody_claimed_is_triggered_again_and_not_too_often(world):
    """Its first trigger gets its time, and so does each that sweep sends."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.broker.waiting.clear()

    world.sweep()
    assert not world.broker.waiting
    world.let_time_pass()
    world.sweep()
    world.sweep()
    assert list(world.broker.waiting) == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_an_import_that_is_over_is_left_alone(world):
    """Final is final."""
    world.import_file(FILE)
    sent = len(world.broker.sent)
    world.let_time_pass()

    world.sweep()

    assert len(world.broker.sent) == sent


def test_an_import_that_does_not_move_is_said_so(world, caplog):
    """Somebody should look before it is given up."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.change("service", "update imports set claims = :n", n=STALLED_CLAIMS)
    world.let_time_pass()

    world.sweep()

    assert f"Import {import_uuid} has made no progress in {STALLED_CLAIMS} claims" in caplog.text


def test_an_outcome_that_was_not_mirrored_is_sent_again_after_a_minute(world):
    """The message says which products, as the first one did."""
    identifiers = world.identifiers(2)
    (lost,) = world.import_without_mirror(
        table([["identifier", "price"], *[[identifier, "3.21"] for identifier in identifiers]])
    )

    world.sweep()
    assert not world.broker.waiting
    world.let_time_pass()
    world.sweep()

    assert world.broker.take(ProductsUpdated) == [lost]


def test_a_part_that_fails_does_not_keep_the_others(world, monkeypatch):
    """The bucket is away: imports are woken all the same, and the sweep says that it failed."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.broker.waiting.clear()
    world.let_time_pass()

    def away(_prefix: str) -> None:
        raise ConnectionError("the bucket does not answer")

    monkeypatch.setattr(world.bucket, "list", away)

    assert world.sweep() == 503
    assert list(world.broker.waiting) == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_a_bad_upload_does_not_hold_up_the_others(world):
    """What one program puts into the bucket must not stop the recovery of everybody's imports."""
    bad = world.upload(FILE, operation="UP\0DATE", user_uuid="\0", on_error="\0")
    path = f"imports/{world.tenants.other_webshop_uuid}/{bad}/a\0b.csv"
    world.bucket.put(path, b"x", {"user-uuid": str(world.user)})
    good = world.put_for(world.tenants.other_webshop_uuid, FILE)

    assert world.sweep() == 200

    assert world.rows("service", "select status from imports where uuid = :i", i=good) == [("IN_QUEUE",)]
    assert "without a valid" in world.find(bad).reason


def test_outcomes_that_cannot_be_mirrored_wait_behind_the_others(world):
    """However many of them there are."""
    outcomes = (
        "insert into import_outcomes (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused,"
        " identifiers, mirror_due_at) select gen_random_uuid(), 1, 2, :w, 1, 0, '[]', cast(:identifiers as jsonb),"
        " now() - cast(:age as interval) from generate_series(1, :count)"
    )
    values = {"w": world.webshop}
    world.change("product", outcomes, **values, identifiers='["bad"]', age="2 hours", count=MAX_ROWS_PER_SWEEP)
    world.change("product", outcomes, **values, identifiers='["good"]', age="1 hour", count=1)

    world.sweep()
    world.sweep()

    sent = world.broker.take(ProductsUpdated)
    assert len(sent) == MAX_ROWS_PER_SWEEP + 1
    assert sent[-1].identifiers == ("good",)


def test_what_is_long_over_is_forgotten_and_nothing_else(world):
    """Outcomes that are mirrored, and gates, go after OUTCOME_RETENTION_DAYS; what is not mirrored stays."""
    outcome = (
        "insert into import_outcomes (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused,"
        " identifiers, applied_at, mirrored_at, mirror_due_at)"
        " values (gen_random_uuid(), 1, :row, :w, 1, 0, '[]', '[]',"
        " now() - make_interval(days => :days), case when :mirrored then now() end, now() + interval '1 hour')"
    )
    for row, (days, mirrored) in enumerate([(61, True), (61, False), (59, True)]):
        world.change("product", outcome, row=row, w=world.webshop, days=days, mirrored=mirrored)
    for days in (61, 59):
        gate = "insert into import_gates values (gen_random_uuid(), 1, true, '', now() - make_interval(days => :days))"
        world.change("product", gate, days=days)

    world.sweep()

    assert world.rows("product", "select first_row from import_outcomes order by 1") == [(1,), (2,)]
    assert len(world.rows("product", "select * from import_gates")) == 1
