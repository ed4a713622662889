"""A port belongs to the process that claimed it, so two stacks that start at the same time never share a port."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

from infra.local import ports

PROCESSES, PORTS_EACH = 8, 25
CANDIDATES = 300  # so few that the processes compete for the same ports
CLAIMING_PROGRAM = f"""
import sys
from infra.local import ports

ports.LAST_PORT = ports.FIRST_PORT + {CANDIDATES}
print("ready", flush=True)
sys.stdin.readline()
print(*ports.free_ports({PORTS_EACH}), flush=True)
sys.stdin.readline()
"""


class ClaimingProcess:
    """A process that claims PORTS_EACH ports when `claim` is called and keeps them until it is killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", CLAIMING_PROGRAM]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait_ready(self) -> None:
        assert self._read_line() == "ready\n"

    def start_claiming(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def claimed_ports(self) -> list[int]:
        return [int(port) for port in self._read_line().split()]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def test_no_port_is_claimed_by_two_processes() -> None:
    """Many processes claim at the same time. The ports of a killed process are free again; those of the others not."""
    with ExitStack() as stack:
        processes = []
        for _ in range(PROCESSES):
            processes.append(process := ClaimingProcess())
            stack.callback(process.kill)
        for process in processes:
            process.wait_ready()

        for process in processes:
            process.start_claiming()
        claimed = [process.claimed_ports() for process in processes]

        assert len({port for group in claimed for port in group}) == PROCESSES * PORTS_EACH
        assert not any(ports.claim(port) for group in claimed for port in group)
        processes[0].kill()
        assert ports.claim(claimed[0][0])
        assert not ports.claim(claimed[1][0])


def test_no_port_is_claimed_twice_in_one_process() -> None:
    """Tests that run in one process claim ports there, also from threads."""
    claimed: list[int] = []
    threads = [threading.Thread(target=lambda: claimed.extend(ports.free_ports(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 40
    assert not any(ports.claim(port) for port in claimed)


def test_a_port_that_a_server_listens_on_cannot_be_claimed() -> None:
    """Other programs claim no ports, so a port is also checked for a server that listens on it."""
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]

        assert not ports.claim(port)
