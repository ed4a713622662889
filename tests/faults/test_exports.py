"""Exports under fire: killed at any call, delivered twice, late or never; databases, bucket and broker that fail.

Whatever happens, the export ends, its history ends as its row does, and the bucket holds exactly the files of completed
exports, whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from functions.exports import export_render
from functions.exports.states import MAX_ATTEMPTS
from shared import leases
from shared.errors import Unavailable
from shared.messages import ExportHistory, ExportRequest
from tests.exports_world import ExportsWorld, Proxy
from tests.integration.waiting import wait_until
from tests.world import Killed

# To the outside, counted, not guessed: commits, sends, and what is done to the bucket.
CALLS_OF_AN_EXPORT_MADE_AT_ONCE = 12
CALLS_OF_AN_EXPORT_MADE_LATER = 16
CALLS_OF_A_DELETION = 5
MOST_CALLS_OF_A_SWEEP = 50  # it has a part for each thing that can be forgotten, and more come


def run_killed_at(exports: ExportsWorld, call: int, begin: Callable[[], Any]) -> int:
    """Does `begin` and delivers what comes of it, with a kill at the `call`-th call; returns how many were killed.

    A client does not ask again; a delivery comes again.
    """
    deaths = 0
    exports.kill_at(call)
    try:
        begin()
    except Killed:
        deaths += 1
        exports.kill_at(0)
    while exports.broker.waiting:
        try:
            exports.deliver(exports.broker.waiting[0])
        except Killed:
            deaths += 1
            exports.kill_at(0)
            continue
        exports.broker.waiting.popleft()
    exports.boundaries.until_kill = 0
    return deaths


def test_what_the_other_tests_count(exports):
    """The calls that a kill can hit."""
    assert run_killed_at(exports, 0, exports.ask) == 0
    assert exports.boundaries.passed == CALLS_OF_AN_EXPORT_MADE_AT_ONCE
    assert run_killed_at(exports, 0, exports.ask_later) == 0
    assert exports.boundaries.passed == CALLS_OF_AN_EXPORT_MADE_LATER
    (one, _) = exports.rows("service", "select uuid from exports")
    assert run_killed_at(exports, 0, lambda: exports.call("DELETE", f"/{one[0]}")) == 0
    assert exports.boundaries.passed == CALLS_OF_A_DELETION


@pytest.mark.parametrize("call", range(1, CALLS_OF_AN_EXPORT_MADE_AT_ONCE + 1))
def test_a_kill_while_the_client_waits(exports, call):
    """The client hears nothing. Whether there is an export or not, asking again with its key ends in one file."""
    key = {"Idempotency-Key": "k"}

    assert run_killed_at(exports, call, lambda: exports.ask(key)) == 1

    exports.recover()
    exports.assert_settled()
    answer = exports.ask(key)
    assert (answer.status_code, answer.json["status"]) == (201, "COMPLETED")
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


@pytest.mark.parametrize("call", range(1, CALLS_OF_AN_EXPORT_MADE_LATER + 1))
def test_a_kill_while_it_is_made_later(exports, call):
    """One process dies anywhere on the way, and what it held is taken up again."""
    assert run_killed_at(exports, call, exports.ask_later) == 1

    exports.recover()

    exports.assert_settled()
    found = exports.rows("service", "select status from exports")
    assert found in ([("COMPLETED",)], [])
    assert len(exports.files()) == len(found)


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_DELETION + 1))
def test_a_kill_while_it_is_deleted(exports, call):
    """Deleted or not, but never half: what the client hears afterwards is what the bucket and the history say."""
    made = exports.ask().json
    exports.run()

    assert run_killed_at(exports, call, lambda: exports.call("DELETE", f"/{made['uuid']}")) == 1

    exports.recover()
    exports.assert_settled()
    assert exports.call("GET", f"/{made['uuid']}").status_code == (200 if exports.files() else 404)


def test_a_kill_while_the_sweep_expires_it(exports):
    """At whichever of its calls the sweep dies, the next one goes on."""
    for call in range(1, MOST_CALLS_OF_A_SWEEP):
        made = exports.ask().json
        exports.run()
        exports.change("service", "update exports set finished_at = finished_at - interval '31 days'")

        deaths = run_killed_at(exports, call, exports.sweep)

        exports.recover()
        exports.assert_settled()
        assert exports.get(made["uuid"])["status"] == "EXPIRED"
        assert exports.files() == set()
        if not deaths:
            return
    raise AssertionError("the sweep never came through")


def test_a_process_that_dies_at_every_attempt_fails_the_export(exports):
    """It is given up with a sentence, and its merchant is not kept waiting."""
    asked = exports.ask_later()
    for _ in range(MAX_ATTEMPTS):
        for request in exports.broker.take(ExportRequest):
            exports.kill_at(5)
            with pytest.raises(Killed):
                exports.deliver(request)
            exports.kill_at(0)
        exports.run()
        exports.let_time_pass()
        exports.sweep()
    exports.recover()

    found = exports.get(asked["uuid"])
    assert (found["status"], found["download_url"]) == ("FAILED", None)
    assert str(MAX_ATTEMPTS) in found["error"]
    exports.assert_settled()


def test_every_message_twice_and_in_reverse(exports):
    """No step relies on order or number."""
    for _ in range(3):
        exports.ask_later()
    exports.ask()

    exports.run(order=lambda waiting: waiting.pop(), twice=True)

    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 4


@pytest.mark.parametrize("kind", [ExportRequest, ExportHistory])
def test_a_message_lost_for_good(exports, kind):
    """Sweep has it sent again."""
    exports.ask_later()
    while exports.broker.waiting:
        exports.broker.take(kind)
        if exports.broker.waiting:
            exports.deliver(exports.broker.waiting.popleft())

    exports.recover()

    exports.assert_settled()
    assert len(exports.files()) == 1


def test_a_request_delivered_twice_at_once_is_rendered_once(exports):
    exports.ask_later()
    (request,) = exports.broker.take(ExportRequest)

    exports.at_once(*[lambda: exports.deliver(request)] * 3)

    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select attempts, status from exports") == [(1, "COMPLETED")]


def test_a_claimant_that_sleeps_through_its_lease_publishes_nothing(exports):
    """Somebody else completed it meanwhile: the sleeper's file never appears, and the other's stays."""
    asked = exports.ask_later()
    (request,) = exports.broker.take(ExportRequest)
    slept = []

    def sleep() -> None:
        if not slept:
            slept.append(True)
            exports.let_time_pass()
            exports.deliver(request)

    exports.storage.before_publish = sleep
    exports.deliver(request)

    found = exports.row(asked["uuid"])
    assert (found["status"], found["attempts"]) == ("COMPLETED", 2)
    assert exports.files() == {found["file_uri"].removeprefix(exports.storage.uri(""))}
    exports.recover()
    exports.assert_settled()


def test_a_render_that_lost_its_lease_stops_by_itself(exports, monkeypatch):
    """It does not go on for minutes for nothing: the next progress it makes ends it."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    asked = exports.ask_later()
    rendered = export_render.render
    seen = []

    def slow(*arguments: Any) -> int:
        *others, progress = arguments
        exports.call("DELETE", f"/{asked['uuid']}")
        for rows in range(1, 1_000_000_000):
            seen.append(rows)
            progress(rows)
        return int(rendered(*others, progress))

    monkeypatch.setattr(export_render, "render", slow)
    (request,) = exports.broker.take(ExportRequest)

    assert exports.deliver(request) == 200

    assert seen
    exports.recover()
    exports.assert_settled()


