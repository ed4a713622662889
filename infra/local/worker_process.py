"""A worker as a Cloud Run worker pool runs it: it is called once and runs until SIGTERM. It serves no requests."""

from __future__ import annotations

from infra.local import functions
from infra.local.functions import Function
from infra.local.supervisor import Child


def serve(child: Child, function: Function) -> None:
    """Runs the worker `function`."""
    functions.set_environment(function)
    worker = getattr(functions.load_main(), function.name)
    functions.connect(function)
    child.ready()
    worker()
