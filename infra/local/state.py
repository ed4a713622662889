"""What the stack keeps on disk: `.local/` of the working directory, or LOCAL_STATE_DIR.

stack.json      what `env`, `token`, `ps` and `send` read; there while the stack runs
lock            held by the running `up`
run/NAME        one file a process that is ready: its pid, and its address where only it knows that
logs/NAME.log   what each process printed
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
    """There is no stack, or it is not ready yet. The text says which."""


class AlreadyRunning(Exception):
    """Another `up` holds this directory."""


@dataclass(frozen=True)
class State:
    """The directory, and what stands where in it."""

    directory: Path

    @property
    def runs(self) -> Path:
        """The folder of the files that ready processes leave."""
        return self.directory / "run"

    def log(self, name: str) -> Path:
        """Where the process `name` prints to."""
        return self.directory / "logs" / f"{name}.log"

    def path(self, name: str) -> Path:
        """A file or folder of the stack's own in the directory."""
        return self.directory / name

    def prepare(self) -> None:
        """Makes the folders, and forgets the processes and logs of the last stack."""
        self.runs.mkdir(parents=True, exist_ok=True)
        (self.directory / "logs").mkdir(exist_ok=True)
        self.path("stack.json").unlink(missing_ok=True)
        for left in (*self.runs.iterdir(), *self.path("logs").iterdir()):
            left.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory. Raises AlreadyRunning when another stack does."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.path("lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"A stack runs on {self.directory} already; stop it first.") from None
            yield

    def is_locked(self) -> bool:
        """Whether a stack runs on this directory: its kernel lock ends with it, however it ends."""
        try:
            with self.locked():
                return False
        except AlreadyRunning:
            return True

    def save(self, stack: Mapping[str, Any]) -> None:
        """Says that the stack is up and what it is made of."""
        write_whole(self.path("stack.json"), json.dumps(stack, indent=2).encode())

    def forget(self) -> None:
        """Says that the stack is not up any more."""
        self.path("stack.json").unlink(missing_ok=True)

    def load(self) -> dict[str, Any]:
        """What `save` was given. Raises NotRunning unless the stack is up."""
        if not self.path("stack.json").exists() or not self.is_locked():
            raise NotRunning("The stack is not up. Start it with: python -m infra.local up")
        stack: dict[str, Any] = json.loads(self.path("stack.json").read_bytes())
        return stack

    def announce(self, name: str, pid: int, address: str = "") -> None:
        """Says that the process `name` is ready."""
        write_whole(self.runs / name, json.dumps({"pid": pid, "address": address}).encode())

    def retract(self, name: str) -> None:
        """Says that the process `name` is gone."""
        (self.runs / name).unlink(missing_ok=True)

    def announced(self, name: str) -> dict[str, Any] | None:
        """What the process `name` said when it became ready, or None while it is not, or is dead."""
        try:
            said: dict[str, Any] = json.loads((self.runs / name).read_bytes())
            os.kill(said["pid"], 0)
        except (FileNotFoundError, ProcessLookupError):
            return None
        return said


def here() -> State:
    """The state of this working directory."""
    return State(Path(os.environ.get(DIRECTORY_VARIABLE, ".local")).resolve())


def write_whole(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Writes a file so that a reader, or a crash, meets the old one or the new one and nothing between."""
    unfinished = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    unfinished.touch(mode=0o600 if secret else 0o666)
    unfinished.write_bytes(content)
    unfinished.replace(path)
