"""A function as Cloud Run serves it: the functions framework's own gunicorn.

Its parent imports main.py and forks the worker that serves, and holds the port: requests wait while a worker that was
killed is replaced.
"""

from __future__ import annotations

from typing import Any

import functions_framework
from functions_framework._http import create_server

from infra.local import functions
from infra.local.ports import HOST
from infra.local.supervisor import Child, die_with_parent

KEEP_ALIVE_SECONDS = 75  # longer than the pause between two pushes, so that a push finds its connection open
GRACE_SECONDS = 3  # for requests being served when the stack stops


def serve(child: Child, name: str, port: int) -> None:
    """Serves the function `name` on `port` until SIGTERM."""
    functions.take_place(name)

    def connect_and_be_ready(_worker: Any) -> None:
        functions.connect(name)
        child.ready()

    app = functions_framework.create_app(name, str(functions.source()))
    create_server(
        app,
        debug=False,
        keepalive=KEEP_ALIVE_SECONDS,
        graceful_timeout=GRACE_SECONDS,
        control_socket_disable=True,  # its default path is one for all processes of a user, and they fight over it
        post_fork=lambda _parent, _worker: die_with_parent(),
        post_worker_init=connect_and_be_ready,
        child_exit=lambda _parent, _worker: child.gone(),
    ).run(HOST, port)
