"""Ports of this machine for servers. A process claims a port before a server of its own listens on it.

Between looking whether a TCP port is free and listening on it, another process may look too. So whoever wants a TCP
port binds the UDP port of the same number first, which no server here uses: one process has it, until that ends.
"""

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
    """Claims `count` different free ports until this process ends. Raises OSError when there are not that many."""
    candidates = range(FIRST_PORT, LAST_PORT)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            return found
        if claim(port):
            found.append(port)
    raise OSError(f"There are no {count} free ports between {FIRST_PORT} and {LAST_PORT}.")


def claim(port: int) -> bool:
    """Claims `port` until this process ends. False where a process has claimed it, or listens on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind((HOST, port))
        except OSError:
            return False
        if not is_free(port):
            return False
        udp.detach()  # it stays open, and is not inherited by programs that are started
    return True
