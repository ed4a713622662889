"""All functions of the project in one process: real databases and code, a bucket and a broker in memory.

Messages wait in `world.broker.waiting` until the test delivers them: in any order, twice, at once, or never. Each goes
through functions-framework's own HTTP app, as a push from Pub/Sub does. A function can be killed at any call to the
outside: `world.kill_at(n)` ends it at the n-th call, as SIGKILL would, and no code of it runs after that.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import functions_framework
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, event, text

import main
from functions.imports import import_upload, operations
from functions.imports.operations import Import, find_import
from functions.imports.states import ACTIVE
from shared import clients
from shared.clients.broker import NotSent
from shared.clients.bucket import StoredObject
from shared.clients.databases import connect_to
from shared.clients.mailer import Mail
from shared.errors import ObjectGone
from shared.messages import Message, ProductsUpdated, PubSubMessage
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    from tests.conftest import Databases

M = TypeVar("M", bound=Message)

MAIN = Path(main.__file__)
MAX_DELIVERIES = 2_000  # a flow that takes more never ends


class Killed(BaseException):
    """The process has died. Code that catches errors does not catch this."""


@dataclass
class Boundaries:
    """Counts the calls to the outside and kills at one of them."""

    until_kill: int = 0  # the number of the call that kills; 0: none does
    passed: int = 0  # calls so far

    def reach(self, _what: str) -> None:
        self.passed += 1
        if self.until_kill and self.passed == self.until_kill:
            raise Killed


@dataclass
class Bucket:
    """A bucket in memory, with generations. It replaces shared.clients.bucket.Storage."""

    boundaries: Boundaries
    objects: dict[str, tuple[StoredObject, bytes]] = field(default_factory=dict)
    before_read: Callable[[], None] = lambda: None
    _generation: int = 1000

    def put(self, path: str, content: bytes, metadata: Mapping[str, str]) -> StoredObject:
        self._generation += 1
        stored = StoredObject(path, self._generation, len(content), dict(metadata), datetime.now(UTC))
        self.objects[path] = (stored, content)
        return stored

    def open_upload(self, path: str, metadata: Mapping[str, str], _size_bytes: int | None, origin: str) -> str:
        self.boundaries.reach("open_upload")
        session = base64.urlsafe_b64encode(json.dumps([path, dict(metadata), origin]).encode()).decode()
        return f"http://bucket.test/{session}"

    def read(self, path: str, generation: int) -> bytes:
        self.boundaries.reach("read")
        self.before_read()
        stored, content = self.objects.get(path, (None, b""))
        if stored is None or stored.generation != generation:
            raise ObjectGone(f"The file {path} is gone.")
        return content

    def find(self, path: str) -> StoredObject | None:
        return self.objects[path][0] if path in self.objects else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter([stored for path, (stored, _) in self.objects.items() if path.startswith(prefix)])

    def remove(self, path: str) -> None:
        self.objects.pop(path, None)


@dataclass
class Broker:
    """Kafka, the bridge and Pub/Sub in one: messages wait until the test delivers them."""

    boundaries: Boundaries
    waiting: deque[Message] = field(default_factory=deque)
    sent: list[Message] = field(default_factory=list)
    down: bool = False  # whether every send fails
    before_send: Callable[[Sequence[Message]], None] = lambda _messages: None

    def send(self, *messages: Message) -> None:
        if not messages:
            return
        self.boundaries.reach("send")
        self.before_send(messages)
        if self.down:
            raise NotSent("the broker is down")
        for message in messages:
            copy = type(message).decode(message.encode())
            self.waiting.append(copy)
            self.sent.append(copy)
        self.boundaries.reach("sent")

    def of(self, kind: type[M]) -> list[M]:
        """The messages of one kind that were sent, delivered or not."""
        return [message for message in self.sent if isinstance(message, kind)]

    def take(self, kind: type[M]) -> list[M]:
        """Removes the messages of one kind from those that wait, and returns them."""
        taken = [message for message in self.waiting if isinstance(message, kind)]
        self.waiting = deque(message for message in self.waiting if not isinstance(message, kind))
        return taken


@dataclass
class DeadLetters:
    """The part of Pub/Sub's publisher that functions use. It keeps the dead letters."""

    messages: list[PubSubMessage] = field(default_factory=list)

    def publish(self, messages: Iterable[PubSubMessage]) -> None:
        self.messages += messages


