"""Files written to and read from the bucket as streams, over a real storage server and one that fails."""

from __future__ import annotations

import gc
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import compute_engine
from requests import RequestException, Response
from requests.adapters import BaseAdapter

from shared.clients.bucket import CHUNK_BYTES, SIGNED_URL_LIFETIME, Storage
from shared.errors import ObjectGone, Unavailable
from shared.settings import from_environment
from tests.exports_world import Proxy


class Refusing(BaseAdapter):
    """A network that is not there."""

    def send(self, *_: object, **__: object) -> Response:
        raise RequestException("no route to host")

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def bucket(bucket_name: str) -> Storage:
    return Storage(from_environment({"BUCKET": bucket_name, "GOOGLE_CLOUD_PROJECT": "test"}))


@pytest.fixture
def proxy(bucket: Storage, storage_host: str, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Between the clients made after it and the storage server."""
    made = Proxy(storage_host.removeprefix("http://"))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{made.address}")
    return made


def there(bucket: Storage) -> list[str]:
    """What can be seen in the bucket, once nothing is left that could still write to it."""
    gc.collect()
    return [stored.path for stored in bucket.list("")]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_what_is_written_is_read_back(bucket: Storage, size: int) -> None:
    """At every boundary of the pieces that it goes in."""
    content = os.urandom(size)
    with bucket.writing("exports/file", "text/csv") as sink:
        for start in range(0, size, 300_000):
            sink.write(content[start : start + 300_000])
        assert sink.tell() == size

    download = bucket.download("exports/file")

    assert download.size_bytes == size
    assert b"".join(download.pieces) == content


class Broken(BaseException):
    """What no `except Exception` catches, as a worker's end."""


@pytest.mark.parametrize("size", [0, 100, CHUNK_BYTES + 100])
@pytest.mark.parametrize("error", [ValueError, Broken])
def test_an_exception_publishes_nothing_then_or_later(bucket: Storage, size: int, error: type[BaseException]) -> None:
    """Not when it leaves the block, and not when the garbage collector closes what is left."""

    def write() -> None:
        with bucket.writing("exports/file", "text/csv") as sink:
            sink.write(b"x" * size)
            raise error

    with pytest.raises(error):
        write()

    assert there(bucket) == []


def test_a_storage_that_dies_in_the_middle_publishes_nothing(bucket: Storage, bucket_name: str, proxy: Proxy) -> None:
    """Cancelling the upload fails too then; nothing may be published for it."""
    through = Storage(from_environment({"BUCKET": bucket_name, "GOOGLE_CLOUD_PROJECT": "test"}))

    def write() -> None:
        with through.writing("exports/file", "text/csv") as sink:
            sink.write(b"x" * (CHUNK_BYTES + 100))
            proxy.close()
            raise Broken

    with pytest.raises(Broken):
        write()

    assert there(bucket) == []


def test_a_bucket_that_refuses_is_an_error_and_no_file(bucket: Storage) -> None:
    """Here it does not exist; a missing permission answers alike."""
    elsewhere = Storage(from_environment({"BUCKET": "no-such-bucket", "GOOGLE_CLOUD_PROJECT": "test"}))

    with pytest.raises(Unavailable), elsewhere.writing("exports/file", "text/csv") as sink:
        sink.write(b"x")

    assert there(bucket) == []


def test_what_is_not_there_is_gone(bucket: Storage) -> None:
    with pytest.raises(ObjectGone):
        bucket.download("exports/file")


def test_a_storage_that_does_not_answer_is_named_so(bucket: Storage) -> None:
    """No SDK's error reaches a function."""
    bucket._bucket.client._http.mount("http://", Refusing())

    with pytest.raises(Unavailable):
        bucket.download("exports/file")


def test_a_signed_url_names_the_file_and_ends(bucket: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a service account's key in the process, signing asks nobody."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account_key(tmp_path)))

    url = urlsplit(bucket.signed_url("exports/a b.csv", 'attachment; filename="a b.csv"'))

    query = parse_qs(url.query)
    assert url.path.endswith("/exports/a%20b.csv")
    assert query["response-content-disposition"] == ['attachment; filename="a b.csv"']
    assert query["X-Goog-Expires"] == [str(int(SIGNED_URL_LIFETIME.total_seconds()))]
    assert query["X-Goog-Credential"][0].startswith("exports@test.iam.gserviceaccount.com/")
    assert len(query["X-Goog-Signature"][0]) == 512


def test_on_google_cloud_iam_signs_for_the_functions_own_account(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no key there: the metadata server says who we are, and IAM signs with the token it gives."""
    asked = []

    def refresh(credentials: compute_engine.Credentials, _request: object) -> None:
        credentials.token = "token"
        credentials.expiry = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None)
        credentials._service_account_email = "exports@test.iam.gserviceaccount.com"

    def sign(text: bytes, token: str, account: str, _domain: str) -> str:
        asked.append((token, account))
        return "c2lnbmVk"

    monkeypatch.setattr(compute_engine.Credentials, "refresh", refresh)
    monkeypatch.setattr("google.auth.default", lambda scopes: (compute_engine.Credentials(scopes=scopes), "test"))
    monkeypatch.setattr("google.cloud.storage._signing._sign_message", sign)

    urls = [bucket.signed_url("exports/file", "attachment") for _ in range(2)]

    assert asked == [("token", "exports@test.iam.gserviceaccount.com")] * 2
    assert parse_qs(urlsplit(urls[0]).query)["X-Goog-Signature"] == [b"signed".hex()]


def test_the_address_of_a_file_names_its_bucket(bucket: Storage, bucket_name: str) -> None:
    assert bucket.uri("exports/a b.csv") == f"gs://{bucket_name}/exports/a b.csv"


def service_account_key(folder: Path) -> Path:
    """A key file as Google makes them, of an account that nobody has."""
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
