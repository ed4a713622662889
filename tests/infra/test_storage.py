from __future__ import annotations

import socket
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

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
    """The ordinary client's bucket."""
    options = {"api_endpoint": host}
    return storage.Client("local", credentials=AnonymousCredentials(), client_options=options).bucket(NAME)


@pytest.fixture
def watcher(host: str, receiver: Receiver, tmp_path: Path) -> Iterator[Callable[[], Watcher]]:
    """Makes a watcher: each knows what those before it delivered."""
    with ExitStack() as watchers:
        yield lambda: watchers.enter_context(
            closing(Watcher(Bucket(host, NAME), receiver.url, Delivered(tmp_path / "delivered")))
        )


def test_a_session_takes_one_plain_put_with_the_metadata_it_was_opened_with(bucket: storage.Bucket, host: str) -> None:
    """The browser's upload: the URL leads to this server, and who has it can change nothing but the bytes."""
    blob = bucket.blob("imports/shop/import/Süßes (1).csv")
    blob.metadata = {"user-uuid": "u"}
    url = blob.create_resumable_upload_session(content_type="text/csv", if_generation_match=0)

    headers = {"Content-Type": "text/csv", "x-goog-meta-user-uuid": "somebody else"}
    urllib.request.urlopen(urllib.request.Request(url, b"a,b\n", headers, method="PUT")).close()

    stored = bucket.get_blob(blob.name)
    assert url.startswith(f"{host}/")
    assert (stored.size, stored.metadata, stored.download_as_bytes()) == (4, {"user-uuid": "u"}, b"a,b\n")


def test_a_client_that_sends_slowly_holds_up_nobody(bucket: storage.Bucket, host: str) -> None:
    """An upload over a bad line must not stop the functions from reading."""
    address = host.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as slow:
        slow.sendall(b"PUT /upload HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")

        bucket.blob("imports/x").upload_from_string("quick", timeout=PATIENCE_SECONDS)

    assert bucket.get_blob("imports/x").size == 5


def test_what_was_stored_is_there_after_a_restart(bucket: storage.Bucket, tmp_path: Path) -> None:
    """The files lie on disk, whole."""
    bucket.blob("imports/x").upload_from_string("kept")

    server = storage_server.server(tmp_path / "storage", ports.free_ports(1)[0], NAME)
    with serving(server), closing(Bucket(f"127.0.0.1:{server.server_port}", NAME)) as reopened:
        found = [resource["name"] for resource in reopened.objects("imports/")]

    assert found == ["imports/x"]


def test_a_new_object_is_told_as_cloud_storage_tells_it(
    bucket: storage.Bucket, watcher: Callable[[], Watcher], receiver: Receiver
) -> None:
    """A CloudEvent in binary mode with the object's own resource; other folders are nobody's business."""
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


def test_an_event_is_told_until_it_is_taken_and_then_no_more(
    bucket: storage.Bucket,
    watcher: Callable[[], Watcher],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A function that is down gets the event later; one that took it is left alone."""
    monkeypatch.setattr(storage_events, "FIRST_BACKOFF_SECONDS", 0.01)
    bucket.blob("imports/x").upload_from_string("x")
    receiver.statuses += [503, 500]
    watching = watcher()

    def told_three_times() -> bool:
        watching.look()
        return len(receiver.requests) >= 3

    wait_until(told_three_times, "three events")
    wait_until((tmp_path / "delivered").read_text, "the note of it")
    watching.look()
    bucket.blob("imports/y").upload_from_string("y")
    watching.look()

    assert [request.json["name"] for request in receiver.wait(4)] == ["imports/x"] * 3 + ["imports/y"]


def test_a_watcher_tells_what_came_while_there_was_none(
    bucket: storage.Bucket, watcher: Callable[[], Watcher], receiver: Receiver, tmp_path: Path
) -> None:
    """A killed watcher loses no event, and its successor does not begin from the start; a replaced file is news."""
    bucket.blob("imports/x").upload_from_string("x")
    watcher().look()
    wait_until((tmp_path / "delivered").read_text, "the note of it")

    bucket.blob("imports/y").upload_from_string("y")
    replaced = bucket.blob("imports/x")
    replaced.upload_from_string("xx")
    watcher().look()

    told = {(request.json["name"], request.json["size"]) for request in receiver.wait(3)[1:]}
    assert told == {("imports/y", "1"), ("imports/x", "2")}
