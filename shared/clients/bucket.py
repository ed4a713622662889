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

TIMEOUT_SECONDS = 30  # per request; the SDK retries the requests that may be repeated
# How much of a file is in memory while it is written or read, and how much one request transfers.
CHUNK_BYTES = 8 * 1024 * 1024
# Rows are buffered before they go to the SDK, whose own write costs 1.2 µs per row (measured: a third of the time of a
# CSV export).
BUFFER_BYTES = 1024 * 1024
SIGNED_URL_LIFETIME = timedelta(minutes=5)  # the browser follows it at once
SIGNING_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class StoredObject:
    """One object of the bucket."""

    path: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class Download:
    """An object that is being read."""

    size_bytes: int
    chunks: Iterator[bytes]  # of at most CHUNK_BYTES


class Storage:
    """One client per process. The SDK connects to an emulator if STORAGE_EMULATOR_HOST is set."""

    def __init__(self, settings: Settings) -> None:
        """Makes no request: the bucket must exist."""
        settings.require("bucket")
        self._bucket = storage.Client(project=settings.google_cloud_project or None).bucket(settings.bucket)

    def open_upload(self, path: str, metadata: Mapping[str, str], size_bytes: int | None, origin: str = "") -> str:
        """Opens a resumable session that creates `path` once, with `metadata`, and returns its URL.

        A client with the URL can send the bytes and change nothing else. The server enforces `size_bytes` if it is
        given. Pages of `origin` (scheme and host) may send the bytes from a browser.
        """
        blob = self._bucket.blob(path)
        blob.metadata = dict(metadata)
        with translate_errors():
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
        """Returns the bytes of `path` as they were at `generation`.

        Raises ObjectGone when that generation no longer exists. The generation is compared again after reading: if it
        is still the current one, it was so all the time, even if the server ignores the generation of a request.
        """
        blob = self._bucket.blob(path, generation=generation)
        gone = f"The file {path.rpartition('/')[2]} was replaced or deleted after it was uploaded. Upload it again."
        try:
            with translate_errors():
                content: bytes = blob.download_as_bytes(timeout=TIMEOUT_SECONDS)
        except ObjectGone as error:
            raise ObjectGone(gone) from error
        current = self.find(path)
        if current is None or current.generation != generation:
            raise ObjectGone(gone)
        return content

    def find(self, path: str) -> StoredObject | None:
        """Returns the object at `path` as it is now, or None."""
        with translate_errors():
            blob = self._bucket.get_blob(path, timeout=TIMEOUT_SECONDS)
        return to_stored_object(blob) if blob else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yields every object whose path starts with `prefix`."""
        with translate_errors():
            for blob in self._bucket.client.list_blobs(self._bucket, prefix=prefix, timeout=TIMEOUT_SECONDS):
                yield to_stored_object(blob)

    def uri(self, path: str) -> str:
        """Returns the address of `path` with its bucket: gs://bucket/path."""
        return f"gs://{self._bucket.name}/{path}"

    @contextmanager
    def open_writer(self, path: str, content_type: str) -> Iterator[BinaryIO]:
        """Opens a file that creates the object at `path`, once, in CHUNK_BYTES of memory.

        The complete object appears when the block ends. If an exception leaves the block, there is no object. Raises
        Unavailable, from a write or at the end, when Cloud Storage refuses or does not respond.
        """
        blob = self._bucket.blob(path)
        options = {"content_type": content_type, "timeout": TIMEOUT_SECONDS, "if_generation_match": 0}
        upload = blob.open("wb", chunk_size=CHUNK_BYTES, ignore_flush=True, **options)
        sink = io.BufferedWriter(upload, BUFFER_BYTES)
        try:
            with translate_errors():
                yield sink
                sink.flush()  # not close(): if flushing fails, it closes the upload and publishes a truncated object
                upload.close()
        except BaseException:
            cancel_upload(upload)
            raise

    def download(self, path: str) -> Download:
        """Opens the object at `path` for reading in chunks of CHUNK_BYTES.

        Raises ObjectGone when it does not exist, Unavailable when Cloud Storage refuses or does not respond.
        """
        with translate_errors():
            blob = self._bucket.get_blob(path, timeout=TIMEOUT_SECONDS)
        if blob is None:
            raise ObjectGone(f"The file {path} no longer exists.")
        content = blob.open("rb", chunk_size=CHUNK_BYTES, timeout=TIMEOUT_SECONDS)
        return Download(int(blob.size), iter(lambda: bytes(content.read(CHUNK_BYTES)), b""))

    def sign_url(self, path: str, content_disposition: str) -> str:
        """Returns a URL that downloads `path` without a token for SIGNED_URL_LIFETIME, with that Content-Disposition.

        The service account's key signs it if the process has one, otherwise Google's IAM, which requires that the
        account is a token creator for itself. Raises Unavailable when signing fails.
        """
        with translate_errors():
            return str(
                self._bucket.blob(path).generate_signed_url(
                    version="v4",
                    method="GET",
                    expiration=SIGNED_URL_LIFETIME,
                    response_disposition=content_disposition,
                    **self._signing_options(),
                )
            )

    def _signing_options(self) -> dict[str, Any]:
        """Returns the SDK's arguments that say which key signs."""
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
        """Deletes the object at `path`. It is not an error if the object does not exist."""
        with suppress(ObjectGone), translate_errors():
            self._bucket.blob(path).delete(timeout=TIMEOUT_SECONDS)


def cancel_upload(upload: BlobWriter) -> None:
    """Cancels an upload so that nothing is published, now or later.

    When the writer is closed, also by the garbage collector, the SDK publishes what its buffer holds. So the buffer is
    closed even if the connection is broken.
    """
    try:
        upload.terminate()
    except Exception:
        log.warning("An upload could not be cancelled; its session will expire", exc_info=True)
    finally:
        upload._buffer.close()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raises ObjectGone or Unavailable in place of the SDK's errors."""
    try:
        yield
    except NotFound as error:
        raise ObjectGone(f"Cloud Storage does not have the object: {error}") from error
    except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, RequestException) as error:
        raise Unavailable(f"The request to Cloud Storage failed: {error}") from error


def to_stored_object(blob: Any) -> StoredObject:
    """Converts the SDK's object into ours."""
    return StoredObject(
        path=blob.name,
        generation=int(blob.generation),
        size_bytes=int(blob.size or 0),
        metadata=dict(blob.metadata or {}),
        created_at=blob.time_created,
    )
