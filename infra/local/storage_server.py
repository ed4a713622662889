"""The Cloud Storage emulator as a process: gcp-storage-emulator, with two changes.

The package serves one connection at a time, so a slow client blocks all others. It writes its files in place, so a
process that is killed while it writes leaves an index that it cannot read again. Here, one thread per connection reads
the requests and sends the responses, a lock protects the package's code, and every file is replaced atomically.
"""

from __future__ import annotations

import io
import logging
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.settings import STORAGE_DIR
from gcp_storage_emulator.storage import Storage, _FileStore

from infra.local.ports import HOST
from infra.local.state import write_atomically
from infra.local.supervisor import Child


class AtomicFileStore(_FileStore):  # type: ignore[misc]  # the package ships no types
    """The package's store on disk, whose files are always complete."""

    def write_bytes(self, rel: str, content: bytes) -> None:
        """Replaces the file at the path `rel` of the store."""
        path = self._disk_path(rel)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


class Handler(RequestHandler):  # type: ignore[misc]
    """Handles the requests of one connection. Reads and writes outside the lock, so a slow client blocks no other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    lock = threading.Lock()  # the package's storage is not safe for threads
    rfile: Any  # replaced by a buffer while the package handles a request
    wfile: Any

    def handle_one_request(self) -> None:
        """Reads the whole request, lets the package handle it, and sends the response."""
        connection_in, connection_out = self.rfile, self.wfile
        self.raw_requestline = connection_in.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.rfile = io.BytesIO(self.read_body(connection_in))
        self.wfile = io.BytesIO()
        try:
            with self.lock:
                getattr(self, f"do_{self.command}", partial(self.send_error, 501))()
            connection_out.write(self.wfile.getvalue())
            connection_out.flush()
        finally:
            self.rfile, self.wfile = connection_in, connection_out

    def handle_expect_100(self) -> bool:
        """Sends "100 Continue" at once: the client waits for it before it sends the body."""
        continues = super().handle_expect_100()
        self.wfile.flush()
        return bool(continues)

    def read_body(self, stream: Any) -> bytes:
        """Reads the request's body. Joins the chunks of a chunked body, and sets its length for the package."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return bytes(stream.read(int(self.headers.get("Content-Length") or 0)))
        pieces = []
        while size := int(stream.readline().split(b";")[0], 16):
            pieces.append(stream.read(size))
            stream.readline()
        while stream.readline().strip():
            pass  # skips the trailers, up to the empty line
        content = b"".join(pieces)
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(content))
        return content


class Server(ThreadingHTTPServer):
    """Uses one thread per connection."""

    daemon_threads = True
    request_queue_size = 128


def server(data: Path, port: int, bucket: str) -> Server:
    """Makes a server of Cloud Storage's JSON API that stores its objects in the folder `data`. Creates `bucket`."""
    storage = Storage(data_dir=str(data))
    storage._store = AtomicFileStore(use_memory=False, root=data / STORAGE_DIR)
    if storage.get_bucket(bucket) is None:
        buckets.create_bucket(bucket, storage)
    return Server((HOST, port), partial(Handler, storage))


def serve(child: Child, data: Path, port: int, bucket: str) -> None:
    """Serves until the process is killed."""
    logging.disable(logging.WARNING)  # the package logs a warning for every response that is text
    listening = server(data, port, bucket)
    child.ready()
    listening.serve_forever()
