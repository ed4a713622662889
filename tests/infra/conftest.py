from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from infra.local.state import State
from infra.local.supervisor import Supervisor
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serves in a thread meanwhile."""
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    status: int  # of the answer; 0 where Receiver.answer gives it

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A function's address: keeps what it is sent, and answers as it is told."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next answers; then 204
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")

    def wait(self, count: int) -> list[Request]:
        wait_until(lambda: len(self.requests) >= count, f"{count} requests")
        return self.requests


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    known = Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length or (self.command == "POST" and "Content-Length" not in self.headers):
                self.close_connection = True  # the sender died in the middle: this is no request
                return
            with lock:  # requests that come at once get their statuses in the order they are kept in
                status = 0 if known.answer else known.statuses.pop(0) if known.statuses else 204
                request = Request(self.command, self.path, dict(self.headers), body, time.monotonic(), status)
                known.requests.append(request)
            if known.answer:
                known.answer(self)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_all  # noqa: N815  # the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_port}/"
    with serving(server):
        yield known


@pytest.fixture
def state(tmp_path: Path) -> State:
    where = State(tmp_path / "local")
    where.directory.mkdir()
    where.prepare()
    return where


@pytest.fixture
def supervisor(state: State) -> Iterator[Supervisor]:
    watcher = Supervisor(state)
    yield watcher
    watcher.stop()
