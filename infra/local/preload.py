"""The forkserver imports this module once, so that the processes that it forks have their libraries already.

This module only imports: a thread or a connection that was made here would not work in the forked processes.
"""

from __future__ import annotations

import importlib
import signal
from contextlib import suppress

from infra.local import functions, supervisor

# A closed terminal signals the whole process group. Only the supervisor reacts, and stops the processes in order.
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
supervisor.die_with_parent()

for module in (
    "functions_framework._http.gunicorn",
    "google.cloud.pubsub_v1",
    "google.cloud.storage",
    "gcp_storage_emulator.server",
    "infra.local.gateway",
    "infra.local.pubsub_server",
    "pg8000",
    "sqlalchemy.dialects.postgresql.pg8000",
):
    importlib.import_module(module)

# An error in main.py is reported by `functions.discover`, which imports it again and raises the error to the caller.
with suppress(Exception):
    functions.load_main()
