"""Starts the stack's processes, restarts those that die, and leaves none running.

Multiprocessing's forkserver, which has imported the functions (`preload.py`), forks every process. So a process starts
in milliseconds, shares memory with the others, and can still be killed and restarted alone.

When a process dies, the kernel ends the processes that it started (PR_SET_PDEATHSIG: supervisor, forkserver, process,
gunicorn's worker). So even a SIGKILL of the supervisor leaves no process behind. This works only on Linux; on other
systems only a regular stop ends every process.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver, get_context, parent_process
from typing import Any, NoReturn, TypeVar

from infra.local.state import State

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h
START_TIMEOUT_SECONDS = 180  # enough for a cold start on a slow or busy machine
MAX_FAILED_STARTS = 8  # take 2 s or more: after a killed stack, its servers need less to release their files
STOP_TIMEOUT_SECONDS = 5  # a process that runs longer after its stop signal is killed
RESTART_DELAYS_SECONDS = (0.0, 0.1, 0.2, 0.4)  # by successive deaths: a restart within a second, without a busy loop
STEADY_SECONDS = 1  # a process that ran longer did start: its next death is the first of a new series
POLL_SECONDS = 0.02  # while a process is starting

# "edge" brings in work and stops first, so that functions can finish theirs; "base" has the servers that they need.
STOP_ORDER = ("edge", "function", "base")

processes = get_context("forkserver")
processes.set_forkserver_preload(["infra.local.preload"])


class StartFailed(Exception):
    """A process did not start. The text ends with the last lines of its output."""


@dataclass(frozen=True)
class Child:
    """Given to a process: its name, and the state in which it records that it is ready."""

    name: str
    state: State

    def ready(self, address: str = "") -> None:
        """Records that this process is ready."""
        self.state.announce(self.name, os.getpid(), address)

    def gone(self) -> None:
        """Records that the server ended although this process continues (gunicorn's parent)."""
        self.state.retract(self.name)


@dataclass
class Service:
    """One process of the stack."""

    name: str
    module: str  # the process imports it and calls its serve(child, *arguments)
    arguments: tuple[Any, ...] = ()
    layer: str = "base"  # of STOP_ORDER
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the supervisor's
    stop_signal: signal.Signals = signal.SIGTERM
    ready_pid: Callable[[], int | None] | None = None  # for a program that cannot call Child.ready
    after_restart: Callable[[], None] | None = None  # called when the restarted process is ready


@dataclass
class Running:
    """The current process of a service."""

    service: Service
    process: Any = None  # None between a death and the restart
    started_at: float = 0.0  # monotonic seconds
    deaths: int = 0  # successive ones
    was_ready: bool = False
    restarted: bool = False  # True from a death until the restarted process is ready


class Supervisor:
    """Runs the processes of one stack. Use it only in the main thread: a child ends with the thread that made it."""

    def __init__(self, state: State) -> None:
        """Starts nothing yet."""
        self._state = state
        self._running: dict[str, Running] = {}

    @staticmethod
    def prepare() -> None:
        """Starts the forkserver, which then imports its modules (1 to 2 s) while the caller continues."""
        forkserver.ensure_running()

    def start(self, *services: Service) -> None:
        """Starts processes without waiting for them."""
        for service in services:
            self._running[service.name] = running = Running(service)
            self._spawn(running)

    def restart(self, *services: Service) -> None:
        """Kills the processes of `services`, and starts them with the arguments that these services have now."""
        self._stop([self._running[service.name] for service in services], kill=True)
        self.start(*services)

    def wait_ready(self) -> None:
        """Waits until every process is ready. Raises StartFailed when a process does not start."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while starting := [name for name in self._running if not self.is_ready(name)]:
            self._restart_dead(POLL_SECONDS)
            for name in starting:
                running = self._running[name]
                if running.deaths >= MAX_FAILED_STARTS and not running.was_ready:
                    raise StartFailed(f"{name} does not start:\n{self._last_output(name)}")
            if time.monotonic() > deadline:
                name = starting[0]
                raise StartFailed(f"{name} is not ready after {START_TIMEOUT_SECONDS} s:\n{self._last_output(name)}")

    def names(self) -> list[str]:
        """Returns the names of all processes, in the order of their start."""
        return list(self._running)

    def is_ready(self, name: str) -> bool:
        """Tells whether the process is ready."""
        running = self._running[name]
        if running.process is None:
            return False
        if running.service.ready_pid and not self._state.announced(name) and (pid := running.service.ready_pid()):
            self._state.announce(name, pid)
        if self._state.announced(name) is None:
            return False
        running.was_ready = True
        return True

    def watch(self) -> NoReturn:
        """Restarts processes that die, until the handler of a signal raises."""
        while True:
            restarting = any(running.process is None or running.restarted for running in self._running.values())
            self._restart_dead(POLL_SECONDS if restarting else 1.0)
            for running in list(self._running.values()):
                if running.restarted and self.is_ready(running.service.name):
                    running.restarted = False
                    if running.service.after_restart:
                        running.service.after_restart()

    def stop(self) -> None:
        """Stops every process, layer by layer."""
        for layer in STOP_ORDER:
            self._stop([running for running in self._running.values() if running.service.layer == layer])

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls `function` in a new process and returns its result.

        This keeps the supervisor small: it imports neither the functions nor a database driver. Raises StartFailed
        with the traceback when the function raises.
        """
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=_call_and_send, args=(theirs, function, arguments, dict(os.environ)))
        process.start()
        theirs.close()
        try:
            failed, result = ours.recv()
        except EOFError:
            raise StartFailed(f"{function.__module__}.{function.__name__} died") from None
        finally:
            process.join()
        if failed:
            raise StartFailed(result)
        returned: T = result
        return returned

    def _spawn(self, running: Running) -> None:
        service = running.service
        self._state.retract(service.name)
        child = Child(service.name, self._state)
        environment = {**os.environ, **service.environment}
        process = processes.Process(
            target=_run, name=service.name, args=(child, service.module, service.arguments, environment)
        )
        running.started_at = time.monotonic()
        try:
            process.start()
        except (EOFError, OSError):  # the forkserver was killed; the next attempt starts another
            self._count_death(running)
        else:
            running.process = process

    def _count_death(self, running: Running) -> None:
        now = time.monotonic()
        running.deaths = 1 if now - running.started_at > STEADY_SECONDS else running.deaths + 1
        running.process, running.started_at, running.restarted = None, now, True
        self._state.retract(running.service.name)

    def _restart_dead(self, seconds: float) -> None:
        """Waits up to `seconds` until a process dies, and restarts processes whose delay has passed."""
        alive = [running for running in self._running.values() if running.process is not None]
        ended = connection.wait([running.process.sentinel for running in alive], seconds)
        for running in alive:
            if running.process.sentinel in ended:
                running.process.join()
                self._count_death(running)
        now = time.monotonic()
        for running in self._running.values():
            delay = RESTART_DELAYS_SECONDS[min(running.deaths, len(RESTART_DELAYS_SECONDS)) - 1]
            if running.process is None and now - running.started_at >= delay:
                self._spawn(running)

    def _stop(self, group: Iterable[Running], *, kill: bool = False) -> None:
        alive = [running for running in group if running.process is not None]
        for running in alive:
            with suppress(ProcessLookupError):
                os.kill(running.process.pid, signal.SIGKILL if kill else running.service.stop_signal)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for running in alive:
            running.process.join(max(0.0, deadline - time.monotonic()))
            if running.process.exitcode is None:
                running.process.kill()
                running.process.join()
            running.process = None
            self._state.retract(running.service.name)
            del self._running[running.service.name]

    def _last_output(self, name: str) -> str:
        log = self._state.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(["", *(f"    {line}" for line in lines[-15:]), "", f"The complete log is in {log}."])


def die_with_parent(signal_number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the kernel send this process `signal_number` when its parent dies for any reason. Works on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


def _die_with_supervisor() -> None:
    """Makes this process end with its parent, the forkserver, which ends with the supervisor."""
    die_with_parent()
    if (supervisor := parent_process()) and not supervisor.is_alive():  # it died before the line above
        sys.exit()


def _run(child: Child, module: str, arguments: tuple[Any, ...], environment: Mapping[str, str]) -> None:
    """Runs a service in a new process."""
    os.setsid()  # Ctrl-C in the terminal reaches only the supervisor, which stops the processes in order
    _die_with_supervisor()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(child.state.log(child.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module(module).serve(child, *arguments)


def _call_and_send(
    pipe: connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]
) -> None:
    _die_with_supervisor()
    os.environ.update(environment)
    try:
        pipe.send((False, function(*arguments)))
    except Exception:  # noqa: BLE001  # the caller raises it as StartFailed
        pipe.send((True, traceback.format_exc()))
