"""Waiting for a condition, as long as a loaded machine needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Only a test that fails waits so long. Some wait for several leases of 30 s on a machine that is busy with other work.
PATIENCE_SECONDS = 300
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
