from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from infra.local import gateway, ports
from infra.local.functions import Function, Route
from tests.infra.conftest import serving
from tests.integration.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from tests.infra.conftest import Receiver

IMPORTS = "/webshops/<uuid:webshop_uuid>/imports"
SHOP = "/webshops/5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"
FUNCTIONS = [
    Function("imports_api", "http", routes=(Route("POST", IMPORTS), Route("GET", IMPORTS))),
    Function("dead_api", "http", routes=(Route("GET", "/dead"),)),
]
KEYS = {"keys": [{"kid": "local"}]}


class Client:
    """A browser that uses one connection to the gateway."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)

    def __call__(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(receiver: Receiver) -> Iterator[Client]:
    port, unused_port = ports.free_ports(2)
    addresses = {"imports_api": receiver.address, "dead_api": f"127.0.0.1:{unused_port}"}
    server = gateway.server("127.0.0.1", port, FUNCTIONS, addresses, KEYS)
    with serving(server), closing(Client(port)) as client:
        yield client


def test_a_request_reaches_its_function_as_it_was_sent(client: Client, receiver: Receiver) -> None:
    """Method, path with its escapes, query, headers and body: a function sees what its client sent."""
    path = f"{SHOP}/imports?limit=5&name=%C3%BC+b"

    status, _, _ = client("POST", path, b'{"a": 1}', Authorization="Bearer t", Prefer="respond-async")

    [request] = receiver.requests
    assert (status, request.method, request.path, request.body) == (204, "POST", path, b'{"a": 1}')
    assert (request.headers["Authorization"], request.headers["Prefer"]) == ("Bearer t", "respond-async")


def test_a_response_is_passed_on_unchanged(client: Client, receiver: Receiver) -> None:
    """Status, headers and body are the function's, and a stream of unknown length stays a stream."""

    def stream(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.0"
        handler.send_response(201)
        handler.send_header("Content-Type", "text/csv")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x" * 1000)
        handler.close_connection = True

    receiver.answer = stream

    status, headers, body = client("GET", f"{SHOP}/imports")

    assert (status, headers["Content-Type"], len(body)) == (201, "text/csv", 100_000)
    assert headers["Transfer-Encoding"] == "chunked"


def test_an_incomplete_response_stays_incomplete(client: Client, receiver: Receiver) -> None:
    """When a function is killed during a download, the file must not look complete."""

    def break_off(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    receiver.answer = break_off

    with pytest.raises(http.client.IncompleteRead):
        client("GET", f"{SHOP}/imports")


def test_a_connection_serves_one_request_after_another(client: Client, receiver: Receiver) -> None:
    """The body of one request is never read as the start of the next, even if no function reads that body."""
    statuses = [client("POST", path, b"GET /healthz HTTP/1.1\r\n\r\n")[0] for path in ("/nowhere", f"{SHOP}/imports")]

    assert statuses == [404, 204]
    assert len(receiver.requests) == 1


def test_the_function_responds_to_a_method_that_it_does_not_support(client: Client, receiver: Receiver) -> None:
    """The function knows its methods, so the 405 response with its problem document comes from it."""
    receiver.statuses.append(405)

    assert client("DELETE", f"{SHOP}/imports")[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="root"),
        pytest.param("/nowhere", id="unknown"),
        pytest.param("/webshops/not-a-uuid/imports", id="malformed uuid"),
        pytest.param(f"{SHOP}/imports/../exports", id="parent folder"),
    ],
)
def test_an_unknown_path_is_a_problem(client: Client, receiver: Receiver, path: str) -> None:
    """No function gets the request, and API clients can read the response."""
    status, headers, body = client("GET", path)

    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(body)["status"] == 404
    assert receiver.requests == []


def test_a_function_that_is_down_is_a_problem_with_retry_after(client: Client) -> None:
    """The gateway responds like a load balancer while an instance starts: 503 with Retry-After."""
    status, headers, body = client("GET", "/dead")

    assert (status, headers["Retry-After"], json.loads(body)["status"]) == (503, "1", 503)


def test_the_gateway_serves_health_and_keys(client: Client) -> None:
    """Both work even if every function is down."""
    assert client("GET", "/healthz")[0] == 200
    assert json.loads(client("GET", "/.well-known/jwks.json")[2]) == KEYS
