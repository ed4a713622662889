"""A port belongs to the process that claimed it: two stacks that start at one moment never have the same one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from contextlib import ExitStack

from infra.local import ports

PROCESSES, PORTS_EACH = 8, 25
CANDIDATES = 300  # few, so that the claimants meet at every second port
CLAIMANT = f"""
import sys
from infra.local import ports

ports.LAST_PORT = ports.FIRST_PORT + {CANDIDATES}
print("ready", flush=True)
sys.stdin.readline()
print(*ports.free_ports({PORTS_EACH}), flush=True)
sys.stdin.readline()
"""


def test_no_port_is_given_twice():
    """Many processes claim at once; what a killed one had can be claimed again, what a living one has cannot."""
    with ExitStack() as stack:
        claimants = [stack.enter_context(claimant()) for _ in range(PROCESSES)]
        stack.callback(lambda: [process.kill() for process in claimants])
        assert [process.stdout.readline() for process in claimants] == ["ready\n"] * PROCESSES

        for process in claimants:
            process.stdin.write("go\n")
            process.stdin.flush()
        given = [[int(port) for port in process.stdout.readline().split()] for process in claimants]

        assert len({port for group in given for port in group}) == PROCESSES * PORTS_EACH
        assert not any(ports.claim(port) for group in given for port in group)
        claimants[0].kill()
        claimants[0].wait()
        assert ports.claim(given[0][0])
        assert not ports.claim(given[1][0])


def claimant() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CLAIMANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_no_port_is_given_twice_in_one_process():
    """Tests that run in one process take their ports there, also from threads."""
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.extend(ports.free_ports(5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(given) == len(set(given)) == 40
    assert not any(ports.claim(port) for port in given)


def test_a_port_that_a_server_listens_on_is_not_given():
    """Programs that claim nothing are seen by what they listen on."""
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.claim(port)
