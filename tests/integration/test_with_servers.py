"""with_servers runs a command with test servers. Here, two small programs replace the servers and log their calls."""

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
    """A folder with the two programs and their log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        for name, program in (("kafka", KAFKA), ("pubsub", PUBSUB)):
            (folder / name).write_text(program)
            (folder / name).chmod(0o755)

    def run(self, *command: str) -> subprocess.Popen[str]:
        return run_with_servers(command, {"TEST_SERVERS": str(self.folder), "NOTES": str(self.notes)})

    def assert_stopped(self) -> None:
        """Checks that both servers ran and that neither still runs."""
        lines = self.notes.read_text().split("\n")
        [pubsub] = [line.split() for line in lines if line.startswith("pubsub")]
        assert [line for line in lines if line in ("start", "kill")] == ["start", "kill"]
        assert pubsub[2:] == ["-duplicate", "0.3", "-delay", "200ms"]
        with pytest.raises(ProcessLookupError):
            os.kill(int(pubsub[1]), 0)


def run_with_servers(command: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TEST_SERVERS"}
    return subprocess.Popen(
        [sys.executable, WITH_SERVERS, *command],
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def servers(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


def test_the_command_gets_the_addresses_of_the_servers(servers: Servers) -> None:
    """Its environment has both addresses and the broker's folder. Its exit status is returned; both servers stop."""
    process = servers.run(
        "sh", "-c", 'echo "$KAFKA_BOOTSTRAP_SERVERS $PUBSUB_EMULATOR_HOST"; test -d "$KAFKA_DIR"; exit 7'
    )
    stdout, _ = process.communicate()

    assert (process.returncode, stdout) == (7, "127.0.0.1:9 127.0.0.1:8\n")
    servers.assert_stopped()


def test_a_signal_stops_everything(servers: Servers) -> None:
    """SIGTERM, for example from a time limit of CI, ends the command and both servers."""
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
def test_missing_servers_are_reported(folder: str | None) -> None:
    """The script exits with 2 and prints one line before it starts a process."""
    process = run_with_servers(("true",), {} if folder is None else {"TEST_SERVERS": folder})

    _, stderr = process.communicate()

    assert process.returncode == 2
    assert stderr.count("\n") == 1
    assert "TEST_SERVERS" in stderr
