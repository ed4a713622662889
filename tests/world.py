"""All functions of the project in one process: real databases and code, a bucket and a broker that keep what they get.

Messages wait in `world.broker.waiting` until the test delivers them: in any order, twice, at once, or never. Each goes
through functions-framework's own HTTP app, as a push from Pub/Sub does. A function can be killed at any call to the
outside: `world.kill_at(n)` ends it at the n-th, as SIGKILL would, and nothing of it runs after.
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
from typing import Any

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

MAIN = Path(main.__file__)
MOST_DELIVERIES = 2_000  # a flow that takes more is going round in circles


class Killed(BaseException):
    """The process is gone: not an error that code could catch."""


@dataclass
class Boundaries:
    """Counts the calls to the outside and kills at one of them."""

    until_kill: int = 0  # 0: nobody is killed
    passed: int = 0

    def reach(self, _what: str) -> None:
        self.passed += 1
        if self.until_kill and self.passed == self.until_kill:
            raise Killed


@dataclass
class Bucket:
    """A bucket in memory, with generations. It takes the place of shared.clients.bucket.Storage."""

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
        return (
            "http://bucket.test/"
            + base64.urlsafe_b64encode(json.dumps([path, dict(metadata), origin]).encode()).decode()
        )

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
    """Kafka, the bridge and Pub/Sub in one: what was sent waits for the test to deliver it."""

    boundaries: Boundaries
    waiting: deque[Message] = field(default_factory=deque)
    sent: list[Message] = field(default_factory=list)
    down: bool = False
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

    def of(self, kind: type[Message]) -> list[Message]:
        """What was sent of one kind."""
        return [message for message in self.sent if isinstance(message, kind)]

    def take(self, kind: type[Message]) -> list[Message]:
        """Takes out of the waiting messages those of one kind."""
        taken = [message for message in self.waiting if isinstance(message, kind)]
        self.waiting = deque(message for message in self.waiting if not isinstance(message, kind))
        return taken


@dataclass
class DeadLetters:
    """Pub/Sub's publisher, as far as functions use it."""

    messages: list[PubSubMessage] = field(default_factory=list)

    def publish(self, messages: Iterable[PubSubMessage]) -> None:
        self.messages += messages


