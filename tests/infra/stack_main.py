"""A main.py for the tests of the local stack: one function of each kind, described in stack_functions.yaml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import functions_framework

from infra.local.functions import Route

__all__ = ["api", "on_message", "on_tick", "on_upload", "worker"]


def write_note(line: str) -> None:
    """Appends a line to the file that the test reads."""
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{line}\n")


@functions_framework.http
def api(request: Any) -> dict[str, Any]:
    return {"path": request.path, "pid": os.getpid()}


@functions_framework.http
def on_tick(_request: Any) -> str:
    write_note("tick")
    return ""


@functions_framework.cloud_event
def on_upload(event: Any) -> None:
    write_note(f"upload {event.data['name']}")


@functions_framework.cloud_event
def on_message(event: Any) -> None:
    write_note(f"message {event.data['message']['attributes']['number']}")


def worker() -> None:
    import signal

    write_note("worker")
    signal.pause()


api.routes = (Route("GET", "/where/<name>"),)  # type: ignore[attr-defined]  # shared.http_api adds it to real functions
