"""The processes that the supervisor's tests start."""

from __future__ import annotations

import signal
import sys

from infra.local.supervisor import Child


def serve(child: Child, behaviour: str) -> None:
    """Serves until a signal. "broken" exits before it is ready; "stubborn" ignores SIGTERM."""
    if behaviour == "broken":
        print("the disk is on fire", flush=True)
        sys.exit(1)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child.ready()
    signal.pause()