class World:
    """One webshop's import from upload to mirror, under the test's control."""

    def __init__(self, databases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tenants = databases.tenants
        self.webshop = self.tenants.webshop_uuid
        self.user = self.tenants.user_uuid
        self.boundaries = Boundaries()
        self.bucket = Bucket(self.boundaries)
        self.broker = Broker(self.boundaries)
        self.dead_letters = DeadLetters()
        self.service = self._engine(databases.service_url)
        self.product = self._engine(databases.product_url)
        self.legacy = self._engine(databases.legacy_url)
        # Before the test looks at anything itself, its own connections must not count as the function's.
        self.looking = {
            name: connect_to("TEST", DatabaseSettings(url=url), 4)
            for name, url in (
                ("service", databases.service_url),
                ("product", databases.product_url),
                ("legacy", databases.legacy_url),
            )
        }
        for name, client in (
            ("service_database", self.service),
            ("product_database", self.product),
            ("legacy_database", self.legacy),
            ("storage", self.bucket),
            ("kafka", self.broker),
            ("pubsub", self.dead_letters),
        ):
            monkeypatch.setattr(clients, name, lambda client=client: client)
        for name in main.__all__:
            if getattr(main, name).trigger.kind != "worker":
                app(name)  # made before the test looks at logs: making one sets up logging anew

    def _engine(self, url: str) -> Engine:
        engine = connect_to("TEST", DatabaseSettings(url=url), 8)
        event.listen(engine, "commit", lambda _connection: self.boundaries.reach("commit"))
        return engine

    def close(self) -> None:
        for engine in (self.service, self.product, self.legacy, *self.looking.values()):
            engine.dispose()

    # What the merchant does

    def upload(self, content: bytes | str, **metadata: str) -> uuid.UUID:
        """Puts a file into the bucket; its event is not delivered yet. Returns the import's uuid."""
        import_uuid = uuid.uuid4()
        self.put(import_uuid, content, **metadata)
        return import_uuid

    def put(self, import_uuid: uuid.UUID, content: bytes | str, **metadata: str) -> StoredObject:
        path = import_upload.upload_path(self.webshop, import_uuid, "products.csv")
        given = {"user-uuid": str(self.user), **{key.replace("_", "-"): value for key, value in metadata.items()}}
        return self.bucket.put(path, content.encode() if isinstance(content, str) else content, given)

    def put_for(self, webshop_uuid: uuid.UUID, content: str) -> uuid.UUID:
        """Puts a file of another webshop into the bucket. Returns the import's uuid."""
        import_uuid = uuid.uuid4()
        path = import_upload.upload_path(webshop_uuid, import_uuid, "products.csv")
        self.bucket.put(path, content.encode(), {"user-uuid": str(self.user)})
        return import_uuid

    def import_file(self, content: bytes | str, **metadata: str) -> Import:
        """Uploads a file, delivers all there is to deliver, and returns the import as it is then."""
        import_uuid = self.upload(content, **metadata)
        self.deliver_upload(import_uuid)
        self.run()
        return self.find(import_uuid)

    def find(self, import_uuid: uuid.UUID) -> Import:
        with self.looking["service"].connect() as service:
            return find_import(service, self.webshop, import_uuid)

    def errors(self, import_uuid: uuid.UUID) -> dict[int, list[dict[str, str]]]:
        """What is wrong with each failed row, by its number."""
        found = self.rows(
            "service",
            "select row_number, errors from import_refused_rows r"
            " join imports i on i.uuid = r.import_uuid and i.run = r.run"
            " where r.import_uuid = :uuid order by 1",
            uuid=import_uuid,
        )
        return dict(found)

    # What the platform does

    def deliver(self, message: Message) -> int:
        """Pushes one message to its function; returns the status it answered with."""
        return push(function_of(type(message)), message.topic, message.encode())

    def deliver_upload(self, import_uuid: uuid.UUID) -> int:
        """Sends Cloud Storage's event for the import's file."""
        (stored,) = self.bucket.list(f"imports/{self.webshop}/{import_uuid}/")
        return self.deliver_object(stored)

    def deliver_object(self, stored: StoredObject) -> int:
        """Sends Cloud Storage's event for any object."""
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
        """Delivers what waits, and what comes of it, until nothing waits. What fails is delivered again."""
        for _ in range(MOST_DELIVERIES):
            if not self.broker.waiting:
                return
            message = order(self.broker.waiting)
            statuses = [self.deliver(message) for _ in range(2 if twice else 1)]
            if 503 in statuses:
                self.broker.waiting.append(message)
        raise AssertionError(f"still not quiet after {MOST_DELIVERIES} deliveries: {self.broker.waiting}")

    def recover(self) -> None:
        """Lets time pass, as often as it takes: leases run out, sweep looks, messages are delivered."""
        for _ in range(30):
            self.run()
            self.let_time_pass()
            assert self.sweep() == 200
            if not self.broker.waiting and not self.unfinished():
                return
        raise AssertionError(f"never came to rest: {self.unfinished()}")

    def unfinished(self) -> list[Any]:
        """Active imports, and outcomes that are not mirrored."""
        active = self.rows(
            "service", "select uuid, status, claims from imports where status = any(:active)", active=list(ACTIVE)
        )
        return active + self.rows(
            "product", "select import_uuid, first_row from import_outcomes where mirrored_at is null"
        )

    def let_time_pass(self) -> None:
        """Minutes go by in all databases: no lease holds, nobody waits to be woken, messages count as late."""
        self.change(
            "service",
            "update imports set wake_at = wake_at - interval '10 min', lease_until = lease_until - interval '10 min'",
        )
        self.change("product", "update import_outcomes set mirror_due_at = mirror_due_at - interval '10 min'")

    def retry(self, import_uuid: uuid.UUID) -> None:
        """The merchant retries an import; its trigger waits then."""
        clients.kafka().send(operations.retry_import(self.service, self.webshop, self.user, import_uuid))

    def import_and_hold(self, content: str) -> list[Message]:
        """Imports a file; returns the messages for the mirror instead of delivering them."""
        import_uuid = self.upload(content)
        self.deliver_upload(import_uuid)
        held: list[Message] = []
        while self.broker.waiting:
            held += self.broker.take(ProductsUpdated)
            if self.broker.waiting:
                self.deliver(self.broker.waiting.popleft())
        return held

    def push_bytes(self, kind: type[Message], data: bytes) -> int:
        """Pushes any bytes to the function of a kind of message."""
        return push(function_of(kind), kind.topic, data)

    # Faults

    def kill_at(self, boundary: int) -> None:
        """Kills whoever makes the `boundary`-th call to the outside from now on (0: nobody)."""
        self.boundaries.until_kill, self.boundaries.passed = boundary, 0

    def at_once(self, *deliveries: Callable[[], Any]) -> None:
        """Does all of it at the same moment, each in a thread of its own."""
        barrier = threading.Barrier(len(deliveries))
        failures: list[BaseException] = []

        def deliver(delivery: Callable[[], Any]) -> None:
            barrier.wait()
            try:
                delivery()
            except BaseException as error:  # noqa: BLE001  # a kill too must reach the test
                failures.append(error)

        threads = [threading.Thread(target=deliver, args=(delivery,)) for delivery in deliveries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    # What is there

    def rows(self, database: str, statement: str, **values: Any) -> list[Any]:
        with self.looking[database].connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def change(self, database: str, statement: str, **values: Any) -> None:
        with self.looking[database].begin() as connection:
            connection.execute(text(statement), values)

    def products(self, columns: str, database: str = "product") -> dict[str, Any]:
        """Values by identifier, of the webshop's products."""
        found = self.rows(
            database, f"select identifier, {columns} from products where webshop_uuid = :w order by 1", w=self.webshop
        )
        return {identifier: values[0] if len(values) == 1 else tuple(values) for identifier, *values in found}

    def identifiers(self, count: int) -> list[str]:
        return [
            row[0]
            for row in self.rows(
                "product",
                "select identifier from products where webshop_uuid = :w order by identifier limit :n",
                w=self.webshop,
                n=count,
            )
        ]


def table(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """A CSV file's text."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def ledger(found: Import) -> tuple[int, int, int, int]:
    """Total, updated, unchanged, failed."""
    return found.total_rows, found.updated_rows, found.unchanged_rows, found.failed_rows


@cache
def app(function: str) -> FlaskClient:
    """The function's HTTP app, as functions-framework makes it."""
    return functions_framework.create_app(function, str(MAIN)).test_client()


@cache
def function_of(kind: type[Message]) -> str:
    """The function that a message's topic is pushed to."""
    (name,) = (name for name in main.__all__ if getattr(main, name).trigger.topic == kind.topic)
    return str(name)


def push(function: str, topic: str, data: bytes) -> int:
    """Pushes bytes to a function as Pub/Sub does; returns the status it answered with."""
    envelope = {
        "message": {
            "data": base64.b64encode(data).decode(),
            "attributes": {"message-id": str(uuid.uuid4()), "kafka.topic": topic},
            "messageId": "1",
            "publishTime": "2026-01-01T00:00:00Z",
        },
        "subscription": f"projects/local/subscriptions/{topic}",
    }
    # A client keeps its cookies and context: one a push, so that pushes can run at once.
    client = app(function).application.test_client()
    return client.post(f"/projects/local/topics/{topic}", json=envelope).status_code


@dataclass
class MailService:
    """Takes the place of shared.clients.mailer.Mailer: the mails that it took can be counted and read."""

    boundaries: Boundaries
    taken: list[Mail] = field(default_factory=list)
    answers: deque[Exception] = field(default_factory=deque)  # to the next mails, which it does not take; then yes
    before_answer: Callable[[], None] = lambda: None

    def send(self, mail: Mail) -> str:
        self.boundaries.reach("mail")
        if self.answers:
            raise self.answers.popleft()
        self.taken.append(mail)
        self.before_answer()
        self.boundaries.reach("mailed")
        return f"message-{len(self.taken)}"
