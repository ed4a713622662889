"""The Kafka producer: sends messages and returns only when the broker has them."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, Producer

from shared import logs
from shared.messages import Message
from shared.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Message as Delivery

# Sooner than Pub/Sub's shortest acknowledgement deadline in use (60 s), so that the sender fails before it is given up.
DELIVERY_TIMEOUT_MS = 30_000


class NotSent(Exception):
    """The broker did not take a message in time. Some of those sent with it may have arrived: send all again."""


class Kafka:
    """One producer a process, with one thread that serves its delivery reports.

    Two pollers of one producer each sleep their whole time-out (measured), so nobody else polls.
    """

    def __init__(self, settings: Settings) -> None:
        """Connects in the background; the first send waits for it."""
        self._producer = Producer(connection(settings) | {
            "acks": "all",
            "enable.idempotence": True,
            "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
            "linger.ms": 0,  # a send waits for its reports, so lingering only adds to it
            "compression.type": "lz4",
            "message.max.bytes": 1_000_000,
        })
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


def connection(settings: Settings) -> dict[str, str | int | float | bool]:
    """Where the broker is and how to log in: what producer and consumer share."""
    where: dict[str, str | int | float | bool] = {"bootstrap.servers": settings.kafka_bootstrap_servers}
    if settings.kafka_username:
        where |= {
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password,
        }
    return where
