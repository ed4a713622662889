"""Exports under faults: workers that are killed at any call, duplicate, late and lost messages, failing systems.

After every fault the export ends, the history is equal to its row, and the bucket has exactly the complete files of
completed exports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from functions.exports import export_render
from functions.exports.states import MAX_ATTEMPTS
from shared import leases
from shared.errors import Unavailable
from shared.messages import ExportHistory, ExportRequest, Message
from tests.exports_world import ExportsWorld, Proxy
from tests.integration.waiting import wait_until
from tests.world import Killed

if TYPE_CHECKING:
    from tests.conftest import Databases

# Calls to other systems: commits, messages and changes of the bucket. The first test counts them.
CALLS_OF_AN_EXPORT = 12
CALLS_OF_A_LATER_EXPORT = 16
CALLS_OF_A_DELETION = 5
MAX_CALLS_OF_A_SWEEP = 50  # more than a sweep makes now, because features will add parts to it


@pytest.fixture(autouse=True)
def no_renewal_during_the_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the number of calls the same on a machine on which an export takes seconds. Some tests shorten the time."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 3600.0)


def run_killed_at(exports: ExportsWorld, call: int, begin: Callable[[], Any]) -> int:
    """Calls `begin` and delivers all messages, with a kill at call number `call` (0: none). Returns the kills.

    A message whose worker was killed is delivered again. `begin` is not called again.
    """
    kills = 0
    exports.kill_at(call)
    try:
        begin()
    except Killed:
        kills += 1
        exports.kill_at(0)
    while exports.broker.waiting:
        try:
            exports.deliver(exports.broker.waiting[0])
        except Killed:
            kills += 1
            exports.kill_at(0)
            continue
        exports.broker.waiting.popleft()
    exports.boundaries.until_kill = 0
    return kills


def test_the_number_of_calls(exports: ExportsWorld) -> None:
    """The other tests kill a worker at each of these calls."""
    assert run_killed_at(exports, 0, exports.ask) == 0
    assert exports.boundaries.passed == CALLS_OF_AN_EXPORT
    assert run_killed_at(exports, 0, exports.ask_later) == 0
    assert exports.boundaries.passed == CALLS_OF_A_LATER_EXPORT
    ((export_uuid,), _) = exports.rows("service", "select uuid from exports")
    assert run_killed_at(exports, 0, lambda: exports.call("DELETE", f"/{export_uuid}")) == 0
    assert exports.boundaries.passed == CALLS_OF_A_DELETION


@pytest.mark.parametrize("call", range(1, CALLS_OF_AN_EXPORT + 1))
def test_a_kill_while_the_client_waits(exports: ExportsWorld, call: int) -> None:
    """The client gets no response. The same request with the same key gives one file."""
    key = {"Idempotency-Key": "k"}

    assert run_killed_at(exports, call, lambda: exports.ask(key)) == 1

    exports.recover()
    exports.assert_settled()
    response = exports.ask(key)
    assert (response.status_code, response.json["status"]) == (201, "COMPLETED")
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_LATER_EXPORT + 1))
def test_a_kill_during_a_later_export(exports: ExportsWorld, call: int) -> None:
    """Another worker renders an export whose worker was killed at any call."""
    assert run_killed_at(exports, call, exports.ask_later) == 1

    exports.recover()

    exports.assert_settled()
    rows = exports.rows("service", "select status from exports")
    assert rows in ([("COMPLETED",)], [])
    assert len(exports.files()) == len(rows)


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_DELETION + 1))
def test_a_kill_during_a_deletion(exports: ExportsWorld, call: int) -> None:
    """The export is deleted or not: the API, the bucket and the history agree."""
    export_uuid = exports.ask().json["uuid"]
    exports.run()

    assert run_killed_at(exports, call, lambda: exports.call("DELETE", f"/{export_uuid}")) == 1

    exports.recover()
    exports.assert_settled()
    assert exports.call("GET", f"/{export_uuid}").status_code == (200 if exports.files() else 404)


def test_a_kill_during_a_sweep(exports: ExportsWorld) -> None:
    """A sweep that expires an export is killed at any call. The next sweep continues."""
    for call in range(1, MAX_CALLS_OF_A_SWEEP):
        export_uuid = exports.ask().json["uuid"]
        exports.run()
        exports.change("service", "update exports set finished_at = finished_at - interval '31 days'")

        kills = run_killed_at(exports, call, exports.sweep)

        exports.recover()
        exports.assert_settled()
        assert exports.get(export_uuid)["status"] == "EXPIRED"
        assert exports.files() == set()
        if not kills:
            return
    raise AssertionError(f"a sweep makes {MAX_CALLS_OF_A_SWEEP} calls or more")


def test_an_export_that_kills_every_worker_fails(exports: ExportsWorld) -> None:
    """It is given up after the last attempt, and the error names their number."""
    export_uuid = exports.ask_later()["uuid"]
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

    export = exports.get(export_uuid)
    assert (export["status"], export["download_url"]) == ("FAILED", None)
    assert str(MAX_ATTEMPTS) in export["error"]
    exports.assert_settled()


def test_messages_may_arrive_twice_and_in_reverse_order(exports: ExportsWorld) -> None:
    """No step relies on the order or number of messages."""
    for _ in range(3):
        exports.ask_later()
    exports.ask()

    exports.run(order=lambda waiting: waiting.pop(), twice=True)

    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 4


@pytest.mark.parametrize("kind", [ExportRequest, ExportHistory])
def test_a_message_may_be_lost(exports: ExportsWorld, kind: type[Message]) -> None:
    """Sweep sends it again."""
    exports.ask_later()
    while exports.broker.waiting:
        exports.broker.take(kind)
        if exports.broker.waiting:
            exports.deliver(exports.broker.waiting.popleft())

    exports.recover()

    exports.assert_settled()
    assert len(exports.files()) == 1


def test_concurrent_duplicates_of_a_request_render_once(exports: ExportsWorld) -> None:
    """One worker claims the export. The others have nothing to do."""
    exports.ask_later()
    (request,) = exports.broker.take(ExportRequest)

    exports.at_once(*[lambda: exports.deliver(request)] * 3)

    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select attempts, status from exports") == [(1, "COMPLETED")]


def test_a_worker_that_lost_its_lease_publishes_nothing(exports: ExportsWorld) -> None:
    """Another worker completes the export meanwhile: only the file of that worker exists."""
    export_uuid = exports.ask_later()["uuid"]
    (request,) = exports.broker.take(ExportRequest)

    def deliver_again() -> None:
        exports.storage.before_publish = lambda: None
        exports.let_time_pass()
        exports.deliver(request)

    exports.storage.before_publish = deliver_again
    exports.deliver(request)

    row = exports.row(export_uuid)
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
    assert exports.files() == {row["file_uri"].removeprefix(exports.storage.uri(""))}
    exports.recover()
    exports.assert_settled()


def test_a_worker_that_lost_its_lease_stops_rendering(exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next report of its progress stops a render whose export was deleted."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    export_uuid = exports.ask_later()["uuid"]
    reported_rows: list[int] = []

    def render_endlessly(*arguments: Any) -> int:
        progress = arguments[-1]
        exports.call("DELETE", f"/{export_uuid}")
        for rows in range(1, 1_000_000_000):
            reported_rows.append(rows)
            progress(rows)
        return 0

    monkeypatch.setattr(export_render, "render", render_endlessly)
    (request,) = exports.broker.take(ExportRequest)

    assert exports.deliver(request) == 200

    assert reported_rows
    exports.recover()
    exports.assert_settled()


def test_progress_is_shown_during_the_rendering(exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export shows the number of rows so far. The lease is renewed even if no row arrives for a while."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    export_uuid = exports.ask_later()["uuid"]
    render = export_render.render
    progress_rows: list[int] = []

    def render_and_check(*arguments: Any) -> int:
        *others, progress = arguments
        progress(12_345)
        exports.change("service", "update exports set lease_until = clock_timestamp()")
        before = exports.row(export_uuid)["lease_until"]

        def is_renewed() -> bool:
            row = exports.row(export_uuid)
            return bool(row["progress_rows"] > 0 and row["lease_until"] > before)

        wait_until(is_renewed, "the lease to be renewed")
        progress_rows.append(exports.get(export_uuid)["progress_rows"])
        return render(*others, lambda _rows: None)  # type: ignore[call-arg]

    monkeypatch.setattr(export_render, "render", render_and_check)
    exports.run()

    assert progress_rows == [12_345]
    assert exports.get(export_uuid)["status"] == "COMPLETED"


def test_a_worker_without_progress_loses_its_lease(
    exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that hangs is still alive, but another worker renders its export."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(leases, "MAX_STALL_SECONDS", 0.05)
    export_uuid = exports.ask_later()["uuid"]
    render = export_render.render

    def hang_and_render(*arguments: Any) -> int:
        monkeypatch.setattr(export_render, "render", render)
        wait_until(lambda: "the lease is not renewed any more" in caplog.text, "the last renewal")
        exports.let_time_pass()
        exports.sweep()
        exports.run()
        return render(*arguments)

    monkeypatch.setattr(export_render, "render", hang_and_render)
    exports.run()

    exports.recover()
    row = exports.row(export_uuid)
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
    exports.assert_settled()


@pytest.fixture
def connect_through_proxy(exports: ExportsWorld, fresh_databases: Databases) -> Callable[[str], Proxy]:
    """Connects the functions to a database through a proxy."""

    def connect(database: str) -> Proxy:
        url = getattr(fresh_databases, f"{database}_url")
        proxy = Proxy(urlsplit(url).netloc.rpartition("@")[2])
        exports.connect_through(proxy, database, url)
        return proxy

    return connect


PRODUCTS: dict[str, Any] = {"source": "products", "file_name": "products"}


def test_a_product_database_that_disconnects_fails_the_export(
    exports: ExportsWorld, connect_through_proxy: Callable[[str], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is 503 with a reason, and there is never a truncated file."""
    connect_through_proxy("product").cut_after_bytes = 100_000

    response = exports.ask(**PRODUCTS)

    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert response.headers["Retry-After"]
    monkeypatch.setattr("shared.clients.product_database", lambda: exports.product_db)
    export = exports.get(response.json["export_uuid"])
    assert (export["status"], export["download_url"]) == ("FAILED", None)
    assert "Reference" in export["error"]
    assert exports.files() == set()
    exports.recover()
    exports.assert_settled()


