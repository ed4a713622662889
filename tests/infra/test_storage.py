from __future__ import annotations

import socket
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type

from infra.local import ports, storage_events, storage_server
from infra.local.storage_events import Bucket, Delivered, Watcher
from tests.infra.conftest import serving
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.infra.conftest import Receiver

NAME = "bucket"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """The address of a storage server."""
    port = ports.free_ports(1)[0]
    server = storage_server.server(tmp_path / "storage", port, NAME)
    with serving(server):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(host: str) -> storage.Bucket:
    """The bucket, as Google's own client sees it."""
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return storage.Client("local", credentials=credentials, client_options={"api_endpoint": host}).bucket(NAME)


@pytest.fixture
def watcher(host: str, receiver: Receiver, tmp_path: Path) -> Iterator[Callable[[], Watcher]]:
    """Creates watchers. Each knows what earlier watchers have delivered."""
    with ExitStack() as watchers:
        yield lambda: watchers.enter_context(
            closing(Watcher(Bucket(host, NAME), receiver.url, Delivered(tmp_path / "delivered")))
        )


def test_an_upload_session_accepts_one_put_and_keeps_its_metadata(bucket: storage.Bucket, host: str) -> None:
    """A browser uploads to the URL of this session. The URL lets it write the content, but not the metadata."""
    blob = bucket.blob("imports/shop/import/Süßes (1).csv")
    blob.metadata = {"user-uuid": "u"}
    url = blob.create_resumable_upload_session(content_type="text/csv", if_generation_match=0)

    headers = {"Content-Type": "text/csv", "x-goog-meta-user-uuid": "somebody else"}
    urllib.request.urlopen(urllib.request.Request(url, b"a,b\n", headers, method="PUT")).close()

    stored = bucket.get_blob(blob.name)
    assert url.startswith(f"{host}/")
    assert (stored.size, stored.metadata, stored.download_as_bytes()) == (4, {"user-uuid": "u"}, b"a,b\n")


def test_a_slow_client_does_not_block_other_clients(bucket: storage.Bucket, host: str) -> None:
    """An upload over a slow connection must not stop the functions from reading."""
    address = host.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as slow:
        slow.sendall(b"PUT /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")

        bucket.blob("imports/x").upload_from_string("quick", timeout=PATIENCE_SECONDS)

    assert bucket.get_blob("imports/x").size == 5


def test_objects_survive_a_restart(bucket: storage.Bucket, tmp_path: Path) -> None:
    """The objects are stored on disk."""
    bucket.blob("imports/x").upload_from_string("kept")

    server = storage_server.server(tmp_path / "storage", ports.free_ports(1)[0], NAME)
    with serving(server), closing(Bucket(f"127.0.0.1:{server.server_port}", NAME)) as reopened:
        found = [resource["name"] for resource in reopened.objects("imports/")]

    assert found == ["imports/x"]


def test_a_new_object_sends_the_event_of_cloud_storage(
    bucket: storage.Bucket, watcher: Callable[[], Watcher], receiver: Receiver
) -> None:
    """The event is a CloudEvent in binary mode with the object's resource. Other folders send no events."""
    blob = bucket.blob("imports/shop/import/Süßes (1).csv")
    blob.metadata = {"user-uuid": "u"}
    blob.upload_from_string("a,b\n", content_type="text/csv")
    bucket.blob("exports/x").upload_from_string("x")

    watcher().look()

    [event] = receiver.wait(1)
    assert event.headers["ce-type"] == "google.cloud.storage.object.v1.finalized"
    assert event.headers["ce-source"] == f"//storage.googleapis.com/projects/_/buckets/{NAME}"
    assert event.headers["ce-subject"] == "objects/imports/shop/import/S%C3%BC%C3%9Fes%20(1).csv"
    assert event.json["name"] == blob.name
    assert (event.json["generation"], event.json["metadata"]) == (str(blob.generation), {"user-uuid": "u"})


def test_an_event_is_sent_until_it_is_accepted(
    bucket: storage.Bucket,
    watcher: Callable[[], Watcher],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function that is down gets the event later, and an accepted event is not sent again."""
    monkeypatch.setattr(storage_events, "FIRST_BACKOFF_SECONDS", 0.01)
    bucket.blob("imports/x").upload_from_string("x")
    receiver.statuses += [503, 500]
    running = watcher()

    def has_sent_three_times() -> bool:
        running.look()
        return len(receiver.requests) >= 3

    wait_until(has_sent_three_times, "three events")
    wait_until((tmp_path / "delivered").read_text, "the delivery to be recorded")
    running.look()
    bucket.blob("imports/y").upload_from_string("y")
    running.look()

    assert [request.json["name"] for request in receiver.wait(4)] == ["imports/x"] * 3 + ["imports/y"]


def test_a_new_watcher_sends_only_the_missed_events(
    bucket: storage.Bucket, watcher: Callable[[], Watcher], receiver: Receiver, tmp_path: Path
) -> None:
    """No event is lost when a watcher is killed, and its successor repeats none. A replaced file is a new event."""
    bucket.blob("imports/x").upload_from_string("x")
    watcher().look()
    wait_until((tmp_path / "delivered").read_text, "the delivery to be recorded")

    bucket.blob("imports/y").upload_from_string("y")
    replaced = bucket.blob("imports/x")
    replaced.upload_from_string("xx")
    watcher().look()

    sent = {(request.json["name"], request.json["size"]) for request in receiver.wait(3)[1:]}
    assert sent == {("imports/y", "1"), ("imports/x", "2")}
