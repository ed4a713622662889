"""Proxies between the functions and their databases, which break the connections when a test needs that."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from infra.local.ports import HOST, free_ports
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

CHUNK_BYTES = 65_536
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER is on, with a timeout of 0 seconds


class Proxy(Protocol):
    """The interface that the tests use."""

    port: int

    def cutting(self) -> AbstractContextManager[None]:
        """While this context is open, connections in use break with a reset."""

    def stop(self) -> None:
        """Stops the proxy and closes its connections."""


class Cutter:
    """The tests' own proxy. It resets all existing connections immediately, on both sides, and accepts new ones."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    @contextmanager
    def cutting(self) -> Iterator[None]:
        self._cut()
        yield

    def stop(self) -> None:
        self._listener.close()
        self._cut()

    def _cut(self) -> None:
        for end in list(self._open):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it, which closes both ends

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self._upstream_port))
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(end)
        backward = threading.Thread(target=self._copy, args=(server, client), daemon=True)
        backward.start()
        self._copy(client, server)
        backward.join()
        for end in (client, server):
            self._open.discard(end)
            end.close()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # when one direction ends, the other direction ends too


class Toxiproxy:
    """Shopify's proxy. Its toxic `reset_peer` resets a connection when the server sends its next response."""

    def __init__(self, program: Path, upstream_port: int) -> None:
        self._program = program
        self._upstream_port = upstream_port
        self.port, self._control_port = free_ports(2)

    def start(self) -> Self:
        self._api = f"http://{HOST}:{self._control_port}/proxies"
        command = [str(self._program), "-host", HOST, "-port", str(self._control_port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self._call("GET", "") == {}, "toxiproxy", despite=(OSError,))
        listen, upstream = f"{HOST}:{self.port}", f"{HOST}:{self._upstream_port}"
        self._call("POST", "", {"name": "postgres", "listen": listen, "upstream": upstream, "enabled": True})
        return self

    @contextmanager
    def cutting(self) -> Iterator[None]:
        toxic = {"name": "reset", "type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}
        self._call("POST", "/postgres/toxics", toxic)
        try:
            yield
        finally:
            self._call("DELETE", "/postgres/toxics/reset")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._api + path, data, method=method)) as response:
            content = response.read()
        return json.loads(content) if content else None


def find_toxiproxy() -> Path | None:
    """Returns the path of toxiproxy, or None if the test servers do not include it."""
    program = Path(os.environ.get("TEST_SERVERS", ""), "toxiproxy-server")
    return program.absolute() if os.environ.get("TEST_SERVERS") and program.exists() else None
