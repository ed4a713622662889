"""Waiting for what a running system does by and by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE_SECONDS = 90  # three leases of 30 s: a claimant dies, and so does who comes after it
POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], T | None], what: str, despite: tuple[type[Exception], ...] = ()) -> T:
    """Returns what `condition` returns once that is true. What it raises of `despite` means "not yet"."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        failure = None
        try:
            if found := condition():
                return found
        except despite as error:
            failure = error
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s in vain for {what}: {failure!r}"
        time.sleep(POLL_SECONDS)
