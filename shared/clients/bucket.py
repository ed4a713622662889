"""Cloud Storage: the one bucket of imports and exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type

from shared.errors import ObjectGone
from shared.settings import Settings

TIMEOUT_SECONDS = 30  # one request; the SDK tries again what may be tried again


@dataclass(frozen=True)
class StoredObject:
    """What the bucket says of one object."""

    path: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]
    created_at: datetime


class Storage:
    """One client a process; an emulator's where STORAGE_EMULATOR_HOST is set, which the SDK reads itself."""

    def __init__(self, settings: Settings) -> None:
        """Makes no request: the bucket is taken to be there."""
        self._bucket = storage.Client(project=settings.project or None).bucket(settings.bucket)

    def open_upload(self, path: str, metadata: Mapping[str, str], size_bytes: int | None) -> str:
        """Opens a resumable session that makes `path` once, with `metadata`, and returns its URL.

        Who has the URL can send the bytes and change nothing else; `size_bytes`, where given, is kept to by the server.
        """
        blob = self._bucket.blob(path)
        blob.metadata = dict(metadata)
        return str(
            blob.create_resumable_upload_session(
                content_type="text/csv", size=size_bytes, timeout=TIMEOUT_SECONDS, if_generation_match=0
            )
        )

    def read(self, path: str, generation: int) -> bytes:
        """The bytes of `path` as they were at `generation`.

        Raises ObjectGone when that generation is no more. It is compared after reading too: what is still there
        then was there all the while, whether or not the server heeded the precondition.
        """
        blob = self._bucket.blob(path, generation=generation)
        try:
            content: bytes = blob.download_as_bytes(timeout=TIMEOUT_SECONDS)
        except (NotFound, PreconditionFailed) as error:
            raise ObjectGone(f"The file {path} is not there any more.") from error
        now = self.find(path)
        if now is None or now.generation != generation:
            raise ObjectGone(f"The file {path} was {'replaced' if now else 'removed'} while it was being read.")
        return content

    def find(self, path: str) -> StoredObject | None:
        """The object at `path` as it is now, or None."""
        blob = self._bucket.get_blob(path, timeout=TIMEOUT_SECONDS)
        return stored(blob) if blob else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose path starts with `prefix`."""
        for blob in self._bucket.client.list_blobs(self._bucket, prefix=prefix, timeout=TIMEOUT_SECONDS):
            yield stored(blob)

    def remove(self, path: str) -> None:
        """Removes the object at `path`; it is no error when it is gone already."""
        try:
            self._bucket.blob(path).delete(timeout=TIMEOUT_SECONDS)
        except NotFound:
            return


def stored(blob: Any) -> StoredObject:
    """The SDK's object as ours."""
    return StoredObject(
        path=blob.name,
        generation=int(blob.generation),
        size_bytes=int(blob.size or 0),
        metadata=dict(blob.metadata or {}),
        created_at=blob.time_created,
    )
