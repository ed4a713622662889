"""Finds free ports for servers. A process claims a port before one of its servers listens on it.

Another process may take a TCP port after the check that it is free and before the server listens on it. So a process
first binds the UDP port of the same number, which no server here uses. Only one process can bind it until that process
ends.
"""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below the ports of outgoing connections (Linux uses 32768 and up, macOS 49152 and up), so that the port of a killed
# server is still free when the server is restarted.
FIRST_PORT, LAST_PORT = 20_000, 32_000


def is_free(port: int) -> bool:
    """Tells whether a server can listen on `port` now, both on HOST and on all addresses of this machine."""
    for host in (HOST, ""):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_ports(count: int) -> list[int]:
    """Claims `count` different free ports until this process ends. Raises OSError when too few are free."""
    candidates = range(FIRST_PORT, LAST_PORT)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            return found
        if claim(port):
            found.append(port)
    raise OSError(f"Fewer than {count} ports are free between {FIRST_PORT} and {LAST_PORT}.")


def claim(port: int) -> bool:
    """Claims `port` until this process ends. Returns False where another process has claimed it or listens on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind((HOST, port))
        except OSError:
            return False
        if not is_free(port):
            return False
        udp.detach()  # keeps the socket open; programs that this process starts do not inherit it
    return True
