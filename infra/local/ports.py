"""Ports of this machine for servers. A process claims a port before a server of its own listens on it.

Between looking whether a port is free and listening on it, another process may look too. So each port is one byte of a
file that is locked while a process has the port. The kernel releases the locks of a process that ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path

HOST = "127.0.0.1"
# Below the ranges that systems take outgoing connections' ports from (Linux 32768, macOS 49152 and up): a server that
# was killed finds its port free when it comes back.
FIRST_PORT, LAST_PORT = 20_000, 32_000

_claimed: set[int] = set()  # by this process: a lock of this kind does not hold against its own process
_claiming = threading.Lock()


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
    """Claims `count` different free ports until this process ends. Raises OSError when there are not that many."""
    candidates = range(FIRST_PORT, LAST_PORT)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            break
        if claim(port):
            found.append(port)
    if len(found) < count:
        raise OSError(f"There are no {count} free ports between {FIRST_PORT} and {LAST_PORT}.")
    return found


def claim(port: int) -> bool:
    """Claims `port` among this user's processes until this one ends. False where another has it, or listens on it."""
    with _claiming:
        if port in _claimed or not _lock(port):
            return False
        if not is_free(port):
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
            return False
        _claimed.add(port)
        return True


def _lock(port: int) -> bool:
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: it depends on the system
        return False
    return True


@cache
def _locks() -> int:
    """The file of the locks. It stays open: to close it would release every lock of this process."""
    # A file for each user: the kernel may refuse to open another user's in the common folder.
    path = Path(tempfile.gettempdir(), f"imports-and-exports-ports-{os.getuid()}.lock")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
