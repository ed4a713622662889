"""Starts the stack's processes, starts again what dies, and leaves nothing running.

Every process is forked by multiprocessing's forkserver with the functions imported beforehand (`preload.py`): a
process starts in milliseconds, shares its memory with the others, and is still killed and started again on its own.

Who dies takes along what it started (PR_SET_PDEATHSIG: supervisor, forkserver, process, gunicorn's worker), so not even
a SIGKILL of the supervisor leaves a process behind. That needs Linux; elsewhere only a stop in good order is clean.
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
from typing import Any, TypeVar

from infra.local.state import State

T = TypeVar("T")

PR_SET_PDEATHSIG = 1  # linux/prctl.h
START_TIMEOUT_SECONDS = 180  # a slow or busy machine's cold start; a process that says nothing for so long hangs
STARTS_IN_VAIN = 8  # in two seconds or more: longer than a killed stack's server takes to let go of its files
STOP_TIMEOUT_SECONDS = 5  # what is not gone by then has lost its chance to end in good order
RESTART_DELAYS_SECONDS = (0.0, 0.1, 0.2, 0.4)  # by deaths in a row: back within a second, without a busy loop
STEADY_SECONDS = 1  # a process that lived so long did not die of its start
TICK_SECONDS = 0.02  # while somebody is waited for

# "edge" brings work in and stops first, so that functions end with nothing half-done; "base" is what they stand on.
STOP_ORDER = ("edge", "function", "base")

processes = get_context("forkserver")
processes.set_forkserver_preload(["infra.local.preload"])


class StartFailed(Exception):
    """A process did not come up; the text ends with what it printed last."""


@dataclass(frozen=True)
class Child:
    """What a process is told about itself: its name, and where to say that it is ready."""

    name: str
    state: State

    def ready(self, address: str = "") -> None:
        """Says that this process serves now."""
        self.state.announce(self.name, os.getpid(), address)

    def gone(self) -> None:
        """Says that this process's server is gone, where the process itself lives on (gunicorn's parent)."""
        self.state.retract(self.name)


@dataclass
class Service:
    """One process of the stack."""

    name: str
    module: str  # its serve(child, *arguments) is the process; imported there, not in the supervisor
    arguments: tuple[Any, ...] = ()
    layer: str = "base"  # of STOP_ORDER
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of the supervisor's own
    stop_signal: signal.Signals = signal.SIGTERM
    ready_pid: Callable[[], int | None] | None = None  # for a program that cannot call Child.ready itself
    after_restart: Callable[[], None] | None = None  # called when it is ready again


@dataclass
class Running:
    """A service's process as it is now."""

    service: Service
    process: Any = None  # None while it waits to be started again
    started_at: float = 0.0  # monotonic seconds
    deaths: int = 0  # in a row
    was_ready: bool = False
    restarted: bool = False  # and not ready yet


