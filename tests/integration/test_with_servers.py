"""The script that runs these tests against other servers, with two programs in their place that note what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.waiting import wait_until

WITH_SERVERS = Path(__file__).with_name("with_servers")

KAFKA = """#!/bin/sh
echo "$1" >> "$NOTES"
if [ "$1" = start ]; then echo KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9; echo "KAFKA_DIR=$2"; test -d "$2"; fi
"""
PUBSUB = """#!/bin/sh
echo "pubsub $$ $*" >> "$NOTES"
echo PUBSUB_EMULATOR_HOST=127.0.0.1:8
exec sleep 600
"""


class Servers:
    """A folder of programs, and what they noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        for name, program in (("kafka", KAFKA), ("pubsub", PUBSUB)):
            (folder / name).write_text(program)
            (folder / name).chmod(0o755)

    def run(self, *command: str) -> subprocess.Popen[str]:
        return with_servers(command, {"TEST_SERVERS": str(self.folder), "NOTES": str(self.notes)})

    def assert_stopped(self) -> None:
        """Both ran, and neither does."""
        noted = self.notes.read_text().split("\n")
        [pubsub] = [line.split() for line in noted if line.startswith("pubsub")]
        assert [line for line in noted if line in ("start", "kill")] == ["start", "kill"]
        assert pubsub[2:] == ["-duplicate", "0.3", "-delay", "200ms"]
        with pytest.raises(ProcessLookupError):
            os.kill(int(pubsub[1]), 0)


def with_servers(command: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
    known = {name: value for name, value in os.environ.items() if name != "TEST_SERVERS"}
    return subprocess.Popen(
        [sys.executable, WITH_SERVERS, *command],
        env=known | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def test_the_command_is_told_where_the_servers_are(servers: Servers) -> None:
    """It finds both, and the broker's folder, in its environment; its exit status is passed on; both are stopped."""
    process = servers.run(
        "sh", "-c", 'echo "$KAFKA_BOOTSTRAP_SERVERS $PUBSUB_EMULATOR_HOST"; test -d "$KAFKA_DIR"; exit 7'
    )
    out, _ = process.communicate()

    assert (process.returncode, out) == (7, "127.0.0.1:9 127.0.0.1:8\n")
    servers.assert_stopped()


def test_a_signal_stops_everything(servers: Servers) -> None:
    """SIGTERM, as from a time limit of CI, ends the command and both servers."""
    process = servers.run("sh", "-c", 'echo "command $$" >> "$NOTES"; exec sleep 600')
    wait_until(lambda: servers.notes.exists() and "command" in servers.notes.read_text(), "the command to run")

    process.send_signal(signal.SIGTERM)
    process.communicate()

    assert process.returncode == 128 + signal.SIGTERM
    servers.assert_stopped()
    [command] = [line.split()[1] for line in servers.notes.read_text().split("\n") if line.startswith("command")]
    with pytest.raises(ProcessLookupError):
        os.kill(int(command), 0)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(None, id="not set"), pytest.param("", id="empty"), pytest.param("/nowhere", id="no such folder")],
)
def test_without_servers_it_says_what_is_missing(folder: str | None) -> None:
    """Exit status 2 and one line, before anything is started."""
    process = with_servers(("true",), {} if folder is None else {"TEST_SERVERS": folder})
    _, said = process.communicate()

    assert process.returncode == 2
    assert said.count("\n") == 1
    assert "TEST_SERVERS" in said
