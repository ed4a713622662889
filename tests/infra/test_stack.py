from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import pubsub_v1, storage  # type: ignore[attr-defined]  # a namespace that other packages type

from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY_KIND = {"api", "on_message", "on_tick", "on_upload", "worker"}
SERVERS = {"postgres", "storage", "kafka", "pubsub", "mail", "storage_events", "scheduler", "gateway"}
COMMANDS = ("-m", "infra.local")
# The same, but another program listens on two ports of the stack before its servers do.
COMMANDS_WITHOUT_TWO_PORTS = (
    "-c",
    """
import socket, sys
from infra.local import __main__ as commands
from infra.local.stack import Stack

start, other_program = Stack.start, []

def start_late(stack):
    if not other_program:
        other_program.extend(socket.create_server(("127.0.0.1", stack.ports[name])) for name in ("mail", "storage"))
    start(stack)

Stack.start = start_late
sys.exit(commands.main())
""",
)


class LocalStack:
    """The whole stack with a small main.py. Tests use it like its users: by its commands."""

    def __init__(self, folder: Path, commands: tuple[str, ...] = COMMANDS) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        self._environment = os.environ | {
            "LOCAL_STATE_DIR": str(folder / "local"),
            "FUNCTION_SOURCE": str(Path(__file__).with_name("stack_main.py")),
            "FUNCTION_TABLE": str(Path(__file__).with_name("stack_functions.yaml")),
            "NOTES": str(self.notes),
        }
        self.output = folder / "up.log"
        with self.output.open("wb") as output:
            command = [sys.executable, *commands, "up", "--products", "50", "--parent", str(os.getpid())]
            self.up = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
        answer = wait_until(self._ready, "the stack to be ready")
        self.env = dict(line.split("=", 1) for line in answer.splitlines())

    def _ready(self) -> str:
        assert self.up.poll() is None, self.output.read_text()
        answer = self.run("env")
        return "" if answer.returncode else answer.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *COMMANDS, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def processes(self) -> dict[str, int]:
        lines = self.run("ps").stdout.splitlines()
        return {name: int(pid) for name, pid in (line.split() for line in lines)}

    def family(self) -> list[psutil.Process]:
        return [psutil.Process(self.up.pid), *psutil.Process(self.up.pid).children(recursive=True)]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.env["API_URL"] + path) as response:
            return json.load(response)

    def noted(self, line: str) -> bool:
        return line in self.notes.read_text().splitlines()


@pytest.fixture
def stack(open_path: Path) -> Iterator[LocalStack]:
    running = LocalStack(open_path)
    yield running
    running.up.kill()
    running.up.wait()


def gone(family: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_the_whole_stack(stack: LocalStack, tmp_path: Path) -> None:
    """Every kind of function is called, killed processes start again, the commands work, and a stop leaves nothing."""
    processes = stack.processes()
    assert set(processes) == EVERY_KIND | SERVERS
    assert stack.run("token").stdout.count(".") == 2

    assert stack.get("/where/here")["pid"] == processes["api"]
    wait_until(lambda: stack.noted("tick") and stack.noted("worker"), "the scheduler and the worker")

    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client = storage.Client("local", credentials, client_options={"api_endpoint": stack.env["STORAGE_EMULATOR_HOST"]})
    client.bucket(stack.env["BUCKET"]).blob("imports/file.csv").upload_from_string("x")
    wait_until(lambda: stack.noted("upload imports/file.csv"), "the storage event")

    os.environ["PUBSUB_EMULATOR_HOST"] = stack.env["PUBSUB_EMULATOR_HOST"]
    try:
        publisher = pubsub_v1.PublisherClient()
    finally:
        del os.environ["PUBSUB_EMULATOR_HOST"]
    publisher.publish("projects/local/topics/test.messages", b"{}", number="1").result(PATIENCE_SECONDS)
    wait_until(lambda: stack.noted("message 1"), "the pushed message")
    publisher.stop()

    event = {
        "specversion": "1.0",
        "id": "1",
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": "//pubsub.googleapis.com/projects/local/topics/test.messages",
        "data": {"message": {"data": "", "attributes": {"number": "2"}}},
    }
    (tmp_path / "event.json").write_text(json.dumps(event))
    assert stack.run("send", str(tmp_path / "event.json")).returncode == 0
    assert stack.noted("message 2")

    for name in ("api", "on_message", "postgres", "gateway"):
        os.kill(processes[name], signal.SIGKILL)
    wait_until(lambda: stack.run("env").returncode == 0, "the stack to be complete again")
    assert stack.get("/where/here")["pid"] == stack.processes()["api"] != processes["api"]

    family = stack.family()
    stack.up.send_signal(signal.SIGTERM)
    assert stack.up.wait(PATIENCE_SECONDS) == 0
    wait_until(lambda: gone(family), "every process to be gone")
    assert stack.run("env").returncode == 1


def test_the_stack_avoids_ports_that_another_program_took(open_path: Path) -> None:
    """If a program takes a port before the server of the stack starts, the stack starts again with other ports."""
    stack = LocalStack(open_path, COMMANDS_WITHOUT_TWO_PORTS)
    try:
        assert set(stack.processes()) == EVERY_KIND | SERVERS
        [taken] = re.findall(r"Another program has taken the port of (.*)\. Starting again", stack.output.read_text())
        assert {"storage", "mail"} <= set(taken.split(", "))
    finally:
        stack.up.kill()
        stack.up.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel ends the children of a killed process")
def test_a_killed_supervisor_leaves_nothing(stack: LocalStack) -> None:
    """After SIGKILL, no process is left that uses a port or a file."""
    family = stack.family()
    assert len(family) > len(SERVERS | EVERY_KIND)

    stack.up.kill()

    wait_until(lambda: gone(family), "every process to be gone")
    assert stack.run("ps").returncode == 1
