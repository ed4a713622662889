"""Ports of this machine for the stack's servers."""

from __future__ import annotations

import random
import socket

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


def preferred_port(usual: int, other: int) -> int:
    """`usual` where it is free, else `other`."""
    return usual if is_free(usual) else other
