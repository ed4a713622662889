"""Structs, which many threads decode at once from the first request on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import main

# What a function's process does when its first messages arrive together.
FIRST_MESSAGES = """
import sys, threading
import main
import msgspec
from shared.delivery import PushEvent

sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
events = []

def decode():
    start.wait()
    events.append(msgspec.convert({"message": {"data": "e30="}}, PushEvent, strict=False))

threads = [threading.Thread(target=decode) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(events))
"""


def test_the_first_messages_of_a_process_may_arrive_at_once() -> None:
    """Without types that are resolved before, nearly every one of these processes ends by a segmentation fault."""
    command = [sys.executable, "-c", FIRST_MESSAGES]
    for _ in range(3):
        ended = subprocess.run(command, cwd=Path(main.__file__).parent, capture_output=True, text=True, check=False)

        assert ended.returncode != -signal.SIGSEGV
        assert ended.stdout.strip() == "8", ended.stderr
