"""Logs: one JSON object a line for Cloud Logging (severity, trace, fields), or a readable line in a terminal."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shared.settings import Settings, settings

# https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

_traceparent: ContextVar[str] = ContextVar("traceparent", default="")
_fields: ContextVar[dict[str, str]] = ContextVar("fields", default={})  # noqa: B039  # never written, only replaced


def configure(settings: Settings) -> None:
    """Sets the format of every logger of the process. Called before anything else is imported."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLine() if settings.log_format == "text" else JsonLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for chatty in ("google", "urllib3", "alembic", "werkzeug"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@contextmanager
def context(traceparent: str = "", **fields: str) -> Iterator[None]:
    """Adds `fields` to every line logged inside, and joins the trace of `traceparent` (a new one if it is none)."""
    valid = traceparent if TRACEPARENT.fullmatch(traceparent) else new_traceparent()
    trace_token = _traceparent.set(valid)
    field_token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _traceparent.reset(trace_token)
        _fields.reset(field_token)


def new_traceparent() -> str:
    """A traceparent that starts a trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def traceparent() -> str:
    """The traceparent to send along: of the work being done, or a new one."""
    return _traceparent.get() or new_traceparent()


class JsonLine(logging.Formatter):
    """https://cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields ."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object; an exception's traceback goes with the message, where Error Reporting finds it."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        line: dict[str, str] = {
            "severity": record.levelname,
            "message": message,
            "logger": record.name,
            **_fields.get(),
        }
        if match := TRACEPARENT.fullmatch(_traceparent.get()):
            line["logging.googleapis.com/trace"] = f"projects/{settings().google_cloud_project}/traces/{match[1]}"
            line["logging.googleapis.com/spanId"] = match[2]
        return json.dumps(line, ensure_ascii=False)


class TextLine(logging.Formatter):
    """For people: time, level, logger, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback under it where there is one."""
        fields = "".join(f" {name}={value}" for name, value in _fields.get().items())
        time = self.formatTime(record, "%H:%M:%S")
        line = f"{time} {record.levelname:<7} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
