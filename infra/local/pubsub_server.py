"""A Pub/Sub server: the part of the real gRPC API that the project uses, with the push delivery of the real service.

It implements CreateTopic, GetTopic, CreateSubscription, GetSubscription, UpdateSubscription (only the push address) and
Publish; any other method is UNIMPLEMENTED. It pushes a message in the real envelope, and again with the subscription's
backoff until the endpoint accepts it. After the last attempt the message goes to the dead-letter topic.

A journal on disk records topics, subscriptions and every undelivered message before a request is acknowledged. So the
process can be killed at any time. Afterwards a message may be pushed twice, as by the real service.
"""

from __future__ import annotations

import http.client
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from operator import methodcaller
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import grpc
import msgspec
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type

from infra.local.ports import HOST
from infra.local.supervisor import Child

log = logging.getLogger(__name__)

DEFAULT_CONCURRENT_PUSHES = 4
DEFAULT_MIN_BACKOFF_SECONDS, DEFAULT_MAX_BACKOFF_SECONDS = 1.0, 10.0
DEFAULT_ACK_DEADLINE_SECONDS = 10
DEFAULT_DELIVERY_ATTEMPTS = 5
GRPC_THREADS = 8
MAX_REQUEST_BYTES = 10_000_000 + 100_000  # the real limit of one Publish request, and 100 kB for its encoding
MAX_JOURNAL_BYTES = 64_000_000  # a larger journal is rewritten with only the undelivered messages

ACKNOWLEDGING_STATUSES = (102, 200, 201, 202, 204)  # https://cloud.google.com/pubsub/docs/push#receive_push

encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True):
    """A published message."""

    id: str
    data: bytes
    attributes: dict[str, str]
    published: str  # RFC 3339


class Subscription(msgspec.Struct):
    """A push subscription."""

    name: str
    topic: str
    endpoint: str
    ack_deadline_seconds: int
    min_backoff_seconds: float
    max_backoff_seconds: float
    dead_letter_topic: str  # "" for none
    delivery_attempts: int  # before a message goes to the dead-letter topic


class Entry(msgspec.Struct, omit_defaults=True):
    """One line of the journal: one event."""

    topic: str = ""  # a created topic
    subscription: Subscription | None = None  # a created or changed subscription
    published: Message | None = None
    to: tuple[str, ...] = ()  # the subscriptions that `published` goes to
    done: tuple[str, str] | None = None  # (subscription, message id) of a delivered or dead-lettered message
    failed: tuple[str, str] | None = None  # (subscription, message id) of a failed attempt


class Journal:
    """A file of entries. When `append` returns, the kernel has the entries, so they survive a killed process."""

    def __init__(self, path: Path) -> None:
        """Opens the file for appending. Read an existing file with `read_entries` before."""
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.size_bytes = path.stat().st_size

    @staticmethod
    def read_entries(path: Path) -> Iterator[Entry]:
        """Yields the entries of the file. Skips an incomplete last line, which was never acknowledged."""
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    yield msgspec.json.decode(line, type=Entry)

    def append(self, *entries: Entry) -> None:
        """Appends `entries` in one write."""
        lines = b"".join(encode(entry) + b"\n" for entry in entries)
        os.write(self._file, lines)
        self.size_bytes += len(lines)

    def rewrite(self, entries: Iterator[Entry]) -> None:
        """Replaces the whole file by `entries`."""
        new = self._path.with_suffix(".new")
        new.write_bytes(b"".join(encode(entry) + b"\n" for entry in entries))
        new.replace(self._path)
        os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self.size_bytes = self._path.stat().st_size


@dataclass
class Delivery:
    """A message on its way to one subscription."""

    message: Message
    attempts: int = 0  # failed ones


@dataclass
class Mailbox:
    """A subscription and its undelivered messages."""

    subscription: Subscription
    waiting: dict[str, Delivery] = field(default_factory=dict)  # by message id; includes those being pushed
    due: SimpleQueue[Delivery] = field(default_factory=SimpleQueue)


