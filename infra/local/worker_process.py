"""A worker as a Cloud Run worker pool runs it: it serves nothing, is called once, and runs until SIGTERM."""

from __future__ import annotations

from infra.local import functions
from infra.local.supervisor import Child


def serve(child: Child, name: str) -> None:
    """Runs the worker `name`."""
    functions.take_place(name)
    worker = getattr(functions.load_main(), name)
    functions.connect(name)
    child.ready()
    worker()
