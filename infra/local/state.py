"""The files of the stack: in `.local/` of the working directory, or in LOCAL_STATE_DIR.

stack.json      read by `env`, `token`, `ps` and `send`; exists while the stack runs
lock            locked by the running `up`
run/NAME        one file per process that is ready: its pid, and its address if only the process knows that
logs/NAME.log   the output of each process
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "LOCAL_STATE_DIR"


class NotRunning(Exception):
    """The stack is not running or not ready yet. The text says which."""


class AlreadyRunning(Exception):
    """Another `up` uses this directory."""


@dataclass(frozen=True)
class State:
    """The directory, and the files in it."""

    directory: Path

    @property
    def runs(self) -> Path:
        """The folder with one file per process that is ready."""
        return self.directory / "run"

    def log(self, name: str) -> Path:
        """Returns the path of the log of the process `name`."""
        return self.directory / "logs" / f"{name}.log"

    def path(self, name: str) -> Path:
        """Returns the path of a file or folder in the directory."""
        return self.directory / name

    def prepare(self) -> None:
        """Creates the folders, and deletes the files of the previous stack's processes."""
        self.runs.mkdir(parents=True, exist_ok=True)
        (self.directory / "logs").mkdir(exist_ok=True)
        self.path("stack.json").unlink(missing_ok=True)
        for file in (*self.runs.iterdir(), *self.path("logs").iterdir()):
            file.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the directory. Raises AlreadyRunning when another stack has locked it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.path("lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"Another stack already runs on {self.directory}. Stop it first.") from None
            yield

    def is_locked(self) -> bool:
        """Tells whether a stack runs on this directory. The kernel releases the lock however the stack ends."""
        try:
            with self.locked():
                return False
        except AlreadyRunning:
            return True

    def save(self, stack: Mapping[str, Any]) -> None:
        """Records that the stack is ready, and what it consists of."""
        write_atomically(self.path("stack.json"), json.dumps(stack, indent=2).encode())

    def delete(self) -> None:
        """Records that the stack is no longer ready."""
        self.path("stack.json").unlink(missing_ok=True)

    def load(self) -> dict[str, Any]:
        """Returns what `save` recorded. Raises NotRunning unless the stack is ready."""
        if not self.path("stack.json").exists() or not self.is_locked():
            raise NotRunning("The stack is not running. Start it with: python -m infra.local up")
        stack: dict[str, Any] = json.loads(self.path("stack.json").read_bytes())
        return stack

    def announce(self, name: str, pid: int, address: str = "") -> None:
        """Records that the process `name` is ready."""
        write_atomically(self.runs / name, json.dumps({"pid": pid, "address": address}).encode())

    def retract(self, name: str) -> None:
        """Records that the process `name` is not ready any more."""
        (self.runs / name).unlink(missing_ok=True)

    def announced(self, name: str) -> dict[str, Any] | None:
        """Returns the pid and the address of the process `name`, or None when it is not ready or dead."""
        try:
            process: dict[str, Any] = json.loads((self.runs / name).read_bytes())
            os.kill(process["pid"], 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return process


def find_state() -> State:
    """Returns the state of this working directory."""
    return State(Path(os.environ.get(DIRECTORY_VARIABLE, ".local")).resolve())


def write_atomically(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Replaces a file so that a reader, or a crash, finds either the old or the new content.

    Only the user may read a `secret` file.
    """
    unfinished = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    unfinished.touch(mode=0o600 if secret else 0o666)
    unfinished.write_bytes(content)
    unfinished.replace(path)
