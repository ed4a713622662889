"""kafka_bridge against librdkafka's own mock cluster, which speaks the real protocol."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pytest
from confluent_kafka import Producer

from functions.kafka_bridge import bridge
from shared import logs
from shared.clients.broker import Kafka, Records
from shared.messages import TOPICS, ImportTrigger, PubSubMessage
from shared.settings import Settings, from_environment
from tests.integration.waiting import PATIENCE_SECONDS


@cache
def cluster() -> Producer:
    """A mock cluster lives as long as the producer that made it: kept to the end, so that no other one misses it."""
    return Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})


@pytest.fixture(scope="session")
def broker() -> Settings:
    """A mock cluster with our topics."""
    (address,) = {
        f"{found.host}:{found.port}" for found in cluster().list_topics(timeout=PATIENCE_SECONDS).brokers.values()
    }
    for topic in TOPICS:
        cluster().list_topics(topic, timeout=PATIENCE_SECONDS)
    return from_environment({"KAFKA_BOOTSTRAP_SERVERS": address})


@dataclass
class Publisher:
    """Pub/Sub's publisher, which may refuse."""

    arrived: list[PubSubMessage] = field(default_factory=list)
    refusals: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def publish(self, letters: list[PubSubMessage]) -> None:
        with self.changed:
            if self.refusals:
                self.refusals -= 1
                raise ConnectionError("Pub/Sub does not answer")
            self.arrived += letters
            self.changed.notify_all()

    def wait_for(self, wanted: Callable[[list[PubSubMessage]], bool]) -> list[PubSubMessage]:
        with self.changed:
            assert self.changed.wait_for(lambda: wanted(self.arrived), PATIENCE_SECONDS), self.arrived
            return list(self.arrived)


def run_bridge(settings: Settings, publisher: Publisher, group: str) -> Callable[[], None]:
    """Runs a bridge in a thread; returns what stops it."""
    stopping = threading.Event()
    records = Records(settings, group, TOPICS)
    thread = threading.Thread(target=lambda: bridge(records, publisher, stopping))
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join()

    return stop


def trigger() -> ImportTrigger:
    return ImportTrigger(uuid.uuid4(), uuid.uuid4(), 1)


def test_a_record_arrives_as_the_sink_connector_would_write_it(broker):
    """Value as data; key, topic, partition, offset, timestamp and headers as attributes."""
    publisher, sent = Publisher(), trigger()
    stop = run_bridge(broker, publisher, uuid.uuid4().hex)
    trace = logs.new_traceparent()
    with logs.context(trace):
        Kafka(broker).send(sent)

    letters = publisher.wait_for(lambda arrived: any(letter.data == sent.encoded() for letter in arrived))
    stop()

    (letter,) = (letter for letter in letters if letter.data == sent.encoded())
    assert letter.topic == letter.attributes["kafka.topic"] == "webshop.product.import.trigger"
    assert letter.attributes["key"] == str(sent.webshop_uuid)
    assert letter.attributes["traceparent"] == trace
    assert uuid.UUID(letter.attributes["message-id"])
    assert {letter.attributes[f"kafka.{name}"].isdecimal() for name in ("partition", "offset", "timestamp")} == {True}
    assert json.loads(letter.data)["run"] == 1


def test_what_pubsub_did_not_take_comes_again(broker):
    """An offset is committed only after Pub/Sub has the record: a bridge that dies on it loses none."""
    group, sent = uuid.uuid4().hex, [trigger() for _ in range(50)]
    Kafka(broker).send(*sent)
    wanted = {message.encoded() for message in sent}
    refusing = Publisher(refusals=1)
    records = Records(broker, group, TOPICS)
    with pytest.raises(ConnectionError):
        bridge(records, refusing, threading.Event())

    publisher = Publisher()
    stop = run_bridge(broker, publisher, group)
    publisher.wait_for(lambda arrived: wanted <= {letter.data for letter in arrived})
    stop()


def test_what_was_committed_does_not_come_again(broker):
    """A bridge that stops in order hands over without a duplicate."""
    group, first, second = uuid.uuid4().hex, trigger(), trigger()
    Kafka(broker).send(first)
    before = Publisher()
    stop = run_bridge(broker, before, group)
    before.wait_for(lambda arrived: any(letter.data == first.encoded() for letter in arrived))
    stop()
    Kafka(broker).send(second)

    after = Publisher()
    stop = run_bridge(broker, after, group)
    letters = after.wait_for(lambda arrived: any(letter.data == second.encoded() for letter in arrived))
    stop()

    assert first.encoded() not in {letter.data for letter in letters}
