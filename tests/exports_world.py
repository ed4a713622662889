"""The world of tests/world.py with exports in it: the API as a client calls it, and a real storage server.

The bucket counts as the outside too: a function can be killed when it opens, publishes, lists or removes an object.
"""

from __future__ import annotations

import csv
import io
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

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

CHUNK_BYTES = 65_536
FIELDS = ", ".join(ExportHistory.__struct_fields__)
MOMENTS = ("wake_at", "lease_until", "history_due_at", "tidy_at")


class WatchedStorage(Storage):
    """The project's own client, counted, and with a moment before each publication for a test to step in."""

    def __init__(self, bucket: str, boundaries: Boundaries) -> None:
        super().__init__(from_environment({"BUCKET": bucket, "GOOGLE_CLOUD_PROJECT": "test"}))
        self.boundaries = boundaries
        self.before_publish: Callable[[], None] = lambda: None

    @contextmanager
    def writing(self, path: str, content_type: str) -> Iterator[BinaryIO]:
        self.boundaries.reach("open")
        with super().writing(path, content_type) as sink:
            yield sink
            self.before_publish()
            self.boundaries.reach("publish")
        self.boundaries.reach("published")

    def remove(self, path: str) -> None:
        self.boundaries.reach("remove")
        super().remove(path)


class ExportsWorld(World):
    """One webshop's exports, under the test's control."""

    def __init__(self, databases: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(databases, monkeypatch)
        self.storage = WatchedStorage(bucket, self.boundaries)
        monkeypatch.setattr(clients, "storage", lambda: self.storage)
        # Tokens have tests of their own: here the token is the user.
        monkeypatch.setattr(access, "user_of", lambda header: uuid.UUID(header.removeprefix("Bearer ")))
        self.monkeypatch = monkeypatch
        self.set("functions.exports.export_download", SIGNED_URLS="off")

    def set(self, module: str, **environment: str) -> None:
        """Gives a module other settings."""
        self.monkeypatch.setattr(f"{module}.settings", lambda: from_environment(environment))

    # What a client does

    def call(self, method: str, path: str, user: uuid.UUID | None = None, **options: Any) -> TestResponse:
        """Calls the API below the webshop's exports, as the load balancer routes it."""
        function = "export_download" if path.endswith("/download") else "exports_api"
        headers = {"Authorization": f"Bearer {user or self.user}", **options.pop("headers", {})}
        webshop, collection = options.pop("webshop", self.webshop), options.pop("collection", "exports")
        client = app(function).application.test_client()
        return client.open(f"/webshops/{webshop}/{collection}{path}", method=method, headers=headers, **options)

    def ask(self, headers: dict[str, str] | None = None, **body: Any) -> TestResponse:
        """Asks for an export, of the suppliers as CSV unless said otherwise."""
        asked = {"source": "suppliers", "file_type": "CSV", "file_name": "suppliers", **body}
        return self.call("POST", "", json=asked, headers=headers or {})

    def ask_later(self, **body: Any) -> dict[str, Any]:
        """Asks for an export that export_render makes once its request is delivered."""
        answer = self.ask({"Prefer": "respond-async"}, **body)
        assert answer.status_code == 202, answer.json
        return dict(answer.json)

    def get(self, export_uuid: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/{export_uuid}").json)

    def download(self, export_uuid: str) -> TestResponse:
        return self.call("GET", f"/{export_uuid}/download")

    # Time

    def let_time_pass(self) -> None:
        super().let_time_pass()
        passed = ", ".join(f"{moment} = {moment} - interval '10 min'" for moment in MOMENTS)
        self.change("service", f"update exports set {passed}")

    def unfinished(self) -> list[Any]:
        """What World knows, exports that are not over, records the history lacks, and files to look for."""
        rows = self.rows(
            "service",
            "select uuid, status, attempts from exports"
            " where status = any(:unfinished) or history_due_at is not null or tidy_at is not null",
            unfinished=list(UNFINISHED),
        )
        return super().unfinished() + rows

    # What is there

    def row(self, export_uuid: str) -> dict[str, Any]:
        with self.looking["service"].connect() as service:
            return dict(service.execute(select(exports).where(exports.c.uuid == export_uuid)).mappings().one())

    def files(self) -> set[str]:
        """The paths of all export files that can be seen."""
        return {stored.path for stored in self.storage.list("exports/")}

    def assert_settled(self) -> None:
        """Rows and history are final and alike, and exactly the files of completed exports are there, whole."""
        rows = self.rows("service", f"select {FIELDS} from exports order by uuid")
        assert rows == self.rows("service", f"select {FIELDS} from export_history order by uuid")
        assert not [row for row in rows if {"PENDING", "RENDERING"} & set(row)]
        completed = self.rows("service", "select file_uri, rows, size_bytes from exports where file_uri is not null")
        paths = {uri.removeprefix(self.storage.uri("")): (rows, size) for uri, rows, size in completed}
        assert self.files() == set(paths)
        for path, (count, size) in paths.items():
            content = b"".join(self.storage.download(path).pieces)
            assert (len(content), len(csv_rows(content))) == (size, count + 1)

    # Faults

    def through(self, proxy: Proxy, database: str, url: str) -> Engine:
        """Has the functions reach a database through `proxy`."""
        engine = connect_to("TEST", DatabaseSettings(url=url.replace(proxy.upstream, proxy.address)), 8)
        self.monkeypatch.setattr(clients, f"{database}_database", lambda: engine)
        return engine


def csv_rows(content: bytes) -> list[list[str]]:
    """A CSV file's rows, heading included."""
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


class Proxy:
    """Passes TCP connections on, until it is told to cut them off."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream  # host:port
        self.passed_bytes = 0  # from the server to clients
        self.cut_after_bytes = 0  # of those; 0: never
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nobody gets through any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone wakes nobody who waits in accept
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
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
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
