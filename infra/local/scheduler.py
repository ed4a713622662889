"""Cloud Scheduler: calls the scheduled functions every second, never twice at a time."""

from __future__ import annotations

import logging
import threading
import time

from infra.local import cloud_events
from infra.local.supervisor import Child

log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0  # every minute in the cloud; here somebody sits and waits


def call(url: str) -> None:
    """Calls one function for ever."""
    while True:
        started = time.monotonic()
        if not cloud_events.taken(url, {"Content-Type": "application/json"}, b"{}"):
            log.warning("%s failed", url)
        time.sleep(max(0.0, started + PERIOD_SECONDS - time.monotonic()))


def serve(child: Child, urls: tuple[str, ...]) -> None:
    """Calls every one of `urls` until it is killed."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    callers = [threading.Thread(target=call, args=(url,)) for url in urls]
    for caller in callers:
        caller.start()
    child.ready()
    for caller in callers:
        caller.join()
