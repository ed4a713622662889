"""The world of tests/world.py with exports: the API as a client calls it, and a real storage server.

Calls to the bucket count as calls to the outside: a function can be killed when it is about to open, publish or remove
an object, and just after it has published one.
"""

from __future__ import annotations

import csv
import io
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest
from sqlalchemy import Engine, select
from werkzeug.test import TestResponse

from functions.exports.states import UNFINISHED
from shared import access, clients
from shared.clients.bucket import Storage
from shared.clients.databases import connect_to
from shared.messages import ExportHistory
from shared.settings import DatabaseSettings, from_environment
from shared.tables.service import exports
from tests.world import Boundaries, World, app

if TYPE_CHECKING:

    class Response(TestResponse):
        """A response of the API. A test knows from the status whether the body is JSON."""

        @property
        def json(self) -> Any: ...


CHUNK_BYTES = 65_536
FIELDS = ", ".join(ExportHistory.__struct_fields__)
DUE_COLUMNS = ("wake_at", "lease_until", "history_due_at", "tidy_at")


class WatchedStorage(Storage):
    """The project's own client. It counts calls, and a test can act just before an object is published."""

    def __init__(self, bucket: str, boundaries: Boundaries) -> None:
        super().__init__(from_environment({"BUCKET": bucket, "GOOGLE_CLOUD_PROJECT": "test"}))
        self.boundaries = boundaries
        self.before_publish: Callable[[], None] = lambda: None

    @contextmanager
    def open_writer(self, path: str, content_type: str) -> Iterator[BinaryIO]:
        self.boundaries.reach("open")
        with super().open_writer(path, content_type) as sink:
            yield sink
            self.before_publish()
            self.boundaries.reach("publish")
        self.boundaries.reach("published")

    def remove(self, path: str) -> None:
        self.boundaries.reach("remove")
        super().remove(path)


class ExportsWorld(World):
    """The exports of one webshop, controlled by the test."""

    def __init__(self, databases: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(databases, monkeypatch)
        self.storage = WatchedStorage(bucket, self.boundaries)
        monkeypatch.setattr(clients, "storage", lambda: self.storage)
        # Other tests check tokens. Here the token is the user's uuid.
        monkeypatch.setattr(access, "authenticate", lambda header: uuid.UUID(header.removeprefix("Bearer ")))
        self.monkeypatch = monkeypatch
        self.configure("functions.exports.export_download", SIGNED_URLS="off")

    def configure(self, module: str, **environment: str) -> None:
        """Replaces the settings of a module."""
        self.monkeypatch.setattr(f"{module}.settings", lambda: from_environment(environment))

    # What a client does

    def call(self, method: str, path: str, user: uuid.UUID | None = None, **options: Any) -> Response:
        """Calls a path below the webshop's exports, in the function to which the load balancer would route it."""
        function = "export_download" if path.endswith("/download") else "exports_api"
        headers = {"Authorization": f"Bearer {user or self.user}", **options.pop("headers", {})}
        webshop, collection = options.pop("webshop", self.webshop), options.pop("collection", "exports")
        client = app(function).application.test_client()
        url = f"/webshops/{webshop}/{collection}{path}"
        return cast("Response", client.open(url, method=method, headers=headers, **options))

    def ask(self, headers: dict[str, str] | None = None, **body: Any) -> Response:
        """Requests an export, by default of the suppliers as CSV."""
        request = {"source": "suppliers", "file_type": "CSV", "file_name": "suppliers", **body}
        return self.call("POST", "", json=request, headers=headers or {})

    def ask_later(self, **body: Any) -> dict[str, Any]:
        """Requests an export that export_render makes after its message is delivered."""
        answer = self.ask({"Prefer": "respond-async"}, **body)
        assert answer.status_code == 202, answer.json
        return dict(answer.json)

    def get(self, export_uuid: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/{export_uuid}").json)

    def download(self, export_uuid: str) -> Response:
        return self.call("GET", f"/{export_uuid}/download")

    # Time

    def let_time_pass(self) -> None:
        super().let_time_pass()
        assignments = ", ".join(f"{column} = {column} - interval '10 min'" for column in DUE_COLUMNS)
        self.change("service", f"update exports set {assignments}")

    def unfinished(self) -> list[Any]:
        """Also returns exports that are unfinished, are not in the history as they are, or may have files to delete."""
        rows = self.rows(
            "service",
            "select uuid, status, attempts from exports"
            " where status = any(:unfinished) or history_due_at is not null or tidy_at is not null",
            unfinished=list(UNFINISHED),
        )
        return super().unfinished() + rows

    # State

    def row(self, export_uuid: str) -> dict[str, Any]:
        """The row of an export."""
        with self.own_engines["service"].connect() as conn:
            return dict(conn.execute(select(exports).where(exports.c.uuid == export_uuid)).mappings().one())

    def files(self) -> set[str]:
        """The paths of all visible export files."""
        return {stored.path for stored in self.storage.list("exports/")}

    def assert_settled(self) -> None:
        """Checks that all exports are final and equal to their history, and that no files but theirs exist.

        Every file must have the recorded size and number of rows. This works for CSV only.
        """
        rows = self.rows("service", f"select {FIELDS} from exports order by uuid")
        assert rows == self.rows("service", f"select {FIELDS} from export_history order by uuid")
        assert not [row for row in rows if {"PENDING", "RENDERING"} & set(row)]
        completed = self.rows("service", "select file_uri, rows, size_bytes from exports where file_uri is not null")
        expected_files = {uri.removeprefix(self.storage.uri("")): (rows, size) for uri, rows, size in completed}
        assert self.files() == set(expected_files)
        for path, (row_count, size_bytes) in expected_files.items():
            content = b"".join(self.storage.download(path).chunks)
            assert (len(content), len(csv_rows(content))) == (size_bytes, row_count + 1)

    # Faults

    def connect_through(self, proxy: Proxy, database: str, url: str) -> Engine:
        """Connects the functions to a database through `proxy`."""
        engine = connect_to("TEST", DatabaseSettings(url=url.replace(proxy.upstream, proxy.address)), 8)
        self.monkeypatch.setattr(clients, f"{database}_database", lambda: engine)
        return engine


def csv_rows(content: bytes) -> list[list[str]]:
    """The rows of a CSV file, with the heading."""
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


class Proxy:
    """Forwards TCP connections until it is closed or a limit of bytes is reached."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream  # host:port
        self.passed_bytes = 0  # from the server to clients
        self.cut_after_bytes = 0  # a limit of passed_bytes; 0 means none
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Closes all connections and accepts no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # close alone does not end a waiting accept
        self._listener.close()
        for end in (end for pair in self._pairs for end in pair):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        host, port = self.upstream.split(":")
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((host, int(port)))
            self._pairs.append((client, server))
            threading.Thread(
                target=self._forward, args=(client, server), kwargs={"counted": False}, daemon=True
            ).start()
            threading.Thread(target=self._forward, args=(server, client), kwargs={"counted": True}, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                if counted:
                    self.passed_bytes += len(data)
                    if self.cut_after_bytes and self.passed_bytes > self.cut_after_bytes:
                        self.close()
                        return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return
