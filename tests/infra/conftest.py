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
    """Serves requests in a thread until the context ends."""
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
    at: float  # monotonic time in seconds
    status: int  # of the response; 0 if Receiver.answer sends it

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """The address of a function: records each request and responds as the test defines."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next responses; all later ones have status 204
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None  # sends every response in place of `statuses`

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://").rstrip("/")

    def wait(self, count: int) -> list[Request]:
        """Waits for at least `count` requests and returns all of them."""
        wait_until(lambda: len(self.requests) >= count, f"{count} requests")
        return self.requests


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that listens on a port of its own."""
    recorder = Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_all(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length or (self.command == "POST" and "Content-Length" not in self.headers):
                self.close_connection = True  # the sender died in the middle of its request
                return
            with lock:  # concurrent requests get their statuses in the order in which they are recorded
                status = 0 if recorder.answer else recorder.statuses.pop(0) if recorder.statuses else 204
                request = Request(self.command, self.path, dict(self.headers), body, time.monotonic(), status)
                recorder.requests.append(request)
            if recorder.answer:
                recorder.answer(self)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_all  # noqa: N815  # the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.url = f"http://127.0.0.1:{server.server_port}/"
    with serving(server):
        yield recorder


@pytest.fixture
def state(tmp_path: Path) -> State:
    stack_state = State(tmp_path / "local")
    stack_state.directory.mkdir()
    stack_state.prepare()
    return stack_state


@pytest.fixture
def supervisor(state: State) -> Iterator[Supervisor]:
    started = Supervisor(state)
    yield started
    started.stop()