def test_progress_can_be_seen_while_it_is_made(exports, monkeypatch):
    """The rows so far stand on the export's row, and its lease is kept, also while no row comes."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    asked = exports.ask_later()
    rendered = export_render.render
    seen = []

    def watched(*arguments: Any) -> int:
        *others, progress = arguments
        progress(12_345)
        exports.change("service", "update exports set lease_until = clock_timestamp()")
        before = exports.row(asked["uuid"])["lease_until"]

        def is_renewed() -> bool:
            found = exports.row(asked["uuid"])
            return found["progress_rows"] > 0 and found["lease_until"] > before

        wait_until(is_renewed, "the lease to be renewed")
        seen.append(exports.get(asked["uuid"])["progress_rows"])
        return int(rendered(*others, lambda _rows: None))

    monkeypatch.setattr(export_render, "render", watched)
    exports.run()

    assert seen == [12_345]
    assert exports.get(asked["uuid"])["status"] == "COMPLETED"


def test_a_render_that_stands_still_loses_its_lease(exports, monkeypatch, caplog):
    """A process that hangs is alive, but its work is not: somebody else may have it."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(leases, "MAX_STALL_SECONDS", 0.05)
    asked = exports.ask_later()
    rendered = export_render.render

    def hanging(*arguments: Any) -> int:
        monkeypatch.setattr(export_render, "render", rendered)
        wait_until(lambda: "the lease is not renewed any more" in caplog.text, "the last renewal")
        exports.let_time_pass()
        exports.sweep()
        exports.run()
        return int(rendered(*arguments))

    monkeypatch.setattr(export_render, "render", hanging)
    exports.run()

    exports.recover()
    found = exports.row(asked["uuid"])
    assert (found["status"], found["attempts"]) == ("COMPLETED", 2)
    exports.assert_settled()


