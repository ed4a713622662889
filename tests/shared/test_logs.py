"""Log lines: the format that Cloud Logging reads, and the format that people read."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator

import pytest

from shared import logs
from shared.settings import InvalidSettings, from_environment

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

log = logging.getLogger("shared.something")

Configure = Callable[[str], Callable[[], list[str]]]


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, which is restored after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def configure(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> Configure:
    """Configures logging with a `LOG_FORMAT`. Returns a function that returns the lines written since its last call."""

    def configure(log_format: str) -> Callable[[], list[str]]:
        logs.configure(from_environment({"LOG_FORMAT": log_format, "GOOGLE_CLOUD_PROJECT": "platform"}))
        return read_lines

    def read_lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return configure


def test_a_line_is_one_json_object_with_its_context(configure: Configure) -> None:
    """Severity and trace have the names that Cloud Logging reads; the fields of the context are beside them."""
    read_lines = configure("json")

    with logs.context(f"00-{TRACE_ID}-{SPAN_ID}-01", function="import_apply"):
        log.warning("Süßes für %s", "Müller\n2")

    (line,) = map(json.loads, read_lines())
    assert line.pop("logging.googleapis.com/sourceLocation")
    assert line == {
        "severity": "WARNING",
        "message": "Süßes für Müller\n2",
        "logger": "shared.something",
        "function": "import_apply",
        "logging.googleapis.com/trace": f"projects/platform/traces/{TRACE_ID}",
        "logging.googleapis.com/spanId": SPAN_ID,
    }


def test_a_line_names_its_place_in_the_source(configure: Configure) -> None:
    """It is the file's path in the repository, wherever the function is deployed."""
    read_lines = configure("json")

    log.info("here")

    (line,) = map(json.loads, read_lines())
    here = test_a_line_names_its_place_in_the_source
    assert line["logging.googleapis.com/sourceLocation"] == {
        "file": "tests/shared/test_logs.py",
        "line": str(here.__code__.co_firstlineno + 4),
        "function": here.__name__,
    }


def test_an_invalid_traceparent_starts_a_new_trace(configure: Configure) -> None:
    """A client may send any text in this header."""
    read_lines = configure("json")

    with logs.context("00-not-a-trace"):
        log.info("a")
        log.info("b")
    log.info("c")

    first, second, outside = map(json.loads, read_lines())
    trace = first["logging.googleapis.com/trace"]
    assert re.fullmatch("projects/platform/traces/[0-9a-f]{32}", trace)
    assert second["logging.googleapis.com/trace"] == trace
    assert "logging.googleapis.com/trace" not in outside


def test_an_exception_is_part_of_the_message(configure: Configure) -> None:
    """Error Reporting looks for a traceback at the end of the message."""
    read_lines = configure("json")

    try:
        raise LookupError("no such product")
    except LookupError:
        log.exception("Failed")

    (line,) = map(json.loads, read_lines())
    message = line["message"].splitlines()
    assert message[:2] == ["Failed", "Traceback (most recent call last):"]
    assert message[-1] == "LookupError: no such product"


def test_text_is_for_a_terminal(configure: Configure) -> None:
    """It is one line, with the fields of its context."""
    read_lines = configure("text")

    with logs.context(topic="orders"):
        log.error("Failed")

    (line,) = read_lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR   shared.something: Failed topic=orders", line)


def test_an_unknown_format_is_refused(configure: Configure) -> None:
    """The process does not choose a format by itself."""
    with pytest.raises(InvalidSettings, match="LOG_FORMAT is 'JSON'; it must be json or text"):
        configure("JSON")
