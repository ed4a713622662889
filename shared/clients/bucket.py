"""Cloud Storage: the one bucket of imports and exports."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, BinaryIO

import google.auth
from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.credentials import Signing
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.fileio import BlobWriter
from requests import RequestException

from shared.errors import ObjectGone, Unavailable
from shared.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30  # one request; the SDK tries again what may be tried again
# What is held in memory of a file being written or read, and sent or fetched in one request.
CHUNK_BYTES = 8 * 1024 * 1024
# Rows are gathered before the SDK sees them: its own write costs 1.2 µs a row (measured: a third of a CSV's time).
GATHER_BYTES = 1024 * 1024
SIGNED_URL_LIFETIME = timedelta(minutes=5)  # a click follows it at once
SIGNING_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class StoredObject:
    """What the bucket says of one object."""

    path: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class Download:
    """An object being read."""

    size_bytes: int
    pieces: Iterator[bytes]


class Storage:
    """One client a process; an emulator's where STORAGE_EMULATOR_HOST is set, which the SDK reads itself."""

    def __init__(self, settings: Settings) -> None:
        """Makes no request: the bucket is taken to be there."""
        settings.require("bucket")
        self._bucket = storage.Client(project=settings.google_cloud_project or None).bucket(settings.bucket)

    def open_upload(self, path: str, metadata: Mapping[str, str], size_bytes: int | None, origin: str = "") -> str:
        """Opens a resumable session that makes `path` once, with `metadata`, and returns its URL.

        Who has the URL can send the bytes and change nothing else; `size_bytes`, where given, is kept to by the server.
        A page of `origin` (scheme and host) may send them from a browser.
        """
        blob = self._bucket.blob(path)
        blob.metadata = dict(metadata)
        with refusals_named():
            return str(
                blob.create_resumable_upload_session(
                    content_type="text/csv",
                    size=size_bytes,
                    origin=origin or None,
                    timeout=TIMEOUT_SECONDS,
                    if_generation_match=0,
                )
            )

    def read(self, path: str, generation: int) -> bytes:
        """The bytes of `path` as they were at `generation`.

        Raises ObjectGone when that generation is no more. It is compared after reading too: what is still there
        then was there all the while, whether or not the server heeded the precondition.
        """
        blob = self._bucket.blob(path, generation=generation)
        gone = f"The file {path.rpartition('/')[2]} was replaced or removed after it was uploaded. Upload it again."
        try:
            with refusals_named():
                content: bytes = blob.download_as_bytes(timeout=TIMEOUT_SECONDS)
        except ObjectGone as error:
            raise ObjectGone(gone) from error
        now = self.find(path)
        if now is None or now.generation != generation:
            raise ObjectGone(gone)
        return content

    def find(self, path: str) -> StoredObject | None:
        """The object at `path` as it is now, or None."""
        with refusals_named():
            blob = self._bucket.get_blob(path, timeout=TIMEOUT_SECONDS)
        return stored(blob) if blob else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose path starts with `prefix`."""
        with refusals_named():
            for blob in self._bucket.client.list_blobs(self._bucket, prefix=prefix, timeout=TIMEOUT_SECONDS):
                yield stored(blob)

    def uri(self, path: str) -> str:
        """The address of `path` among all buckets."""
        return f"gs://{self._bucket.name}/{path}"

    @contextmanager
    def writing(self, path: str, content_type: str) -> Iterator[BinaryIO]:
        """A file to write the object at `path` with, once, in CHUNK_BYTES of memory.

        The object appears when the block ends, whole. When an exception leaves the block there is no object. Raises
        Unavailable, from a write or at the end, when the bucket refuses or does not answer.
        """
        blob = self._bucket.blob(path)
        options = {"content_type": content_type, "timeout": TIMEOUT_SECONDS, "if_generation_match": 0}
        upload = blob.open("wb", chunk_size=CHUNK_BYTES, ignore_flush=True, **options)
        sink = io.BufferedWriter(upload, GATHER_BYTES)
        try:
            with refusals_named():
                yield sink
                sink.flush()  # not close: that closes the upload even where flushing fails, and so publishes half of it
                upload.close()
        except BaseException:
            abandon(upload)
            raise

    def download(self, path: str) -> Download:
        """Opens the object at `path` for reading in pieces of CHUNK_BYTES.

        Raises ObjectGone when it is not there, Unavailable when the bucket refuses or does not answer.
        """
        with refusals_named():
            blob = self._bucket.get_blob(path, timeout=TIMEOUT_SECONDS)
        if blob is None:
            raise ObjectGone(f"The file {path} is not there any more.")
        content = blob.open("rb", chunk_size=CHUNK_BYTES, timeout=TIMEOUT_SECONDS)
        return Download(int(blob.size), iter(lambda: bytes(content.read(CHUNK_BYTES)), b""))

    def signed_url(self, path: str, content_disposition: str) -> str:
        """A URL that downloads `path` for SIGNED_URL_LIFETIME, whoever has it, with that Content-Disposition.

        Signed with the service account's key where the process has one, else by Google's IAM, for which the account
        needs to be a token creator for itself. Raises Unavailable when that fails.
        """
        with refusals_named():
            return str(
                self._bucket.blob(path).generate_signed_url(
                    version="v4",
                    method="GET",
                    expiration=SIGNED_URL_LIFETIME,
                    response_disposition=content_disposition,
                    **self._signer(),
                )
            )

    def _signer(self) -> dict[str, Any]:
        """Who signs, as the SDK wants it."""
        credentials = self._signing_credentials
        if isinstance(credentials, Signing):
            return {"credentials": credentials}
        if not credentials.valid:
            credentials.refresh(Request())
        return {"service_account_email": credentials.service_account_email, "access_token": credentials.token}

    @cached_property
    def _signing_credentials(self) -> Any:
        credentials, _ = google.auth.default(scopes=[SIGNING_SCOPE])
        return credentials

    def remove(self, path: str) -> None:
        """Removes the object at `path`; it is no error when it is gone already."""
        with suppress(ObjectGone), refusals_named():
            self._bucket.blob(path).delete(timeout=TIMEOUT_SECONDS)


def abandon(upload: BlobWriter) -> None:
    """Ends an upload so that nothing is published, now or later.

    The SDK publishes what it has when the writer is closed, by the garbage collector too: a broken connection must not
    keep the writer from being emptied first.
    """
    try:
        upload.terminate()
    except Exception:
        log.warning("An upload could not be cancelled; its session ends by itself", exc_info=True)
    finally:
        upload._buffer.close()


@contextmanager
def refusals_named() -> Iterator[None]:
    """Raises ObjectGone or Unavailable for what the SDK raises."""
    try:
        yield
    except NotFound as error:
        raise ObjectGone(f"Cloud Storage does not have it: {error}") from error
    except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, RequestException) as error:
        raise Unavailable(f"Cloud Storage did not do it: {error}") from error


def stored(blob: Any) -> StoredObject:
    """The SDK's object as ours."""
    return StoredObject(
        path=blob.name,
        generation=int(blob.generation),
        size_bytes=int(blob.size or 0),
        metadata=dict(blob.metadata or {}),
        created_at=blob.time_created,
    )
