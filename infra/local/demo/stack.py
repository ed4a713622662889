"""The stack that the story is told on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import state
from infra.local.state import NotRunning, State

PRODUCTS = 70_000  # as many rows fill a file of 5 MB
START_SECONDS = 120  # for a first start on a slow machine
POLL_SECONDS = 0.05


@contextmanager
def a_stack(own: Path) -> Iterator[State]:
    """The stack that runs here, or one on the directory `own` for as long as the demo takes."""
    here = state.here()
    try:
        here.load()
    except NotRunning:
        where = State(own)
        with started(where):
            yield where
    else:
        yield here


@contextmanager
def started(where: State) -> Iterator[None]:
    """A stack on `where`. Raises NotRunning with what it printed when it does not come up."""
    print(f"Starting a stack of its own with {PRODUCTS:,} products in {where.directory} …", flush=True)
    begun = time.monotonic()
    where.directory.mkdir(parents=True, exist_ok=True)
    output = where.path("up.log")
    command = [sys.executable, "-m", "infra.local", "up", "--products", str(PRODUCTS), "--parent", str(os.getpid())]
    environment = os.environ | {state.DIRECTORY_VARIABLE: str(where.directory)}
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not is_up(where):
            if process.poll() is not None or time.monotonic() - begun > START_SECONDS:
                raise NotRunning(f"The stack did not come up:\n{output.read_text()}")
            time.sleep(POLL_SECONDS)
        print(f"It is up after {time.monotonic() - begun:.0f} s.", flush=True)
        yield
    finally:
        process.terminate()
        process.wait()


def is_up(where: State) -> bool:
    """Whether the stack serves."""
    try:
        where.load()
    except NotRunning:
        return False
    return True