class Service:
    """Stores topics, subscriptions and messages, and pushes the messages in threads."""

    def __init__(self, journal: Path, dead_letters: Path, concurrent_pushes: Mapping[str, int]) -> None:
        """Continues the unfinished deliveries of `journal`.

        `dead_letters` gets one JSON line per message that is published to a subscription's dead-letter topic.
        `concurrent_pushes` is the number of requests that a function handles at once, by the subscription's short name.
        A subscription in the journal that is missing there belongs to a function that was removed, and is deleted.
        """
        self._lock = threading.Lock()
        self._topics: set[str] = set()
        self._mailboxes: dict[str, Mailbox] = {}
        self._concurrent_pushes = concurrent_pushes
        self._dead_letters = dead_letters
        self._retries: list[tuple[float, int, Mailbox, Delivery]] = []
        self._retries_changed = threading.Condition()
        self._count = itertools.count()
        self._ids = itertools.count(time.time_ns() // 1000)  # rises across restarts too
        entries = Journal.read_entries(journal)
        journal.parent.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            self._replay(entry)
        for name in [name for name in self._mailboxes if short_name(name) not in concurrent_pushes]:
            del self._mailboxes[name]
        self._journal = Journal(journal)
        self._journal.rewrite(self._unfinished_entries())
        for mailbox in self._mailboxes.values():
            for delivery in mailbox.waiting.values():
                mailbox.due.put(delivery)
            self._start_pushing(mailbox)
        threading.Thread(target=self._requeue_retries, daemon=True).start()

    def create_topic(self, name: str) -> bool:
        """Creates a topic. Returns False when it exists already."""
        with self._lock:
            if name in self._topics:
                return False
            self._topics.add(name)
            self._journal.append(Entry(topic=name))
        return True

    def has_topic(self, name: str) -> bool:
        """Tells whether the topic exists."""
        return name in self._topics

    def create_subscription(self, subscription: Subscription) -> bool:
        """Creates a subscription. Returns False when it exists already."""
        with self._lock:
            if subscription.name in self._mailboxes:
                return False
            mailbox = self._mailboxes[subscription.name] = Mailbox(subscription)
            self._journal.append(Entry(subscription=subscription))
        self._start_pushing(mailbox)
        return True

    def find_subscription(self, name: str) -> Subscription | None:
        """Returns the subscription as it is now, or None when it does not exist."""
        mailbox = self._mailboxes.get(name)
        return mailbox.subscription if mailbox else None

    def change_endpoint(self, name: str, endpoint: str) -> None:
        """Changes where messages are pushed, from the next push on."""
        with self._lock:
            subscription = self._mailboxes[name].subscription
            subscription.endpoint = endpoint
            self._journal.append(Entry(subscription=subscription))

    def publish(self, topic: str, contents: list[tuple[bytes, dict[str, str]]]) -> list[str]:
        """Stores messages, given as data and attributes, in the journal. Returns their ids."""
        published_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        with self._lock:
            mailboxes = [box for box in self._mailboxes.values() if box.subscription.topic == topic]
            to = tuple(box.subscription.name for box in mailboxes)
            messages = [
                Message(str(next(self._ids)), data, dict(attributes), published_at) for data, attributes in contents
            ]
            if to:
                self._journal.append(*(Entry(published=message, to=to) for message in messages))
            for message in messages:
                for mailbox in mailboxes:
                    delivery = mailbox.waiting[message.id] = Delivery(message)
                    mailbox.due.put(delivery)
        if any(box.subscription.dead_letter_topic == topic for box in self._mailboxes.values()):
            self._write_dead_letters(messages)
        return [message.id for message in messages]

    def _write_dead_letters(self, messages: list[Message]) -> None:
        lines = [
            {
                "published": message.published,
                "attributes": message.attributes,
                "data": message.data.decode(errors="replace"),
            }
            for message in messages
        ]
        with self._dead_letters.open("ab") as file:
            file.write(b"".join(encode(line) + b"\n" for line in lines))

    def _replay(self, entry: Entry) -> None:
        if entry.topic:
            self._topics.add(entry.topic)
        if entry.subscription:
            mailbox = self._mailboxes.setdefault(entry.subscription.name, Mailbox(entry.subscription))
            mailbox.subscription = entry.subscription
        if entry.published:
            for name in entry.to:
                self._mailboxes[name].waiting[entry.published.id] = Delivery(entry.published)
        if entry.failed:
            name, message_id = entry.failed
            self._mailboxes[name].waiting[message_id].attempts += 1
        if entry.done:
            name, message_id = entry.done
            del self._mailboxes[name].waiting[message_id]

    def _unfinished_entries(self) -> Iterator[Entry]:
        yield from (Entry(topic=topic) for topic in sorted(self._topics))
        yield from (Entry(subscription=mailbox.subscription) for mailbox in self._mailboxes.values())
        for name, mailbox in self._mailboxes.items():
            for delivery in mailbox.waiting.values():
                yield Entry(published=delivery.message, to=(name,))
                yield from [Entry(failed=(name, delivery.message.id))] * delivery.attempts

    def _start_pushing(self, mailbox: Mailbox) -> None:
        for _ in range(self._concurrent_pushes.get(short_name(mailbox.subscription.name), DEFAULT_CONCURRENT_PUSHES)):
            threading.Thread(target=self._push, args=(mailbox,), daemon=True).start()

    def _push(self, mailbox: Mailbox) -> None:
        """Pushes the messages that are due, one after the other, on one connection. Runs in a thread."""
        connection = PushConnection()
        while True:
            delivery = mailbox.due.get()
            subscription = mailbox.subscription
            if connection.post(
                subscription.endpoint, encode_push(subscription, delivery), subscription.ack_deadline_seconds
            ):
                self._finish(mailbox, delivery)
            else:
                self._fail(mailbox, delivery)

    def _finish(self, mailbox: Mailbox, delivery: Delivery) -> None:
        with self._lock:
            del mailbox.waiting[delivery.message.id]
            self._journal.append(Entry(done=(mailbox.subscription.name, delivery.message.id)))
            if self._journal.size_bytes > MAX_JOURNAL_BYTES:
                self._journal.rewrite(self._unfinished_entries())

    def _fail(self, mailbox: Mailbox, delivery: Delivery) -> None:
        subscription = mailbox.subscription
        delivery.attempts += 1
        log.warning("%s: attempt %d of message %s failed", subscription.name, delivery.attempts, delivery.message.id)
        if subscription.dead_letter_topic and delivery.attempts >= subscription.delivery_attempts:
            self.publish(subscription.dead_letter_topic, [make_dead_letter(subscription, delivery)])
            self._finish(mailbox, delivery)
            return
        with self._lock:
            self._journal.append(Entry(failed=(subscription.name, delivery.message.id)))
        backoff = min(subscription.min_backoff_seconds * 2 ** (delivery.attempts - 1), subscription.max_backoff_seconds)
        with self._retries_changed:
            heappush(self._retries, (time.monotonic() + backoff, next(self._count), mailbox, delivery))
            self._retries_changed.notify()

    def _requeue_retries(self) -> None:
        """Makes failed deliveries due again when their backoff has passed. Runs in a thread."""
        while True:
            with self._retries_changed:
                seconds = self._retries[0][0] - time.monotonic() if self._retries else None
                if seconds is None or seconds > 0:
                    self._retries_changed.wait(seconds)
                    continue
                _, _, mailbox, delivery = heappop(self._retries)
            mailbox.due.put(delivery)


class PushConnection:
    """A connection to one endpoint, which stays open between pushes."""

    def __init__(self) -> None:
        """Does not connect yet: `post` does."""
        self._connection: http.client.HTTPConnection | None = None
        self._address = ""

    def post(self, endpoint: str, body: bytes, timeout_seconds: float) -> bool:
        """Posts a message. Returns whether the endpoint accepted it. Reconnects once when the connection was closed."""
        url = urlsplit(endpoint)
        for is_new in (False, True):
            if self._connection is None or self._address != url.netloc:
                self._close()
                self._address = url.netloc
                self._connection = http.client.HTTPConnection(url.netloc, timeout=timeout_seconds)
                is_new = True  # noqa: PLW2901  # a second attempt makes sense only on an old connection
            try:
                self._connection.request("POST", url.path or "/", body, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self._close()
                if is_new:
                    return False
            else:
                return response.status in ACKNOWLEDGING_STATUSES
        return False

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def short_name(name: str) -> str:
    """Returns the NAME of projects/…/subscriptions/NAME."""
    return name.rpartition("/")[2]


def encode_push(subscription: Subscription, delivery: Delivery) -> bytes:
    """Encodes the body of a push: https://cloud.google.com/pubsub/docs/push#receive_push ."""
    message = delivery.message
    body: dict[str, Any] = {
        "message": {
            "data": message.data,  # msgspec writes bytes as base64
            "attributes": message.attributes,
            "messageId": message.id,
            "message_id": message.id,
            "publishTime": message.published,
            "publish_time": message.published,
        },
        "subscription": subscription.name,
    }
    if subscription.dead_letter_topic:
        body["deliveryAttempt"] = delivery.attempts + 1
    return encode(body)


def make_dead_letter(subscription: Subscription, delivery: Delivery) -> tuple[bytes, dict[str, str]]:
    """Returns the data and the attributes of the dead letter, with the attributes that the real service adds."""
    _, project, _, name = subscription.name.split("/")
    return delivery.message.data, delivery.message.attributes | {
        "CloudPubSubDeadLetterSourceDeliveryCount": str(delivery.attempts),
        "CloudPubSubDeadLetterSourceSubscription": name,
        "CloudPubSubDeadLetterSourceSubscriptionProject": project,
        "CloudPubSubDeadLetterSourceTopicPublishTime": delivery.message.published,
    }


class Api:
    """Implements the gRPC methods, with the messages of the protocol."""

    def __init__(self, service: Service) -> None:
        """Works on `service`."""
        self._service = service

    def create_topic(self, request: Any, context: grpc.ServicerContext) -> Any:
        """https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#publisher ."""
        if not self._service.create_topic(request.name):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"The topic {request.name} already exists.")
        return request

    def get_topic(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the topic, which has no properties except its name."""
        self._require_topic(request.topic, context)
        return pubsub_v1.types.Topic.pb(pubsub_v1.types.Topic(name=request.topic))

    def publish(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Responds when the messages are in the journal."""
        self._require_topic(request.topic, context)
        contents = [(message.data, dict(message.attributes)) for message in request.messages]
        ids = self._service.publish(request.topic, contents)
        return pubsub_v1.types.PublishResponse.pb(pubsub_v1.types.PublishResponse(message_ids=ids))

    def create_subscription(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Creates a push subscription. Pull subscriptions are not implemented."""
        self._require_topic(request.topic, context)
        if not request.push_config.push_endpoint:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "Only push subscriptions are implemented. Set a push endpoint."
            )
        if not self._service.create_subscription(from_proto(request)):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"The subscription {request.name} already exists.")
        return request

    def get_subscription(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the subscription as it is now."""
        return to_proto(self._require_subscription(request.subscription, context))

    def update_subscription(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Changes the push address. Other changes are not implemented."""
        if list(request.update_mask.paths) != ["push_config"]:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Only push_config can be updated.")
        subscription = self._require_subscription(request.subscription.name, context)
        self._service.change_endpoint(subscription.name, request.subscription.push_config.push_endpoint)
        return to_proto(subscription)

    def _require_subscription(self, name: str, context: grpc.ServicerContext) -> Subscription:
        subscription = self._service.find_subscription(name)
        if subscription is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"The subscription {name} was not found.")
            raise AssertionError  # not reached: abort raises
        return subscription

    def _require_topic(self, name: str, context: grpc.ServicerContext) -> None:
        if not self._service.has_topic(name):
            context.abort(grpc.StatusCode.NOT_FOUND, f"The topic {name} was not found.")


def from_proto(proto: Any) -> Subscription:
    """Returns the requested subscription, with the defaults of the real service."""
    retry = proto.retry_policy if proto.HasField("retry_policy") else None
    dead = proto.dead_letter_policy
    return Subscription(
        name=proto.name,
        topic=proto.topic,
        endpoint=proto.push_config.push_endpoint,
        ack_deadline_seconds=proto.ack_deadline_seconds or DEFAULT_ACK_DEADLINE_SECONDS,
        min_backoff_seconds=retry.minimum_backoff.ToTimedelta().total_seconds()
        if retry
        else DEFAULT_MIN_BACKOFF_SECONDS,
        max_backoff_seconds=retry.maximum_backoff.ToTimedelta().total_seconds()
        if retry
        else DEFAULT_MAX_BACKOFF_SECONDS,
        dead_letter_topic=dead.dead_letter_topic,
        delivery_attempts=dead.max_delivery_attempts or DEFAULT_DELIVERY_ATTEMPTS,
    )


def to_proto(subscription: Subscription) -> Any:
    """Returns the properties of a subscription that clients of this project read."""
    proto = pubsub_v1.types.Subscription(
        name=subscription.name,
        topic=subscription.topic,
        push_config=pubsub_v1.types.PushConfig(push_endpoint=subscription.endpoint),
        ack_deadline_seconds=subscription.ack_deadline_seconds,
    )
    return pubsub_v1.types.Subscription.pb(proto)


def serve(child: Child, directory: Path, port: int, concurrent_pushes: Mapping[str, int]) -> None:
    """Serves until the process is killed. The journal and the dead letters are in `directory`."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    service = Service(directory / "pubsub.journal", directory / "dead-letters.jsonl", concurrent_pushes)
    server = start_server(service, port)
    child.ready()
    server.wait_for_termination()


def start_server(service: Service, port: int) -> grpc.Server:
    """Starts a gRPC server for `service` on `port`."""
    types = pubsub_v1.types
    api = Api(service)
    server = grpc.server(
        ThreadPoolExecutor(GRPC_THREADS),
        options=[("grpc.max_receive_message_length", MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)],
    )
    publisher = {
        "CreateTopic": make_handler(api.create_topic, types.Topic),
        "GetTopic": make_handler(api.get_topic, types.GetTopicRequest),
        "Publish": make_handler(api.publish, types.PublishRequest),
    }
    subscriber = {
        "CreateSubscription": make_handler(api.create_subscription, types.Subscription),
        "GetSubscription": make_handler(api.get_subscription, types.GetSubscriptionRequest),
        "UpdateSubscription": make_handler(api.update_subscription, types.UpdateSubscriptionRequest),
    }
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", publisher),
            grpc.method_handlers_generic_handler("google.pubsub.v1.Subscriber", subscriber),
        )
    )
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    return server


def make_handler(method: Any, request_type: Any) -> grpc.RpcMethodHandler:
    """Makes the handler of a unary method. It decodes requests as protobuf messages: their wrappers are much slower."""
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request_type.pb().FromString, response_serializer=methodcaller("SerializeToString")
    )
