"""The demo's stack ends with the demo, even if the demo is killed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from infra.local.state import State
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only the Linux kernel signals a process when its parent ends"
)

DEMO = [sys.executable, "-m", "infra.local", "demo"]


class Demo:
    """A demo that runs the functions of stack_main.py, and all processes that it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Runs `command`, which starts the demo, and waits until a function of its stack is ready."""
        environment = os.environ | {
            "LOCAL_STATE_DIR": str(self.folder / "local"),
            "FUNCTION_SOURCE": str(Path(__file__).with_name("stack_main.py")),
            "FUNCTION_TABLE": str(Path(__file__).with_name("stack_functions.yaml")),
            "NOTES": os.devnull,
            "TMPDIR": str(self.temporary),
        }
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        state = State(self.folder / "local" / "demo" / "stack")
        wait_until(lambda: state.announced("api") or process.poll() is not None, "a function")
        assert process.poll() is None, "the demo has ended before a function was ready"
        return process

    def processes(self) -> list[psutil.Process]:
        """Finds all processes that have this demo's environment."""
        environments = {process: process.info["environ"] or {} for process in psutil.process_iter(["environ"])}
        return [
            process
            for process, environment in environments.items()
            if environment.get("LOCAL_STATE_DIR", "").startswith(str(self.folder))
        ]


@pytest.fixture
def demo(open_path: Path) -> Iterator[Demo]:
    demo = Demo(open_path)
    yield demo
    for process in demo.processes():
        process.kill()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=["SIGKILL", "SIGTERM", "SIGHUP"]
)
def test_a_demo_that_is_killed_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    """No process of its stack and no temporary file remains."""
    process = demo.start(DEMO)

    process.send_signal(number)

    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number)
    wait_until(lambda: not demo.processes(), "every process to be gone")
    assert list(demo.temporary.iterdir()) == []


def test_a_demo_whose_parent_is_killed_leaves_nothing(demo: Demo) -> None:
    """The parent is make or a shell; it waits for the demo, and the demo ends with it."""
    parent = demo.start(["sh", "-c", f"{shlex.join(DEMO)}; true"])
    [running] = [process for process in demo.processes() if process.cmdline() == DEMO]
    assert running.ppid() == parent.pid

    parent.kill()

    parent.wait()
    wait_until(lambda: not demo.processes(), "every process to be gone")
    assert list(demo.temporary.iterdir()) == []