@pytest.fixture
def proxied(exports, fresh_databases) -> Callable[[str], Proxy]:
    """Puts a proxy between the functions and a database."""

    def through(database: str) -> Proxy:
        url = getattr(fresh_databases, f"{database}_url")
        proxy = Proxy(urlsplit(url).netloc.rpartition("@")[2])
        exports.connect_through(proxy, database, url)
        return proxy

    return through


PRODUCTS = {"source": "products", "file_name": "products"}


def test_a_product_database_that_goes_away_in_the_middle(exports, proxied, monkeypatch):
    """503 with a sentence, the export FAILED, and no truncated file: not now, not later."""
    proxied("product").cut_after_bytes = 100_000

    answer = exports.ask(**PRODUCTS)

    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert answer.headers["Retry-After"]
    monkeypatch.setattr("shared.clients.product_database", lambda: exports.product_db)
    found = exports.get(answer.json["export_uuid"])
    assert (found["status"], found["download_url"]) == ("FAILED", None)
    assert "Reference" in found["error"]
    assert exports.files() == set()
    exports.recover()
    exports.assert_settled()


def test_a_product_database_that_comes_back_costs_an_attempt(exports, proxied, monkeypatch):
    """Asked for later, it is tried again, and completed."""
    asked = exports.ask_later(**PRODUCTS)
    proxied("product").cut_after_bytes = 100_000
    (request,) = exports.broker.take(ExportRequest)
    assert exports.deliver(request) == 503
    monkeypatch.setattr("shared.clients.product_database", lambda: exports.product_db)

    exports.recover()

    found = exports.row(asked["uuid"])
    assert (found["status"], found["attempts"]) == ("COMPLETED", 2)
    exports.assert_settled()


def test_a_service_database_that_goes_away_in_the_middle(exports, proxied, monkeypatch):
    """Nobody can say how it ended until it is back: then the export is made again, and its file is the only one."""
    proxy = proxied("service")
    exports.storage.before_publish = proxy.close

    answer = exports.ask()

    assert answer.status_code == 503
    monkeypatch.setattr("shared.clients.service_database", lambda: exports.service_db)
    exports.storage.before_publish = lambda: None
    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select status from exports") == [("COMPLETED",)]


def test_a_commit_whose_answer_is_lost(exports, monkeypatch):
    """It was completed, and nobody heard: the client is answered from the row, and the file stays."""
    complete = export_render.complete_export

    def cut_off(service: Connection, *arguments: Any) -> None:
        complete(service, *arguments)
        service.commit()
        raise OperationalError("commit", {}, ConnectionResetError())

    monkeypatch.setattr(export_render, "complete_export", cut_off)

    answer = exports.ask()

    assert (answer.status_code, answer.json["status"]) == (201, "COMPLETED")
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


def test_a_bucket_that_refuses(exports, monkeypatch):
    """503, the export FAILED, and the next one is made when the bucket takes it."""
    monkeypatch.setattr(exports.storage, "_bucket", exports.storage._bucket.client.bucket("no-such-bucket"))

    answer = exports.ask()

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert exports.get(answer.json["export_uuid"])["status"] == "FAILED"


def test_a_bucket_that_refuses_to_remove(exports, monkeypatch):
    """The export is deleted all the same; its file goes when the bucket lets it."""
    made = exports.ask().json
    removing = exports.storage.remove

    def refuse(path: str) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(exports.storage, "remove", refuse)
    assert exports.call("DELETE", f"/{made['uuid']}").status_code == 204
    assert exports.download(made["uuid"]).status_code == 404
    monkeypatch.setattr(exports.storage, "remove", removing)

    exports.recover()

    exports.assert_settled()


def test_a_broker_that_is_down_keeps_no_client_from_the_file(exports):
    """The export is made and answered; its history follows when the broker is back."""
    exports.broker.down = True
    answer = exports.ask()
    later = exports.ask({"Prefer": "respond-async"})
    assert (answer.status_code, later.status_code) == (201, 202)
    exports.let_time_pass()
    assert exports.sweep() == 503
    exports.broker.down = False

    exports.recover()

    exports.assert_settled()
    assert len(exports.files()) == 2


def test_a_request_that_no_attempt_can_meet_ends_at_once(exports):
    """A column may be gone since it was asked for: FAILED with the sentence, and not tried five times."""
    asked = exports.ask_later()
    exports.change("service", "update exports set request = replace(request, 'suppliers', 'users')")
    (request,) = exports.broker.take(ExportRequest)

    assert exports.deliver(request) == 200

    found = exports.get(asked["uuid"])
    assert found["status"] == "FAILED"
    assert "users" in found["error"]
    assert len(exports.dead_letters.messages) == 1
    exports.recover()
    exports.assert_settled()
