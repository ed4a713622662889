"""The one address of the stack: sends each request to the function that has its route, like a load balancer."""

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

TIMEOUT_SECONDS = 300  # the client waits while an export is rendered
CHUNK_SIZE_BYTES = 65_536
HEALTH_PATH = "/healthz"
# These headers apply to one connection only and are not forwarded: RFC 9110, section 7.6.1.
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}


def make_url_map(functions: list[Function]) -> Map:
    """Makes the map of all routes of `functions`. The endpoint of a route is the name of its function."""
    rules = [
        Rule(route.path, methods=[route.method], endpoint=function.name)
        for function in functions
        for route in function.routes
    ]
    return Map(rules, merge_slashes=False, redirect_defaults=False, strict_slashes=False)


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    routes: MapAdapter
    addresses: Mapping[str, str]  # host:port by function
    documents: Mapping[str, bytes]  # JSON that the gateway returns itself, by path

    def handle_any(self) -> None:
        """Handles one request, of any method."""
        body = self.read_body()
        path = urlsplit(self.path).path
        if path in self.documents and self.command in ("GET", "HEAD"):
            self.send_content(200, "application/json", self.documents[path])
            return
        try:
            function = self.find_function(path)
        except HTTPException:
            self.send_problem(404, "Not found", f"The path {path} does not exist.")
        else:
            self.forward(self.addresses[function], body)

    def find_function(self, path: str) -> str:
        """Finds the function that has `path`, also for a method that it refuses itself. Raises NotFound."""
        try:
            return str(self.routes.match(path, method=self.command)[0])
        except MethodNotAllowed as error:
            return str(self.routes.match(path, method=next(iter(error.valid_methods or ())))[0])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any  # noqa: N815  # the names that http.server calls

    def forward(self, address: str, body: bytes) -> None:
        """Sends the request to the function at `address`, and streams the response back."""
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
            self.send_problem(503, "Not available", "The function did not respond. Try again.", retry_after="1")
            return
        try:
            self.stream_response(response)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # part of the response was sent: only a broken connection tells the client
        finally:
            connection.close()

    def stream_response(self, response: http.client.HTTPResponse) -> None:
        """Streams `response` to the client, in chunks where its length is unknown."""
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
        while has_body and (chunk := response.read1(CHUNK_SIZE_BYTES)):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            self.wfile.flush()
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        if has_body and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        self.wfile.flush()

    def read_body(self) -> bytes:
        """Reads the whole body of the request. It is small, because files are uploaded to Cloud Storage."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # skips the trailers, up to the empty line
        return b"".join(pieces)

    def handle_expect_100(self) -> bool:
        """Sends "100 Continue" at once: the client waits for it before it sends the body."""
        continues = super().handle_expect_100()
        self.wfile.flush()
        return continues

    def send_problem(self, status: int, title: str, detail: str, *, retry_after: str = "") -> None:
        """Sends an error as application/problem+json (RFC 9457)."""
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        self.send_content(status, "application/problem+json", json.dumps(problem).encode(), retry_after=retry_after)

    def send_content(self, status: int, content_type: str, content: bytes, *, retry_after: str = "") -> None:
        """Sends a response of the gateway itself."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Uses one thread per connection."""

    daemon_threads = True
    request_queue_size = 128


def server(host: str, port: int, functions: list[Function], addresses: Mapping[str, str], keys: Any) -> Server:
    """Makes a gateway to `functions`, whose host:port is in `addresses`. `keys` is the JWKS that it publishes."""
    documents = {HEALTH_PATH: b'{"status": "ok"}', KEY_SET_PATH: json.dumps(keys).encode()}
    attributes = {"routes": make_url_map(functions).bind("localhost"), "addresses": addresses, "documents": documents}
    return Server((host, port), type("RoutingHandler", (Handler,), attributes))


def serve(child: Child, port: int, functions: list[Function], addresses: Mapping[str, str], directory: Path) -> None:
    """Serves until the process is killed. The identity provider's key is in `directory`."""
    gateway = server(HOST, port, functions, addresses, key_set(signing_key(directory)))
    child.ready()
    gateway.serve_forever()
