"""The one address of the stack: sends each request to the function whose route it is, as a load balancer would."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, MapAdapter, Rule

from infra.local.functions import Function
from infra.local.identity import KEY_SET_PATH, key_set, signing_key
from infra.local.ports import HOST
from infra.local.supervisor import Child

TIMEOUT_SECONDS = 300  # an export is rendered while the client waits
CHUNK_BYTES = 65_536
HEALTH_PATH = "/healthz"
# They say how one connection is used, and each side has its own: RFC 9110, 7.6.1.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


def url_map(functions: list[Function]) -> Map:
    """Every route of `functions`; a route's endpoint is its function's name."""
    rules = [
        Rule(route.path, methods=[route.method], endpoint=function.name)
        for function in functions
        for route in function.routes
    ]
    return Map(rules, merge_slashes=False, redirect_defaults=False, strict_slashes=False)


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    routes: MapAdapter
    addresses: Mapping[str, str]  # host:port by function
    documents: Mapping[str, bytes]  # JSON that the gateway answers itself, by path

    def answer(self) -> None:
        """Answers one request, whatever its method."""
        body = self.read_body()
        path = urlsplit(self.path).path
        if path in self.documents and self.command in ("GET", "HEAD"):
            self.send_whole(200, "application/json", self.documents[path])
            return
        try:
            function = self.function_of(path)
        except HTTPException:
            self.send_problem(404, "Not found", f"There is nothing at {path}.")
        else:
            self.forward(self.addresses[function], body)

    def function_of(self, path: str) -> str:
        """The function that has `path`; it answers for a method that it does not take. Raises NotFound."""
        try:
            return str(self.routes.match(path, method=self.command)[0])
        except MethodNotAllowed as error:
            return str(self.routes.match(path, method=next(iter(error.valid_methods or ())))[0])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815  # the names that http.server calls

    def forward(self, address: str, body: bytes) -> None:
        """Hands the request on and streams the response back."""
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | {"content-length", "expect"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("X-Forwarded-For", self.client_address[0])
            connection.putheader("X-Forwarded-Proto", "http")
            connection.endheaders(body)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            connection.close()
            self.send_problem(503, "Not available", "The function died or did not answer. Try again.", retry_after="1")
            return
        try:
            self.send_back(response)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # half an answer is out: only a broken connection says so
        finally:
            connection.close()

    def send_back(self, response: http.client.HTTPResponse) -> None:
        """Streams `response` to the client, in chunks where its length is not known."""
        self.log_request(response.status)
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        has_body = self.command != "HEAD" and response.status >= 200 and response.status not in (204, 304)
        chunked = has_body and response.getheader("Content-Length") is None
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while has_body and (piece := response.read1(CHUNK_BYTES)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        if has_body and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        self.wfile.flush()

    def read_body(self) -> bytes:
        """The request's body, whole: what goes to a function is small, files go to Cloud Storage."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers, up to the empty line
        return b"".join(pieces)

    def handle_expect_100(self) -> bool:
        """Tells a client that asks first to go on, at once."""
        said = super().handle_expect_100()
        self.wfile.flush()
        return said

    def send_problem(self, status: int, title: str, detail: str, *, retry_after: str = "") -> None:
        """An error as RFC 9457 has it."""
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self.send_whole(status, "application/problem+json", json.dumps(problem).encode(), retry_after=retry_after)

    def send_whole(self, status: int, content_type: str, content: bytes, *, retry_after: str = "") -> None:
        """An answer of the gateway's own."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """A thread a connection."""

    daemon_threads = True
    request_queue_size = 128


def server(host: str, port: int, functions: list[Function], addresses: Mapping[str, str], keys: Any) -> Server:
    """A gateway on `port` to `functions`, each at its host:port in `addresses`; `keys` is the JWKS it publishes."""
    documents = {HEALTH_PATH: b'{"status": "ok"}', KEY_SET_PATH: json.dumps(keys).encode()}
    known = {"routes": url_map(functions).bind("localhost"), "addresses": addresses, "documents": documents}
    return Server((host, port), type("Routed", (Handler,), known))


def serve(child: Child, port: int, functions: list[Function], addresses: Mapping[str, str], directory: Path) -> None:
    """Serves until it is killed; the identity provider's key stands in `directory`."""
    gateway = server(HOST, port, functions, addresses, key_set(signing_key(directory)))
    child.ready()
    gateway.serve_forever()
