"""Kafka: a producer that returns only when the broker has the messages, a consumer whose offsets follow the work."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from shared import logs
from shared.errors import Unavailable
from shared.messages import Message, PubSubMessage
from shared.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Message as Delivery

# Sooner than Pub/Sub's shortest acknowledgement deadline in use (60 s), so that the sender fails before it is given up.
DELIVERY_TIMEOUT_MS = 30_000


# A consumer that was killed keeps its partitions for so long; the broker's least.
SESSION_TIMEOUT_MS = 6_000
RECORDS_AT_ONCE = 200  # 6 MB of full batches at the most, one publish

# Of a Pub/Sub message.
MAX_ATTRIBUTE_NAME_BYTES = 256
MAX_ATTRIBUTE_BYTES = 1024

log = logging.getLogger(__name__)


class NotSent(Unavailable):
    """The broker did not take a message in time. Some of those sent with it may have arrived: send all again."""


class Kafka:
    """One producer a process, with one thread that serves its delivery reports.

    Two pollers of one producer each sleep their whole time-out (measured), so nobody else polls.
    """

    def __init__(self, settings: Settings) -> None:
        """Connects in the background; the first send waits for it."""
        self._producer = Producer(
            connection(settings)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                "linger.ms": 0,  # a send waits for its reports, so lingering only adds to it
                "compression.type": "lz4",
                "message.max.bytes": 1_000_000,
            },
            logger=log,
        )
        threading.Thread(target=self._serve_reports, name="kafka-reports", daemon=True).start()

    def send(self, *messages: Message) -> None:
        """Sends `messages`, each to its struct's topic, keyed by its webshop.

        Raises NotSent when the broker did not confirm all of them.
        """
        reports = Reports(len(messages))
        for message in messages:
            self._produce(message, reports)
        reports.wait()

    def _produce(self, message: Message, reports: Reports) -> None:
        headers = {"message-id": str(uuid.uuid4()), "traceparent": logs.traceparent()}
        self._producer.produce(
            message.topic,
            key=str(message.webshop_uuid),
            value=message.encoded(),
            headers=list(headers.items()),
            on_delivery=reports.deliver,
        )

    def _serve_reports(self) -> None:
        while True:
            self._producer.poll(1)


class Reports:
    """Waits for the delivery reports of one send: flush() returning 0 is not success, the report is."""

    def __init__(self, expected: int) -> None:
        """Expects this many reports."""
        self._missing = expected
        self._errors: list[str] = []
        self._complete = threading.Event()
        if not expected:
            self._complete.set()

    def deliver(self, error: KafkaError | None, _delivery: Delivery) -> None:
        """Called by the producer's one polling thread, so counting needs no lock."""
        if error is not None:
            self._errors.append(str(error))
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()

    def wait(self) -> None:
        """Raises NotSent unless every message was confirmed."""
        arrived = self._complete.wait(DELIVERY_TIMEOUT_MS / 1000 + 5)
        if not arrived:
            raise NotSent(f"{self._missing} messages are without a report after {DELIVERY_TIMEOUT_MS / 1000:.0f} s")
        if self._errors:
            raise NotSent(f"{len(self._errors)} messages were not taken, the first because: {self._errors[0]}")


class Records:
    """What a consumer group reads of some topics, as the letters that Pub/Sub gets."""

    def __init__(self, settings: Settings, group: str, topics: Sequence[str]) -> None:
        """Joins `group`; its members share the partitions."""
        self._consumer = Consumer(
            connection(settings)
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 3,
                "fetch.wait.max.ms": 10,  # some brokers answer a waiting fetch only when this is over
                "topic.metadata.refresh.interval.ms": 10_000,  # a topic that is made later is read soon
            },
            logger=log,
        )
        self._consumer.subscribe(list(topics))

    def next(self, timeout_seconds: float) -> list[PubSubMessage]:
        """The records that are there, after waiting up to `timeout_seconds` for the first."""
        first = self._consumer.poll(timeout_seconds)
        if first is None:
            return []
        records = [first, *self._consumer.consume(RECORDS_AT_ONCE - 1, 0)]
        for record in records:
            if error := record.error():
                log.warning("The consumer says: %s", error)
        return [letter(record) for record in records if not record.error()]

    def commit(self) -> None:
        """Marks everything that `next` returned as dealt with. What is not marked comes again after a restart."""
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            log.warning("Offsets were not committed, so these records will come again: %s", error)

    def close(self) -> None:
        """Leaves the group, so that others take over at once."""
        self._consumer.close()


def letter(record: Delivery) -> PubSubMessage:
    """A record as Google's Pub/Sub sink connector writes it.

    https://cloud.google.com/pubsub/docs/connect_kafka#convert_to_pubsub_messages
    """
    headers = {str(header[0]): text_of(header[1]) for header in record.headers() or () if fits(*header)}
    position = {
        "key": text_of(record.key()),
        "kafka.topic": record.topic() or "",
        "kafka.partition": str(record.partition()),
        "kafka.offset": str(record.offset()),
        "kafka.timestamp": str(record.timestamp()[1]),
    }
    return PubSubMessage(record.topic() or "", bytes_of(record.value()), {**headers, **position})


def fits(name: str, value: str | bytes | None) -> bool:
    """Whether Pub/Sub takes a header as an attribute. One that it does not must not keep the record from it.

    https://cloud.google.com/pubsub/quotas#resource_limits ; names that begin with goog are its own.
    """
    known = 0 < len(name.encode()) <= MAX_ATTRIBUTE_NAME_BYTES and not name.startswith("goog")
    return known and len(text_of(value).encode()) <= MAX_ATTRIBUTE_BYTES


def text_of(value: str | bytes | None) -> str:
    """A key or a header's value as an attribute's text."""
    return bytes_of(value).decode("utf-8", "replace")


def bytes_of(value: str | bytes | None) -> bytes:
    """What the client gives as text or bytes, as bytes."""
    return value.encode() if isinstance(value, str) else value or b""


def connection(settings: Settings) -> dict[str, str | int | float | bool]:
    """Where the broker is and how to log in: what producer and consumer share."""
    settings.require("kafka_bootstrap_servers")
    where: dict[str, str | int | float | bool] = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    if settings.kafka_username:
        settings.require("kafka_password")
        where |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password,
        }
    return where
