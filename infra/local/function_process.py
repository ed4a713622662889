"""Serves a function as Cloud Run does: by the functions framework's gunicorn.

The parent process imports main.py, listens on the port, and forks the worker process that serves. While a killed worker
is replaced, requests wait.
"""

from __future__ import annotations

from typing import Any

import functions_framework
from functions_framework._http import create_server

from infra.local import functions
from infra.local.functions import Function
from infra.local.ports import HOST
from infra.local.supervisor import Child, die_with_parent

KEEP_ALIVE_SECONDS = 75  # longer than the pause between two pushes, so that each push can use an open connection
GRACE_SECONDS = 3  # for requests being served when the stack stops


def serve(child: Child, function: Function, port: int) -> None:
    """Serves `function` on `port` until SIGTERM."""
    functions.set_environment(function)

    def connect_and_report(_worker: Any) -> None:
        functions.connect(function)
        child.ready()

    app = functions_framework.create_app(function.name, str(functions.source()))  # type: ignore[no-untyped-call]
    create_server(  # type: ignore[no-untyped-call]
        app,
        debug=False,
        keepalive=KEEP_ALIVE_SECONDS,
        graceful_timeout=GRACE_SECONDS,
        control_socket_disable=True,  # by default, all processes of a user would share one path
        post_fork=lambda _parent, _worker: die_with_parent(),
        post_worker_init=connect_and_report,
        child_exit=lambda _parent, _worker: child.gone(),
    ).run(HOST, port)
