"""Imported once by the forkserver that every process of the stack is forked from: what they import is there already.

Importing only: a thread or a connection made here would be dead in the forked processes.
"""

from __future__ import annotations

import importlib
import signal
from contextlib import suppress

from infra.local import functions, supervisor

# The supervisor alone answers a closed terminal or a signal to the whole group, and stops everybody in order.
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

# An error in main.py is told by the discovery, which imports it again where somebody waits for the answer.
with suppress(Exception):
    functions.load_main()
