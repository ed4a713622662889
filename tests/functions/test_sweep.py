"""sweep, called through functions-framework: it recovers lost work once, and changes nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from functions.imports.recovery import FILE_RETENTION, MAX_EVENT_AGE, STALLED_CLAIMS
from shared.leases import MAX_ROWS_PER_SWEEP
from shared.messages import ImportTrigger, ProductsUpdated
from tests.world import table

if TYPE_CHECKING:
    from datetime import timedelta

    import pytest

    from tests.world import World

FILE = "identifier,price\r\nnowhere,1\r\n"


def age_objects(world: World, age: timedelta) -> None:
    """Makes every object in the bucket older by `age`."""
    for path, (stored, content) in world.bucket.objects.items():
        world.bucket.objects[path] = (replace(stored, created_at=stored.created_at - age), content)


def test_an_upload_without_an_import_is_recorded(world: World) -> None:
    """A lost event does not lose the import."""
    import_uuid = world.upload(FILE)

    world.sweep()

    assert world.broker.sent == [ImportTrigger(world.webshop, import_uuid, 1)]
    assert world.find(import_uuid).file_name == "products.csv"


def test_an_old_upload_without_an_import_is_not_recorded(world: World) -> None:
    """After a day its event is not counted as lost. After the retention the file is deleted."""
    world.upload(FILE)
    age_objects(world, MAX_EVENT_AGE)

    world.sweep()
    assert (world.broker.sent, len(world.bucket.objects)) == ([], 1)

    age_objects(world, FILE_RETENTION)
    world.sweep()
    assert world.bucket.objects == {}


def test_an_unclaimed_import_is_triggered_again_once_its_trigger_is_late(world: World) -> None:
    """The first trigger has some time to arrive, and so has each one that sweep sends."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.broker.waiting.clear()

    world.sweep()
    assert not world.broker.waiting
    world.let_time_pass()
    world.sweep()
    world.sweep()
    assert list(world.broker.waiting) == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_a_final_import_is_not_triggered(world: World) -> None:
    """Final is final."""
    world.import_file(FILE)
    sent = len(world.broker.sent)
    world.let_time_pass()

    world.sweep()

    assert len(world.broker.sent) == sent


def test_a_stalled_import_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An engineer can look at it before it is given up."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.change("service", "update imports set claims = :n", n=STALLED_CLAIMS)
    world.let_time_pass()

    world.sweep()

    assert f"Import {import_uuid} has made no progress in {STALLED_CLAIMS} claims" in caplog.text


def test_a_batch_result_that_is_not_mirrored_after_a_minute_is_sent_again(world: World) -> None:
    """The message is equal to the lost one."""
    identifiers = world.identifiers(2)
    rows = [[identifier, "3.21"] for identifier in identifiers]
    (lost,) = world.import_without_mirror(table([["identifier", "price"], *rows]))

    world.sweep()
    assert not world.broker.waiting
    world.let_time_pass()
    world.sweep()

    assert world.broker.take(ProductsUpdated) == [lost]


def test_a_part_that_fails_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket does not respond: imports are requeued all the same, and the response says that a part failed."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    world.broker.waiting.clear()
    world.let_time_pass()

    def fail(_prefix: str) -> NoReturn:
        raise ConnectionError("the bucket does not answer")

    monkeypatch.setattr(world.bucket, "list", fail)

    assert world.sweep() == 503
    assert list(world.broker.waiting) == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_a_bad_upload_does_not_stop_the_recovery_of_others(world: World) -> None:
    """A program may put any path and any metadata into the bucket."""
    bad = world.upload(FILE, operation="UP\0DATE", user_uuid="\0", on_error="\0")
    path = f"imports/{world.tenants.other_webshop_uuid}/{bad}/a\0b.csv"
    world.bucket.put(path, b"x", {"user-uuid": str(world.user)})
    good = world.put_for(world.tenants.other_webshop_uuid, FILE)

    assert world.sweep() == 200

    assert world.rows("service", "select status from imports where uuid = :i", i=good) == [("IN_QUEUE",)]
    assert "without a valid" in world.find(bad).reason


def test_an_upload_that_the_database_refuses_does_not_stop_the_others(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and tried again by the next sweep; the other uploads are recorded now."""
    world.change(
        "service",
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;"
        f" create trigger refuse before insert on imports for each row when (new.webshop_uuid = '{world.webshop}')"
        " execute function refuse()",
    )
    refused = world.upload(FILE)
    good = world.put_for(world.tenants.other_webshop_uuid, FILE)

    assert world.sweep() == 200

    assert world.rows("service", "select uuid from imports") == [(good,)]
    assert f"{refused}/products.csv cannot be recorded" in caplog.text
    world.change("service", "drop trigger refuse on imports")
    world.sweep()
    assert world.find(refused).status == "IN_QUEUE"


def test_batch_results_that_cannot_be_mirrored_do_not_block_newer_ones(world: World) -> None:
    """A full sweep of them is sent again, and the next sweep sends the others."""
    statement = (
        "insert into import_outcomes (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused,"
        " identifiers, mirror_due_at) select gen_random_uuid(), 1, 2, :w, 1, 0, '[]', cast(:identifiers as jsonb),"
        " now() - cast(:age as interval) from generate_series(1, :count)"
    )
    world.change("product", statement, w=world.webshop, identifiers='["bad"]', age="2 hours", count=MAX_ROWS_PER_SWEEP)
    world.change("product", statement, w=world.webshop, identifiers='["good"]', age="1 hour", count=1)

    world.sweep()
    world.sweep()

    sent = world.broker.take(ProductsUpdated)
    assert len(sent) == MAX_ROWS_PER_SWEEP + 1
    assert sent[-1].identifiers == ("good",)


def test_old_batch_results_and_gates_are_deleted(world: World) -> None:
    """They are deleted after RESULT_RETENTION_DAYS. A batch result that is not mirrored stays."""
    insert_result = (
        "insert into import_outcomes (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused,"
        " identifiers, applied_at, mirrored_at, mirror_due_at)"
        " values (gen_random_uuid(), 1, :row, :w, 1, 0, '[]', '[]',"
        " now() - make_interval(days => :days), case when :mirrored then now() end, now() + interval '1 hour')"
    )
    insert_gate = (
        "insert into import_gates values (gen_random_uuid(), 1, true, '', now() - make_interval(days => :days))"
    )
    for row, (days, mirrored) in enumerate([(61, True), (61, False), (59, True)]):
        world.change("product", insert_result, row=row, w=world.webshop, days=days, mirrored=mirrored)
    for days in (61, 59):
        world.change("product", insert_gate, days=days)

    world.sweep()

    assert world.rows("product", "select first_row from import_outcomes order by 1") == [(1,), (2,)]
    assert len(world.rows("product", "select * from import_gates")) == 1
