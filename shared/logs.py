"""Logs: one JSON object per line for Cloud Logging, or a readable line for a terminal."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from shared.settings import Settings

PROJECT_FOLDER = f"{Path(__file__).parents[1]}/"

# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

_traceparent: ContextVar[str] = ContextVar("traceparent", default="")
_fields: ContextVar[dict[str, str]] = ContextVar("fields", default={})  # noqa: B039  # never changed, only replaced


def configure(settings: Settings) -> None:
    """Sets the format of every logger of the process. It runs before other modules are imported, as they may log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLine() if settings.log_format == "text" else JsonLine(settings.google_cloud_project))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for verbose_library in ("google", "urllib3", "alembic", "werkzeug"):
        logging.getLogger(verbose_library).setLevel(logging.WARNING)


@contextmanager
def context(traceparent: str = "", **fields: str) -> Iterator[None]:
    """Adds `fields` and the trace of `traceparent` to every line logged inside. An invalid one starts a new trace."""
    is_valid = TRACEPARENT.fullmatch(traceparent)
    trace_token = _traceparent.set(traceparent if is_valid else new_traceparent())
    field_token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _traceparent.reset(trace_token)
        _fields.reset(field_token)


def new_traceparent() -> str:
    """Returns a traceparent that starts a trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def current_traceparent() -> str:
    """Returns the traceparent to send with a message: the one of the current context, or a new one."""
    return _traceparent.get() or new_traceparent()


class JsonLine(logging.Formatter):
    """https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields ."""

    def __init__(self, google_cloud_project: str) -> None:
        super().__init__()
        self._traces = f"projects/{google_cloud_project}/traces"
        self._encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would create an encoder per line

    def format(self, record: logging.LogRecord) -> str:
        """Formats one JSON object. Its message ends with the exception's traceback: Error Reporting looks there."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        line: dict[str, str | dict[str, str]] = {
            "severity": record.levelname,
            "message": message,
            "logger": record.name,
            **_fields.get(),
            "logging.googleapis.com/sourceLocation": {
                "file": record.pathname.removeprefix(PROJECT_FOLDER),
                "line": str(record.lineno),
                "function": record.funcName,
            },
        }
        if traceparent := _traceparent.get():
            _, trace_id, span_id, _ = traceparent.split("-")
            line["logging.googleapis.com/trace"] = f"{self._traces}/{trace_id}"
            line["logging.googleapis.com/spanId"] = span_id
        return self._encode(line)


class TextLine(logging.Formatter):
    """A line for people: time, level, logger, message and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats one line, followed by the traceback of an exception."""
        fields = "".join(f" {name}={value}" for name, value in _fields.get().items())
        time = self.formatTime(record, "%H:%M:%S")
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