class Supervisor:
    """The processes of one stack. Used from the main thread alone: a child's life hangs on the thread that made it."""

    def __init__(self, state: State) -> None:
        """Starts nothing yet."""
        self._state = state
        self._running: dict[str, Running] = {}

    @staticmethod
    def prepare() -> None:
        """Starts the forkserver, which imports what it does (a second or two) while the caller goes on."""
        forkserver.ensure_running()

    def start(self, *services: Service) -> None:
        """Starts processes without waiting for them."""
        for service in services:
            self._running[service.name] = running = Running(service)
            self._spawn(running)

    def restart(self, *services: Service) -> None:
        """Kills the processes of these names, as a crash would, and starts them as they are described now."""
        self._end([self._running[service.name] for service in services], kill=True)
        self.start(*services)

    def wait_ready(self) -> None:
        """Returns when every process is ready. Raises StartFailed when one cannot."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while waited_for := [name for name in self._running if not self.is_ready(name)]:
            self._watch(TICK_SECONDS)
            for name in waited_for:
                running = self._running[name]
                if running.deaths >= STARTS_IN_VAIN and not running.was_ready:
                    raise StartFailed(f"{name} does not start:\n{self._last_words(name)}")
            if time.monotonic() > deadline:
                name = waited_for[0]
                raise StartFailed(f"{name} is not ready after {START_TIMEOUT_SECONDS} s:\n{self._last_words(name)}")

    def names(self) -> list[str]:
        """Every process, in the order they were started in."""
        return list(self._running)

    def is_ready(self, name: str) -> bool:
        """Whether the process serves now."""
        running = self._running[name]
        if running.process is None:
            return False
        if running.service.ready_pid and not self._state.announced(name) and (pid := running.service.ready_pid()):
            self._state.announce(name, pid)
        if self._state.announced(name) is None:
            return False
        running.was_ready = True
        return True

    def watch(self) -> None:
        """Starts again what dies, until a signal's handler raises."""
        while True:
            waiting = any(running.process is None or running.restarted for running in self._running.values())
            self._watch(TICK_SECONDS if waiting else 1.0)
            for running in list(self._running.values()):
                if running.restarted and self.is_ready(running.service.name):
                    running.restarted = False
                    if running.service.after_restart:
                        running.service.after_restart()

    def stop(self) -> None:
        """Ends every process, layer by layer."""
        for layer in STOP_ORDER:
            self._end([running for running in self._running.values() if running.service.layer == layer])

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls `function` in a process of its own and returns what it returns.

        The supervisor stays small this way: what needs the functions or a database driver is not imported here.
        Raises StartFailed with the traceback when the function raises.
        """
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=_answer, args=(theirs, function, arguments, dict(os.environ)))
        process.start()
        theirs.close()
        try:
            failed, answer = ours.recv()
        except EOFError:
            raise StartFailed(f"{function.__module__}.{function.__name__} died") from None
        finally:
            process.join()
        if failed:
            raise StartFailed(answer)
        result: T = answer
        return result

    def _spawn(self, running: Running) -> None:
        service = running.service
        self._state.retract(service.name)
        child = Child(service.name, self._state)
        environment = {**os.environ, **service.environment}
        process = processes.Process(
            target=_become, name=service.name, args=(child, service.module, service.arguments, environment)
        )
        running.started_at = time.monotonic()
        try:
            process.start()
        except (EOFError, OSError):  # the forkserver was killed just now; the next try starts another
            self._count_death(running)
        else:
            running.process = process

    def _count_death(self, running: Running) -> None:
        now = time.monotonic()
        running.deaths = 1 if now - running.started_at > STEADY_SECONDS else running.deaths + 1
        running.process, running.started_at, running.restarted = None, now, True
        self._state.retract(running.service.name)

    def _watch(self, seconds: float) -> None:
        """Waits up to `seconds` for a death; starts again what is due."""
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

    def _end(self, group: Iterable[Running], *, kill: bool = False) -> None:
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

    def _last_words(self, name: str) -> str:
        log = self._state.log(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return "\n".join(["", *(f"    {line}" for line in lines[-15:]), "", f"The whole log: {log}"])


def die_with_parent(signal_number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the kernel send this process `signal_number` when its parent dies, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)


def _die_with_supervisor() -> None:
    """Ends this process with the forkserver that it is a child of, which ends with the supervisor."""
    die_with_parent()
    if (supervisor := parent_process()) and not supervisor.is_alive():  # it died just before
        sys.exit()


def _become(child: Child, module: str, arguments: tuple[Any, ...], environment: Mapping[str, str]) -> None:
    """What every process does first."""
    os.setsid()  # a Ctrl-C in the terminal reaches the supervisor alone, which stops everybody in order
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


def _answer(
    pipe: connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]
) -> None:
    _die_with_supervisor()
    os.environ.update(environment)
    try:
        pipe.send((False, function(*arguments)))
    except Exception:  # noqa: BLE001  # it is told to the caller, which raises it
        pipe.send((True, traceback.format_exc()))
