"""Cloud Storage's "finalized" events, from watching the bucket: any server will do, none needs to know of it.

What was delivered is kept on disk, so a watcher that was killed delivers what it missed.
"""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from infra.local import cloud_events
from infra.local.supervisor import Child

log = logging.getLogger(__name__)

PREFIX = "imports/"  # the only objects that a function waits for
POLL_SECONDS = 0.03  # an upload waits half of it on average; a poll costs about a millisecond
FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 1.0, 10.0
DELIVERIES_AT_ONCE = 4
TIMEOUT_SECONDS = 30  # a listing


class Bucket:
    """The JSON API of a bucket, as far as watching needs it, on one connection."""

    def __init__(self, server: str, name: str) -> None:
        """`server` is STORAGE_EMULATOR_HOST, with or without its scheme."""
        self._address = urlsplit(server if "://" in server else f"http://{server}").netloc
        self._path = f"/storage/v1/b/{quote(name)}/o"
        self._connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        self._last: tuple[bytes, dict[str, Any]] = (b"", {})

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        """The resource of every object under `prefix`. Raises OSError or HTTPException when the server is away."""
        query = {"prefix": prefix}
        while True:
            page = self._page(f"{self._path}?{urlencode(query)}")
            yield from page.get("items", ())
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _page(self, path: str) -> dict[str, Any]:
        try:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise http.client.HTTPException(f"{path} answered {response.status}")
        if self._last[0] != body:  # nearly always it is what it was 30 ms ago
            self._last = (body, json.loads(body))
        return self._last[1]


class Delivered:
    """Which generations of which objects were delivered: a line each in a file."""

    def __init__(self, path: Path) -> None:
        """Reads what an earlier watcher wrote; a last line that a kill cut off says nothing."""
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self._keys = {line.rstrip("\n") for line in lines if line.endswith("\n")}
        path.write_text("".join(f"{key}\n" for key in sorted(self._keys)))
        self._file = path.open("a", buffering=1)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Writes it down."""
        self._keys.add(key)
        self._file.write(f"{key}\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@dataclass
class Watcher:
    """Delivers an event for every new generation in the bucket, each until the function has taken it."""

    bucket: Bucket
    function_url: str
    delivered: Delivered
    _backoff: dict[str, float] = field(default_factory=dict)  # seconds, by key, after a failure
    _not_before: dict[str, float] = field(
        default_factory=dict
    )  # monotonic seconds, by key: being delivered, or waiting
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(DELIVERIES_AT_ONCE))

    def look(self) -> None:
        """Looks at the bucket once, and starts the deliveries that are due."""
        for resource in self.bucket.objects(PREFIX):
            key = json.dumps([resource["name"], str(resource["generation"])])
            if key not in self.delivered and self._not_before.get(key, 0.0) <= time.monotonic():
                self._not_before[key] = float("inf")
                self._pool.submit(self._deliver, key, resource)

    def close(self) -> None:
        """Waits for the deliveries under way, and closes what it reads and writes."""
        self._pool.shutdown()
        self.bucket.close()
        self.delivered.close()

    def _deliver(self, key: str, resource: dict[str, Any]) -> None:
        if cloud_events.taken(self.function_url, *cloud_events.object_finalized(resource)):
            self.delivered.add(key)
            self._backoff.pop(key, None)
            self._not_before.pop(key)
            return
        backoff = self._backoff.get(key, FIRST_BACKOFF_SECONDS)
        log.warning("%s was not taken; again in %.0f s", key, backoff)
        self._backoff[key] = min(backoff * 2, LAST_BACKOFF_SECONDS)
        self._not_before[key] = time.monotonic() + backoff


def serve(child: Child, storage_host: str, bucket_name: str, function_url: str, delivered: Path) -> None:
    """Watches until it is killed. A server that is away is asked again."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    with closing(Watcher(Bucket(storage_host, bucket_name), function_url, Delivered(delivered))) as watcher:
        child.ready()
        while True:
            try:
                watcher.look()
            except (OSError, http.client.HTTPException) as error:
                log.warning("The bucket cannot be listed: %s", error)
                time.sleep(FIRST_BACKOFF_SECONDS)
            time.sleep(POLL_SECONDS)
