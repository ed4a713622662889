"""Ports of this machine for the stack's servers."""

from __future__ import annotations

import fcntl
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
# Below the ranges that systems take outgoing connections' ports from (Linux 32768, macOS 49152 and up): a server that
# was killed finds its port free when it comes back.
FIRST_PORT, LAST_PORT = 20_000, 32_000


def is_free(port: int) -> bool:
    """Whether a server can listen on `port` now, on this machine's address and on all of them."""
    for host in (HOST, ""):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_ports(count: int) -> list[int]:
    """`count` different free ports. Raises OSError when there are not that many."""
    candidates = range(FIRST_PORT, LAST_PORT)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            return found
        if is_free(port):
            found.append(port)
    raise OSError(f"There are no {count} free ports between {FIRST_PORT} and {LAST_PORT}.")


def claim(port: int) -> IO[bytes] | None:
    """Claims `port` among the stacks of this machine, until the file in the answer is closed; None where it is taken.

    Between looking whether a port is free and a server's listening on it, another stack may look too.
    """
    try:
        file = Path(tempfile.gettempdir(), f"imports-and-exports-port-{port}.lock").open("ab")  # noqa: SIM115  # kept
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    if is_free(port):
        return file
    file.close()
    return None
