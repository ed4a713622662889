"""The Cloud Storage emulator as a process: gcp-storage-emulator, made safe to kill and not to be held up.

The package serves one connection at a time (a client that sends slowly stops everybody) and writes its files in place
(a kill in the middle leaves an index that it cannot read again). Here each request is read and answered in a thread of
its own, handled under one lock, and every file is written whole or not at all.
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
from infra.local.state import write_whole
from infra.local.supervisor import Child


class WholeFiles(_FileStore):  # type: ignore[misc]  # the package ships no types
    """The package's store on disk, which a kill leaves with old files or new ones."""

    def write_bytes(self, rel: str, content: bytes) -> None:
        """Writes the file `rel` of the store."""
        path = self._disk_path(rel)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)


class Handler(RequestHandler):  # type: ignore[misc]
    """One connection: requests are read and answered outside the lock, whatever the client's pace."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    lock = threading.Lock()  # the package's storage knows no threads

    def handle_one_request(self) -> None:
        """Reads the request whole, has the package handle it, sends the answer."""
        connection_in, connection_out = self.rfile, self.wfile
        self.raw_requestline = connection_in.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.rfile = io.BytesIO(self.body(connection_in))
        self.wfile = io.BytesIO()
        try:
            with self.lock:
                getattr(self, f"do_{self.command}", partial(self.send_error, 501))()
            connection_out.write(self.wfile.getvalue())
            connection_out.flush()
        finally:
            self.rfile, self.wfile = connection_in, connection_out

    def handle_expect_100(self) -> bool:
        """Tells a client that asks first to go on, at once."""
        said = super().handle_expect_100()
        self.wfile.flush()
        return bool(said)

    def body(self, stream: Any) -> bytes:
        """The request's body; a chunked one is put together, and then has a length like any other."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return bytes(stream.read(int(self.headers.get("Content-Length") or 0)))
        pieces = []
        while size := int(stream.readline().split(b";")[0], 16):
            pieces.append(stream.read(size))
            stream.readline()
        while stream.readline().strip():
            pass  # trailers, up to the empty line
        content = b"".join(pieces)
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(len(content))
        return content


class Server(ThreadingHTTPServer):
    """A thread a connection."""

    daemon_threads = True
    request_queue_size = 128


def server(data: Path, port: int, bucket: str) -> Server:
    """Cloud Storage's JSON API on `port`, with `bucket` there from the start and everything in the folder `data`."""
    storage = Storage(data_dir=str(data))
    storage._store = WholeFiles(use_memory=False, root=data / STORAGE_DIR)
    if storage.get_bucket(bucket) is None:
        buckets.create_bucket(bucket, storage)
    return Server((HOST, port), partial(Handler, storage))


def serve(child: Child, data: Path, port: int, bucket: str) -> None:
    """Serves until it is killed."""
    logging.disable(logging.WARNING)  # the package warns of every answer that is text
    listening = server(data, port, bucket)
    child.ready()
    listening.serve_forever()
