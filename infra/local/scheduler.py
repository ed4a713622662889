"""The replacement for Cloud Scheduler: calls each scheduled function every second, one call at a time."""

from __future__ import annotations

import logging
import threading
import time

from infra.local import cloud_events
from infra.local.supervisor import Child

log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0  # every minute in the cloud; here a developer waits for the result


def call_forever(url: str) -> None:
    """Calls one function every PERIOD_SECONDS."""
    while True:
        started_at = time.monotonic()
        if not cloud_events.deliver(url, {"Content-Type": "application/json"}, b"{}"):
            log.warning("%s failed", url)
        time.sleep(max(0.0, started_at + PERIOD_SECONDS - time.monotonic()))


def serve(child: Child, urls: tuple[str, ...]) -> None:
    """Calls all `urls` until the process is killed."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    threads = [threading.Thread(target=call_forever, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    child.ready()
    for thread in threads:
        thread.join()
