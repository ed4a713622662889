"""Waiting for a condition, for as long as a loaded machine needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Only a test that fails waits this long. Some tests wait for several leases of 30 s on a machine that is also used for
# other work.
PATIENCE_SECONDS = 300
POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], T | None], what: str, despite: tuple[type[Exception], ...] = ()) -> T:
    """Calls `condition` until it returns a true value, and returns that value.

    An exception of `despite` counts as a false value. Fails after PATIENCE_SECONDS with `what` in the message.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        failure = None
        try:
            if found := condition():
                return found
        except despite as error:
            failure = error
        assert time.monotonic() < deadline, f"waited for {what} for {PATIENCE_SECONDS} s: {failure!r}"
        time.sleep(POLL_SECONDS)
