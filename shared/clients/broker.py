"""Kafka: a producer that returns only when the broker has the messages, and a consumer that commits after the work."""

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
    from confluent_kafka import Message as KafkaRecord

# Shorter than the shortest acknowledgement deadline of our subscriptions (60 s): the sender fails before Pub/Sub
# delivers its message again.
DELIVERY_TIMEOUT_MS = 30_000
REPORT_TIMEOUT_SECONDS = DELIVERY_TIMEOUT_MS / 1000 + 5  # the producer reports every message by DELIVERY_TIMEOUT_MS

# A killed consumer keeps its partitions for this long; it is the shortest time that brokers allow.
SESSION_TIMEOUT_MS = 6_000
MAX_RECORDS_PER_FETCH = 200  # at most 6 MB of full batches

# Of a Pub/Sub message.
MAX_ATTRIBUTE_NAME_BYTES = 256
MAX_ATTRIBUTE_BYTES = 1024

log = logging.getLogger(__name__)


class NotSent(Unavailable):
    """The broker did not confirm every message in time. Some may have arrived: send all of them again."""


class Kafka:
    """One producer per process, with one thread that serves its delivery reports.

    No other thread polls: two threads that poll one producer each sleep for their whole timeout (measured).
    """

    def __init__(self, settings: Settings) -> None:
        """Connects in the background; the first send waits for the connection."""
        self._producer = Producer(
            connection_options(settings)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
                "linger.ms": 0,  # a send waits for its reports, so lingering would only delay it
                "compression.type": "lz4",
                "message.max.bytes": 1_000_000,
            },
            logger=log,
        )
        threading.Thread(target=self._serve_reports, name="kafka-reports", daemon=True).start()

    def send(self, *messages: Message) -> None:
        """Sends `messages`, each to its struct's topic, keyed by its webshop_uuid.

        Raises NotSent when the broker does not confirm all of them.
        """
        reports = DeliveryReports(len(messages))
        for message in messages:
            self._produce(message, reports)
        reports.wait()

    def _produce(self, message: Message, reports: DeliveryReports) -> None:
        headers = {"message-id": str(uuid.uuid4()), "traceparent": logs.current_traceparent()}
        self._producer.produce(
            message.topic,
            key=str(message.webshop_uuid),
            value=message.encode(),
            headers=list(headers.items()),
            on_delivery=reports.add,
        )

    def _serve_reports(self) -> None:
        while True:
            self._producer.poll(1)


class DeliveryReports:
    """The delivery reports of one send. Only they prove success: flush() may return 0 when messages have failed."""

    def __init__(self, expected: int) -> None:
        """Expects one report per message."""
        self._expected = self._missing = expected
        self._errors: list[str] = []
        self._complete = threading.Event()
        if not expected:
            self._complete.set()

    def add(self, error: KafkaError | None, _record: KafkaRecord) -> None:
        """Counts one report. Only the producer's polling thread calls it, so counting needs no lock."""
        if error is not None:
            self._errors.append(str(error))
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()

    def wait(self) -> None:
        """Waits for all reports. Raises NotSent unless the broker confirmed every message."""
        if not self._complete.wait(REPORT_TIMEOUT_SECONDS):
            raise NotSent(f"Kafka sent no report on {self._missing} of {self._expected} messages in time")
        if self._errors:
            failed = f"{len(self._errors)} of {self._expected} messages"
            raise NotSent(f"Kafka did not accept {failed}. The first error: {self._errors[0]}")


class KafkaConsumer:
    """One member of a consumer group. It returns the records of some topics as Pub/Sub messages."""

    def __init__(self, settings: Settings, group: str, topics: Sequence[str]) -> None:
        """Joins `group`, whose members share the partitions."""
        self._consumer = Consumer(
            connection_options(settings)
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": SESSION_TIMEOUT_MS // 3,
                "fetch.wait.max.ms": 10,  # some brokers answer a waiting fetch only when this is over
                "topic.metadata.refresh.interval.ms": 10_000,  # so that a topic that is created later is read soon
            },
            logger=log,
        )
        self._consumer.subscribe(list(topics))

    def fetch(self, timeout_seconds: float) -> list[PubSubMessage]:
        """Returns the next records. Waits up to `timeout_seconds` for the first one, and for no other."""
        first = self._consumer.poll(timeout_seconds)
        if first is None:
            return []
        records = [first, *self._consumer.consume(MAX_RECORDS_PER_FETCH - 1, 0)]
        for record in records:
            if error := record.error():
                log.warning("The Kafka consumer reports: %s", error)
        return [to_pubsub_message(record) for record in records if not record.error()]

    def commit(self) -> None:
        """Commits the offsets of all records that `fetch` returned. Without it they come again after a restart."""
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            log.warning("Offsets were not committed, so these records will be published again: %s", error)

    def close(self) -> None:
        """Leaves the group, so that its other members take over the partitions at once."""
        self._consumer.close()


def to_pubsub_message(record: KafkaRecord) -> PubSubMessage:
    """Converts a record in the way of Google's Pub/Sub sink connector.

    https://cloud.google.com/pubsub/docs/connect_kafka#convert_to_pubsub_messages
    """
    headers = {str(header[0]): to_text(header[1]) for header in record.headers() or () if is_valid_attribute(*header)}
    position = {
        "key": to_text(record.key()),
        "kafka.topic": record.topic() or "",
        "kafka.partition": str(record.partition()),
        "kafka.offset": str(record.offset()),
        "kafka.timestamp": str(record.timestamp()[1]),
    }
    return PubSubMessage(record.topic() or "", to_bytes(record.value()), {**headers, **position})


def is_valid_attribute(name: str, value: str | bytes | None) -> bool:
    """Whether Pub/Sub accepts a header as an attribute. An invalid one is left out, so that the record still arrives.

    https://cloud.google.com/pubsub/quotas#resource_limits ; names that begin with goog are reserved.
    """
    is_valid_name = 0 < len(name.encode()) <= MAX_ATTRIBUTE_NAME_BYTES and not name.startswith("goog")
    return is_valid_name and len(to_text(value).encode()) <= MAX_ATTRIBUTE_BYTES


def to_text(value: str | bytes | None) -> str:
    """Converts a key or a header's value into the text of an attribute."""
    return to_bytes(value).decode("utf-8", "replace")


def to_bytes(value: str | bytes | None) -> bytes:
    """Returns as bytes what the client returns as text, bytes or None."""
    return value.encode() if isinstance(value, str) else value or b""


def connection_options(settings: Settings) -> dict[str, str | int | float | bool]:
    """Returns the broker's address and the login, which producer and consumer share."""
    settings.require("kafka_bootstrap_servers")
    options: dict[str, str | int | float | bool] = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    if settings.kafka_username:
        settings.require("kafka_password")
        options |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password,
        }
    return options