def test_a_product_database_that_disconnects_costs_a_later_export_one_attempt(
    exports: ExportsWorld, connect_through_proxy: Callable[[str], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt completes the export."""
    export_uuid = exports.ask_later(**PRODUCTS)["uuid"]
    connect_through_proxy("product").cut_after_bytes = 100_000
    (request,) = exports.broker.take(ExportRequest)
    assert exports.deliver(request) == 503
    monkeypatch.setattr("shared.clients.product_database", lambda: exports.product_db)

    exports.recover()

    row = exports.row(export_uuid)
    assert (row["status"], row["attempts"]) == ("COMPLETED", 2)
    exports.assert_settled()


def test_a_service_database_that_disconnects_costs_an_attempt(
    exports: ExportsWorld, connect_through_proxy: Callable[[str], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is 503. When the database responds again, the next attempt completes the export with one file."""
    proxy = connect_through_proxy("service")
    exports.storage.before_publish = proxy.close

    response = exports.ask()

    assert response.status_code == 503
    monkeypatch.setattr("shared.clients.service_database", lambda: exports.service_db)
    exports.storage.before_publish = lambda: None
    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select status from exports") == [("COMPLETED",)]


def test_a_commit_may_succeed_without_its_confirmation(exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not know that it completed the export. The response shows the row, and the file stays."""
    complete_export = export_render.complete_export

    def commit_and_fail(conn: Connection, *arguments: Any) -> None:
        complete_export(conn, *arguments)
        conn.commit()
        raise OperationalError("commit", {}, ConnectionResetError())

    monkeypatch.setattr(export_render, "complete_export", commit_and_fail)

    response = exports.ask()

    assert (response.status_code, response.json["status"]) == (201, "COMPLETED")
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


def test_a_bucket_that_cannot_be_written_fails_the_export(
    exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is 503."""
    monkeypatch.setattr(exports.storage, "_bucket", exports.storage._bucket.client.bucket("no-such-bucket"))

    response = exports.ask()

    assert (response.status_code, response.content_type) == (503, "application/problem+json")
    assert exports.get(response.json["export_uuid"])["status"] == "FAILED"


def test_an_export_can_be_deleted_although_its_file_cannot(
    exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweep deletes the file later."""
    export_uuid = exports.ask().json["uuid"]
    remove = exports.storage.remove

    def refuse(path: str) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(exports.storage, "remove", refuse)
    assert exports.call("DELETE", f"/{export_uuid}").status_code == 204
    assert exports.download(export_uuid).status_code == 404
    monkeypatch.setattr(exports.storage, "remove", remove)

    exports.recover()

    exports.assert_settled()


def test_exports_are_accepted_while_the_broker_is_down(exports: ExportsWorld) -> None:
    """The file is rendered and the client gets it. Sweep sends the messages when the broker is up again."""
    exports.broker.down = True
    at_once = exports.ask()
    later = exports.ask({"Prefer": "respond-async"})
    assert (at_once.status_code, later.status_code) == (201, 202)
    exports.let_time_pass()
    assert exports.sweep() == 503
    exports.broker.down = False

    exports.recover()

    exports.assert_settled()
    assert len(exports.files()) == 2


def test_a_request_that_has_become_invalid_fails_at_once(exports: ExportsWorld) -> None:
    """A source or column may have been removed since the request. The export is FAILED after one attempt."""
    export_uuid = exports.ask_later()["uuid"]
    exports.change("service", "update exports set request = replace(request, 'suppliers', 'users')")
    (request,) = exports.broker.take(ExportRequest)

    assert exports.deliver(request) == 200

    export = exports.get(export_uuid)
    assert export["status"] == "FAILED"
    assert "users" in export["error"]
    assert len(exports.dead_letters.messages) == 1
    exports.recover()
    exports.assert_settled()
