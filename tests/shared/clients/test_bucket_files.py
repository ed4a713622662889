"""Files are written to the bucket and read from it as streams, on a storage server that works and on one that fails."""

from __future__ import annotations

import gc
import json
import os
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import compute_engine
from requests import RequestException, Response
from requests.adapters import BaseAdapter

from shared.clients.bucket import CHUNK_BYTES, SIGNED_URL_LIFETIME, Storage, StoredObject
from shared.errors import ObjectGone, Unavailable
from shared.settings import from_environment
from tests.exports_world import Proxy


class NoNetwork(BaseAdapter):
    """A network without a route to the server."""

    def send(self, *_: object, **__: object) -> Response:
        raise RequestException("no route to host")

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def bucket(bucket_name: str) -> Storage:
    return Storage(from_environment({"BUCKET": bucket_name, "GOOGLE_CLOUD_PROJECT": "test"}))


@pytest.fixture
def proxy(bucket: Storage, storage_host: str, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """A proxy between the storage server and the clients that are made after it."""
    proxy = Proxy(storage_host.removeprefix("http://"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{proxy.address}")
    return proxy


def list_paths(bucket: Storage) -> list[str]:
    """Returns the paths in the bucket. Collects garbage first, so that no forgotten writer can add one later."""
    gc.collect()
    return [stored.path for stored in bucket.list("")]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_written_file_is_read_back_unchanged(bucket: Storage, size: int) -> None:
    """The sizes are at the boundaries of the chunks."""
    content = os.urandom(size)

    with bucket.open_writer("exports/file", "text/csv") as sink:
        for start in range(0, size, 300_000):
            sink.write(content[start : start + 300_000])
        assert sink.tell() == size

    download = bucket.download("exports/file")

    assert download.size_bytes == size
    assert b"".join(download.chunks) == content


class WorkerStopped(BaseException):
    """Like the end of a worker, no `except Exception` catches it."""


@pytest.mark.parametrize("size", [0, 100, CHUNK_BYTES + 100])
@pytest.mark.parametrize("error", [ValueError, WorkerStopped])
def test_an_exception_publishes_nothing(bucket: Storage, size: int, error: type[BaseException]) -> None:
    """Neither the end of the block nor the garbage collector publishes a truncated object."""

    def write() -> None:
        with bucket.open_writer("exports/file", "text/csv") as sink:
            sink.write(b"x" * size)
            raise error

    with pytest.raises(error):
        write()

    assert list_paths(bucket) == []


def test_a_connection_that_breaks_publishes_nothing(bucket: Storage, bucket_name: str, proxy: Proxy) -> None:
    """Then cancelling the upload fails too."""
    proxied_bucket = Storage(from_environment({"BUCKET": bucket_name, "GOOGLE_CLOUD_PROJECT": "test"}))

    def write() -> None:
        with proxied_bucket.open_writer("exports/file", "text/csv") as sink:
            sink.write(b"x" * (CHUNK_BYTES + 100))
            proxy.close()
            raise WorkerStopped

    with pytest.raises(WorkerStopped):
        write()

    assert list_paths(bucket) == []


def test_a_bucket_that_refuses_is_unavailable(bucket: Storage) -> None:
    """This bucket does not exist; without a permission the response is similar."""
    missing_bucket = Storage(from_environment({"BUCKET": "no-such-bucket", "GOOGLE_CLOUD_PROJECT": "test"}))

    with pytest.raises(Unavailable), missing_bucket.open_writer("exports/file", "text/csv") as sink:
        sink.write(b"x")

    assert list_paths(bucket) == []


def test_an_object_that_does_not_exist_is_gone(bucket: Storage) -> None:
    with pytest.raises(ObjectGone):
        bucket.download("exports/file")


def test_an_unreachable_storage_server_is_unavailable(bucket: Storage) -> None:
    """No error of the SDK reaches a function."""
    bucket._bucket.client._http.mount("http://", NoNetwork())

    with pytest.raises(Unavailable):
        bucket.download("exports/file")


def upload(bucket: Storage, path: str, content: bytes) -> StoredObject:
    """Uploads a file as a browser does: through the URL of a session that a function opened."""
    url = bucket.open_upload(path, {"user-uuid": "u"}, len(content), "https://shop.example")
    request = urllib.request.Request(url, content, {"Content-Type": "text/csv"}, method="PUT")
    urllib.request.urlopen(request).close()
    stored = bucket.find(path)
    assert stored is not None
    return stored


def test_an_uploaded_file_is_read_at_its_generation(bucket: Storage) -> None:
    """It has the metadata that its session was opened with."""
    stored = upload(bucket, "imports/w/i/a b.csv", b"a,b\n")

    assert (stored.size_bytes, stored.metadata) == (4, {"user-uuid": "u"})
    assert bucket.read(stored.path, stored.generation) == b"a,b\n"
    assert bucket.find("imports/w/i/other.csv") is None


def test_an_upload_that_was_replaced_or_deleted_is_gone(bucket: Storage) -> None:
    """The merchant reads the file's name and what to do. A file that replaced it is never read in its place."""
    stored = upload(bucket, "imports/w/i/may.csv", b"a,b\n")
    upload(bucket, stored.path, b"c,d\n")

    with pytest.raises(ObjectGone, match=r"The file may\.csv was replaced or deleted .* Upload it again\."):
        bucket.read(stored.path, stored.generation)
    bucket.remove(stored.path)
    with pytest.raises(ObjectGone, match=r"The file may\.csv was replaced or deleted"):
        bucket.read(stored.path, stored.generation)


def test_an_upload_on_an_unreachable_server_is_unavailable(bucket: Storage) -> None:
    """The function fails and is called again: the file may still be there."""
    stored = upload(bucket, "imports/w/i/may.csv", b"a,b\n")
    bucket._bucket.client._http.mount("http://", NoNetwork())

    for call in (
        lambda: bucket.read(stored.path, stored.generation),
        lambda: bucket.find(stored.path),
        lambda: list(bucket.list("imports/")),
        lambda: bucket.open_upload(stored.path, {}, None),
    ):
        with pytest.raises(Unavailable):
            call()


def test_a_signed_url_names_the_file_and_expires(
    bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has the key of a service account signs without a request."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(write_service_account_key(tmp_path)))

    url = urlsplit(bucket.sign_url("exports/a b.csv", 'attachment; filename="a b.csv"'))

    query = parse_qs(url.query)
    assert url.path.endswith("/exports/a%20b.csv")
    assert query["response-content-disposition"] == ['attachment; filename="a b.csv"']
    assert query["X-Goog-Expires"] == [str(int(SIGNED_URL_LIFETIME.total_seconds()))]
    assert query["X-Goog-Credential"][0].startswith("exports@test.iam.gserviceaccount.com/")
    assert len(query["X-Goog-Signature"][0]) == 512


def test_on_google_cloud_iam_signs_for_the_account_of_the_function(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no key: the metadata server names the account and gives a token, and IAM signs with it."""
    signed_by = []

    credentials_type: Any = compute_engine.Credentials

    def refresh(credentials: compute_engine.Credentials, _request: object) -> None:
        credentials.token = "token"
        credentials.expiry = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)
        credentials._service_account_email = "exports@test.iam.gserviceaccount.com"

    def sign(text: bytes, token: str, account: str, _domain: str) -> str:
        signed_by.append((token, account))
        return "c2lnbmVk"

    monkeypatch.setattr(compute_engine.Credentials, "refresh", refresh)
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials_type(scopes=scopes), "test"))
    monkeypatch.setattr("google.cloud.storage._signing._sign_message", sign)

    urls = [bucket.sign_url("exports/file", "attachment") for _ in range(2)]

    assert signed_by == [("token", "exports@test.iam.gserviceaccount.com")] * 2
    assert parse_qs(urlsplit(urls[0]).query)["X-Goog-Signature"] == [b"signed".hex()]


def test_the_uri_of_a_file_names_its_bucket(bucket: Storage, bucket_name: str) -> None:
    assert bucket.uri("exports/a b.csv") == f"gs://{bucket_name}/exports/a b.csv"


def write_service_account_key(folder: Path) -> Path:
    """Writes a key file in Google's format, of an account that does not exist."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "exports@test.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.test/token",
    }
    file = folder / "key.json"
    file.write_text(json.dumps(account))
    return file
