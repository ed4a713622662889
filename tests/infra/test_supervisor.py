from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from infra.local import supervisor as supervising
from infra.local.supervisor import Service, StartFailed
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from infra.local.state import State
    from infra.local.supervisor import Supervisor

MODULE = "tests.infra.processes"


def pid_of(state: State, name: str) -> int:
    announcement = state.announced(name)
    assert announcement is not None, f"{name} is not ready"
    return int(announcement["pid"])


def test_a_killed_process_is_started_again(supervisor: Supervisor, state: State) -> None:
    """The supervisor starts a process again when it dies, like the cloud, and keeps the other processes running."""
    supervisor.start(Service("victim", MODULE, ("",)), Service("bystander", MODULE, ("",)))
    supervisor.wait_ready()
    victim, bystander = pid_of(state, "victim"), pid_of(state, "bystander")

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: state.announced("victim") is None, "the victim to die")
    supervisor.wait_ready()

    assert pid_of(state, "victim") != victim
    assert pid_of(state, "bystander") == bystander


def test_a_killed_process_is_started_without_delay() -> None:
    """It is ready within a second: the first restart has no delay, and each later one has a short delay."""
    first, *later = supervising.RESTART_DELAYS_SECONDS

    assert first == 0
    assert max(later) < 0.5


def test_nothing_is_left_after_a_stop(supervisor: Supervisor, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ignores SIGTERM is killed, so a stop always ends."""
    monkeypatch.setattr(supervising, "STOP_TIMEOUT_SECONDS", 0.3)
    supervisor.start(Service("willing", MODULE, ("",)), Service("stubborn", MODULE, ("stubborn",), layer="edge"))
    supervisor.wait_ready()
    pids = [pid_of(state, "willing"), pid_of(state, "stubborn")]

    supervisor.stop()

    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert list(state.runs.iterdir()) == []


def test_a_process_that_cannot_start_says_why(supervisor: Supervisor) -> None:
    """The error contains the output of the process, so that the user sees the reason."""
    supervisor.start(Service("broken", MODULE, ("broken",)))

    with pytest.raises(StartFailed, match=r"broken does not start:\n\n.*the disk is on fire"):
        supervisor.wait_ready()


def test_an_error_in_a_called_function_is_reported(supervisor: Supervisor) -> None:
    """If a step fails in its own process, the start fails with the traceback of the step."""
    with pytest.raises(StartFailed, match="ValueError: invalid literal for int"):
        supervisor.call(int, "x")


def test_a_called_function_returns_its_value(supervisor: Supervisor) -> None:
    """A step runs in a process of its own, and the supervisor gets its result."""
    assert supervisor.call(os.getpid) != os.getpid()