class World:
    """The imports of one webshop from upload to mirror, controlled by the test."""

    def __init__(self, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tenants = databases.tenants
        self.webshop = self.tenants.webshop_uuid
        self.user = self.tenants.user_uuid
        self.boundaries = Boundaries()
        self.bucket = Bucket(self.boundaries)
        self.broker = Broker(self.boundaries)
        self.dead_letters = DeadLetters()
        self.service_db = self._engine(databases.service_url)
        self.product_db = self._engine(databases.product_url)
        self.legacy_db = self._engine(databases.legacy_url)
        # The test's own connections: their commits are not counted as calls of a function.
        self.own_engines = {
            name: connect_to("TEST", DatabaseSettings(url=url), 4)
            for name, url in (
                ("service", databases.service_url),
                ("product", databases.product_url),
                ("legacy", databases.legacy_url),
            )
        }
        for name, client in (
            ("service_database", self.service_db),
            ("product_database", self.product_db),
            ("legacy_database", self.legacy_db),
            ("storage", self.bucket),
            ("kafka", self.broker),
            ("pubsub", self.dead_letters),
        ):
            monkeypatch.setattr(clients, name, lambda client=client: client)
        for name in main.__all__:
            if getattr(main, name).trigger.kind != "worker":
                app(name)  # made before the test reads logs: making one sets up logging again

    def _engine(self, url: str) -> Engine:
        engine = connect_to("TEST", DatabaseSettings(url=url), 8)
        event.listen(engine, "commit", lambda _connection: self.boundaries.reach("commit"))
        return engine

    def close(self) -> None:
        for engine in (self.service_db, self.product_db, self.legacy_db, *self.own_engines.values()):
            engine.dispose()

    # What a merchant does

    def upload(self, content: bytes | str, **metadata: str) -> uuid.UUID:
        """Puts a file into the bucket without delivering its event. Returns the import's uuid."""
        import_uuid = uuid.uuid4()
        self.put(import_uuid, content, **metadata)
        return import_uuid

    def put(self, import_uuid: uuid.UUID, content: bytes | str, **metadata: str) -> StoredObject:
        """Puts a file of an import into the bucket, with the user and `metadata`."""
        path = import_upload.upload_path(self.webshop, import_uuid, "products.csv")
        given_metadata = {key.replace("_", "-"): value for key, value in metadata.items()}
        data = content.encode() if isinstance(content, str) else content
        return self.bucket.put(path, data, {"user-uuid": str(self.user), **given_metadata})

    def put_for(self, webshop_uuid: uuid.UUID, content: str) -> uuid.UUID:
        """Puts a file of another webshop into the bucket. Returns the import's uuid."""
        import_uuid = uuid.uuid4()
        path = import_upload.upload_path(webshop_uuid, import_uuid, "products.csv")
        self.bucket.put(path, content.encode(), {"user-uuid": str(self.user)})
        return import_uuid

    def import_file(self, content: bytes | str, **metadata: str) -> Import:
        """Uploads a file, delivers its event and every message, and returns the import as it is then."""
        import_uuid = self.upload(content, **metadata)
        self.deliver_upload(import_uuid)
        self.run()
        return self.find(import_uuid)

    def find(self, import_uuid: uuid.UUID) -> Import:
        with self.own_engines["service"].connect() as conn:
            return find_import(conn, self.webshop, import_uuid)

    def errors(self, import_uuid: uuid.UUID) -> dict[int, list[dict[str, str]]]:
        """The errors of the import's refused rows, by row number."""
        rows = self.rows(
            "service",
            "select row_number, errors from import_refused_rows r"
            " join imports i on i.uuid = r.import_uuid and i.run = r.run"
            " where r.import_uuid = :uuid order by 1",
            uuid=import_uuid,
        )
        return dict(rows)

    # What the platform does

    def deliver(self, message: Message) -> int:
        """Pushes one message to its function. Returns the HTTP status of the response."""
        return push(function_of(type(message)), message.topic, message.encode())

    def deliver_upload(self, import_uuid: uuid.UUID) -> int:
        """Delivers Cloud Storage's event for the import's file. Returns the HTTP status of the response."""
        (stored,) = self.bucket.list(f"imports/{self.webshop}/{import_uuid}/")
        return self.deliver_object(stored)

    def deliver_object(self, stored: StoredObject) -> int:
        """Delivers Cloud Storage's event for any object. Returns the HTTP status of the response."""
        resource = {
            "bucket": "bucket",
            "name": stored.path,
            "generation": str(stored.generation),
            "size": str(stored.size_bytes),
            "metadata": dict(stored.metadata),
        }
        headers = {
            "ce-id": str(uuid.uuid4()),
            "ce-source": "//storage.googleapis.com/projects/_/buckets/bucket",
            "ce-specversion": "1.0",
            "ce-type": "google.cloud.storage.object.v1.finalized",
        }
        return app("import_upload").post("/", json=resource, headers=headers).status_code

    def sweep(self) -> int:
        return app("sweep").post("/").status_code

    def run(self, *, order: Callable[[deque[Message]], Message] = deque.popleft, twice: bool = False) -> None:
        """Delivers the messages that wait and those that are sent meanwhile, until none waits.

        A message that is answered with 503 waits again.
        """
        for _ in range(MAX_DELIVERIES):
            if not self.broker.waiting:
                return
            message = order(self.broker.waiting)
            statuses = [self.deliver(message) for _ in range(2 if twice else 1)]
            if 503 in statuses:
                self.broker.waiting.append(message)
        raise AssertionError(f"messages still wait after {MAX_DELIVERIES} deliveries: {self.broker.waiting}")

    def recover(self) -> None:
        """Lets leases end, sweeps and delivers messages, until all work is finished."""
        for _ in range(30):
            self.run()
            self.let_time_pass()
            assert self.sweep() == 200
            if not self.broker.waiting and not self.unfinished():
                return
        raise AssertionError(f"work is still unfinished: {self.unfinished()}")

    def unfinished(self) -> list[Any]:
        """Active imports, and batch results that are not mirrored."""
        active = self.rows(
            "service", "select uuid, status, claims from imports where status = any(:active)", active=list(ACTIVE)
        )
        return active + self.rows(
            "product", "select import_uuid, first_row from import_outcomes where mirrored_at is null"
        )

    def let_time_pass(self) -> None:
        """Moves all times of jobs 10 minutes back: every lease has ended, and every job and every mirroring is due."""
        self.change(
            "service",
            "update imports set wake_at = wake_at - interval '10 min', lease_until = lease_until - interval '10 min'",
        )
        self.change("product", "update import_outcomes set mirror_due_at = mirror_due_at - interval '10 min'")

    def retry(self, import_uuid: uuid.UUID) -> None:
        """Retries an import as its merchant does. Its trigger waits then."""
        clients.kafka().send(operations.retry_import(self.service_db, self.webshop, self.user, import_uuid))

    def import_without_mirror(self, content: str) -> list[Message]:
        """Imports a file, and returns the messages for import_mirror instead of delivering them."""
        import_uuid = self.upload(content)
        self.deliver_upload(import_uuid)
        undelivered: list[Message] = []
        while self.broker.waiting:
            undelivered += self.broker.take(ProductsUpdated)
            if self.broker.waiting:
                self.deliver(self.broker.waiting.popleft())
        return undelivered

    def push_bytes(self, kind: type[Message], data: bytes) -> int:
        """Pushes bytes that need not be a message to the function of a kind of message."""
        return push(function_of(kind), kind.topic, data)

    # Faults

    def kill_at(self, boundary: int) -> None:
        """Kills the function that makes the `boundary`-th call to the outside from now on; 0: kills none."""
        self.boundaries.until_kill, self.boundaries.passed = boundary, 0

    def at_once(self, *deliveries: Callable[[], Any]) -> None:
        """Runs all deliveries at the same moment, one thread per delivery."""
        barrier = threading.Barrier(len(deliveries))
        failures: list[BaseException] = []

        def deliver(delivery: Callable[[], Any]) -> None:
            barrier.wait()
            try:
                delivery()
            except BaseException as error:  # noqa: BLE001  # the test must see a kill too
                failures.append(error)

        threads = [threading.Thread(target=deliver, args=(delivery,)) for delivery in deliveries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    # State

    def rows(self, database: str, statement: str, **values: Any) -> list[Any]:
        """The rows of a query. `database` is "service", "product" or "legacy"."""
        with self.own_engines[database].connect() as conn:
            return [tuple(row) for row in conn.execute(text(statement), values)]

    def change(self, database: str, statement: str, **values: Any) -> None:
        """Executes a statement that changes a database."""
        with self.own_engines[database].begin() as conn:
            conn.execute(text(statement), values)

    def products(self, columns: str, database: str = "product") -> dict[str, Any]:
        """Values of the webshop's products by identifier; a tuple where `columns` names more than one column."""
        rows = self.rows(
            database, f"select identifier, {columns} from products where webshop_uuid = :w order by 1", w=self.webshop
        )
        return {identifier: values[0] if len(values) == 1 else tuple(values) for identifier, *values in rows}

    def identifiers(self, count: int) -> list[str]:
        """The first `count` identifiers of the webshop's products."""
        statement = "select identifier from products where webshop_uuid = :w order by identifier limit :n"
        return [identifier for (identifier,) in self.rows("product", statement, w=self.webshop, n=count)]


def table(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """The text of a CSV file."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def ledger(an_import: Import) -> tuple[int, int, int, int]:
    """The counts of an import: total, updated, unchanged, failed rows."""
    return an_import.total_rows, an_import.updated_rows, an_import.unchanged_rows, an_import.failed_rows


@cache
def app(function: str) -> FlaskClient:
    """A client of the function's HTTP app, which functions-framework makes."""
    client: FlaskClient = functions_framework.create_app(function, str(MAIN)).test_client()  # type: ignore[no-untyped-call]
    return client


@cache
def function_of(kind: type[Message]) -> str:
    """The name of the function that handles a kind of message."""
    (name,) = (name for name in main.__all__ if getattr(main, name).trigger.topic == kind.topic)
    return str(name)


def push(function: str, topic: str, data: bytes) -> int:
    """Pushes bytes to a function as Pub/Sub does. Returns the HTTP status of the response."""
    envelope = {
        "message": {
            "data": base64.b64encode(data).decode(),
            "attributes": {"message-id": str(uuid.uuid4()), "kafka.topic": topic},
            "messageId": "1",
            "publishTime": "2026-01-01T00:00:00Z",
        },
        "subscription": f"projects/local/subscriptions/{topic}",
    }
    # One client per push, because a client keeps its cookies and context: pushes can run at once.
    client = app(function).application.test_client()
    return client.post(f"/projects/local/topics/{topic}", json=envelope).status_code


@dataclass
class MailService:
    """Replaces shared.clients.mailer.Mailer: a test can count and read the emails that it accepted."""

    boundaries: Boundaries
    taken: list[Mail] = field(default_factory=list)
    answers: deque[Exception] = field(default_factory=deque)  # to the next emails; later ones are accepted
    before_answer: Callable[[], None] = lambda: None

    def send(self, mail: Mail) -> str:
        self.boundaries.reach("mail")
        if self.answers:
            raise self.answers.popleft()
        self.taken.append(mail)
        self.before_answer()
        self.boundaries.reach("mailed")
        return f"message-{len(self.taken)}"
