"""The stack that the demo runs on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import state
from infra.local.demo import screen
from infra.local.state import NotRunning, State

PRODUCTS = 70_000  # enough to fill an import file of 5 MB
START_SECONDS = 120  # enough for a first start on a slow machine
POLL_SECONDS = 0.05


@contextmanager
def find_or_start_stack(own_directory: Path) -> Iterator[State]:
    """Yields the running stack of this directory, or one on `own_directory` that runs until the context ends."""
    here = state.find_state()
    if is_up(here):
        yield here
        return
    own = State(own_directory)
    with start_stack(own):
        yield own


@contextmanager
def start_stack(own: State) -> Iterator[None]:
    """Runs a stack on the directory of `own`. Raises NotRunning with the stack's output when it does not start."""
    place = screen.shorten(own.directory)
    print(f"No stack is running here. Starting one with {PRODUCTS:,} products in {place} …", flush=True)
    started_at = time.monotonic()
    own.directory.mkdir(parents=True, exist_ok=True)
    output = own.path("up.log")
    command = [sys.executable, "-m", "infra.local", "up", "--products", str(PRODUCTS), "--parent", str(os.getpid())]
    environment = os.environ | {state.DIRECTORY_VARIABLE: str(own.directory)}
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        while not is_up(own):
            if process.poll() is not None or time.monotonic() - started_at > START_SECONDS:
                raise NotRunning(f"The stack did not start:\n{output.read_text()}")
            time.sleep(POLL_SECONDS)
        print(f"The stack is ready after {time.monotonic() - started_at:.0f} s.", flush=True)
        yield
    finally:
        process.terminate()
        process.wait()


def is_up(stack: State) -> bool:
    """Tells whether the stack is ready."""
    try:
        stack.load()
    except NotRunning:
        return False
    return True
