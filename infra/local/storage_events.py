"""Delivers Cloud Storage's "finalized" events. It lists the bucket repeatedly, so it works with any storage server.

Delivered events are recorded on disk, so a watcher that was killed delivers the missed events after its restart.
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

PREFIX = "imports/"  # the only objects whose events a function handles
POLL_SECONDS = 0.03  # an upload waits half as long on average; listing the bucket takes about 1 ms
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 10.0
CONCURRENT_DELIVERIES = 4
TIMEOUT_SECONDS = 30  # of one request that lists objects


class Bucket:
    """Lists the objects of a bucket through the JSON API, on one connection."""

    def __init__(self, server: str, name: str) -> None:
        """Takes `server` as STORAGE_EMULATOR_HOST has it, with or without a scheme."""
        self._address = urlsplit(server if "://" in server else f"http://{server}").netloc
        self._path = f"/storage/v1/b/{quote(name)}/o"
        self._connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        self._last_page: tuple[bytes, dict[str, Any]] = (b"", {})  # as received, and decoded

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yields the resource of every object under `prefix`.

        Raises OSError or HTTPException when the server is not available.
        """
        query = {"prefix": prefix}
        while True:
            page = self._fetch_page(f"{self._path}?{urlencode(query)}")
            yield from page.get("items", ())
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def _fetch_page(self, path: str) -> dict[str, Any]:
        try:
            self._connection.request("GET", path)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if response.status != 200:
            raise http.client.HTTPException(f"{path} returned {response.status}")
        if self._last_page[0] != body:  # decoded only when it has changed, which is rare within 30 ms
            self._last_page = (body, json.loads(body))
        return self._last_page[1]


class Delivered:
    """Records which generations of which objects were delivered, in a file with one line per generation."""

    def __init__(self, path: Path) -> None:
        """Reads the records of earlier watchers. Skips an incomplete last line."""
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self._keys = {line.rstrip("\n") for line in lines if line.endswith("\n")}
        path.write_text("".join(f"{key}\n" for key in sorted(self._keys)))
        self._file = path.open("a", buffering=1)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Records a delivery."""
        self._keys.add(key)
        self._file.write(f"{key}\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@dataclass
class Watcher:
    """Delivers an event for every new generation in the bucket, repeatedly until the function accepts it."""

    bucket: Bucket
    function_url: str
    delivered: Delivered
    _backoff_seconds: dict[str, float] = field(default_factory=dict)  # by key, after a failed delivery
    # Monotonic seconds, by key: infinite during a delivery, and the time of the next attempt after a failed one.
    _not_before: dict[str, float] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CONCURRENT_DELIVERIES))

    def look(self) -> None:
        """Lists the bucket once, and starts the deliveries that are due."""
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
        if cloud_events.deliver(self.function_url, *cloud_events.make_object_finalized(resource)):
            self.delivered.add(key)
            self._backoff_seconds.pop(key, None)
            self._not_before.pop(key)
            return
        backoff = self._backoff_seconds.get(key, FIRST_BACKOFF_SECONDS)
        log.warning("The event of %s was not accepted. The next attempt is in %.0f s.", key, backoff)
        self._backoff_seconds[key] = min(backoff * 2, MAX_BACKOFF_SECONDS)
        self._not_before[key] = time.monotonic() + backoff


def serve(child: Child, storage_host: str, bucket_name: str, function_url: str, delivered: Path) -> None:
    """Watches the bucket until the process is killed. Continues when the server was not available."""
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
