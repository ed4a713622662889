"""kafka_bridge against librdkafka's own mock cluster, which speaks the real protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from confluent_kafka import Producer

import main
from functions.kafka_bridge import bridge_records
from shared import logs
from shared.clients.broker import Kafka, KafkaConsumer
from shared.clients.publisher import PubSub
from shared.messages import TOPICS, ImportTrigger, PubSubMessage
from shared.settings import Settings, from_environment
from tests.integration.waiting import PATIENCE_SECONDS

ROOT = Path(main.__file__).parent


@cache
def cluster() -> Producer:
    """Starts a mock cluster. It lives as long as the producer that made it, so the cache keeps that to the end."""
    return Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"})


@pytest.fixture(scope="session")
def broker() -> Settings:
    """A mock cluster with our topics."""
    (address,) = {
        f"{broker.host}:{broker.port}" for broker in cluster().list_topics(timeout=PATIENCE_SECONDS).brokers.values()
    }
    for topic in TOPICS:
        cluster().list_topics(topic, timeout=PATIENCE_SECONDS)
    return from_environment({"KAFKA_BOOTSTRAP_SERVERS": address})


class Publisher(PubSub):
    """Takes the place of Pub/Sub's publisher. It keeps the messages, and refuses the first `refusals` requests."""

    def __init__(self, refusals: int = 0) -> None:
        self.published: list[PubSubMessage] = []
        self.refusals = refusals
        self.changed = threading.Condition()

    def publish(self, messages: Iterable[PubSubMessage]) -> None:
        with self.changed:
            if self.refusals:
                self.refusals -= 1
                raise ConnectionError("Pub/Sub does not respond")
            self.published += messages
            self.changed.notify_all()

    def wait_for(self, values: set[bytes]) -> list[PubSubMessage]:
        """Returns the published messages as soon as they have all these values."""
        with self.changed:
            assert self.changed.wait_for(lambda: values <= data_of(self.published), PATIENCE_SECONDS), self.published
            return list(self.published)


def data_of(messages: Iterable[PubSubMessage]) -> set[bytes]:
    return {message.data for message in messages}


@contextmanager
def running_bridge(settings: Settings, publisher: Publisher, group: str) -> Iterator[None]:
    """Runs a bridge in a thread, and stops it in order when the block ends."""
    stopping = threading.Event()
    consumer = KafkaConsumer(settings, group, TOPICS)
    thread = threading.Thread(target=lambda: bridge_records(consumer, publisher, stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def new_trigger() -> ImportTrigger:
    return ImportTrigger(uuid.uuid4(), uuid.uuid4(), 1)


def test_a_record_arrives_as_the_sink_connector_would_write_it(broker: Settings) -> None:
    """The value is the data; key, topic, partition, offset, timestamp and headers are the attributes."""
    publisher, trigger, trace = Publisher(), new_trigger(), logs.new_traceparent()
    with logs.context(trace):
        Kafka(broker).send(trigger)

    with running_bridge(broker, publisher, uuid.uuid4().hex):
        messages = publisher.wait_for({trigger.encode()})

    (message,) = (message for message in messages if message.data == trigger.encode())
    assert message.topic == message.attributes["kafka.topic"] == "webshop.product.import.trigger"
    assert message.attributes["key"] == str(trigger.webshop_uuid)
    assert message.attributes["traceparent"] == trace
    assert uuid.UUID(message.attributes["message-id"])
    assert {message.attributes[f"kafka.{name}"].isdecimal() for name in ("partition", "offset", "timestamp")} == {True}
    assert json.loads(message.data)["run"] == 1


def test_a_record_that_pubsub_did_not_accept_is_published_again(broker: Settings) -> None:
    """An offset is committed only after Pub/Sub has the record: a bridge that fails in between loses none."""
    group, triggers = uuid.uuid4().hex, [new_trigger() for _ in range(50)]
    Kafka(broker).send(*triggers)
    with pytest.raises(ConnectionError):
        bridge_records(KafkaConsumer(broker, group, TOPICS), Publisher(refusals=1), threading.Event())

    publisher = Publisher()
    with running_bridge(broker, publisher, group):
        messages = publisher.wait_for({trigger.encode() for trigger in triggers})

    assert {trigger.encode() for trigger in triggers} <= data_of(messages)


def test_a_committed_record_is_not_published_again(broker: Settings) -> None:
    """A bridge that stops in order leaves no duplicate to the next one."""
    group, first, second = uuid.uuid4().hex, new_trigger(), new_trigger()
    Kafka(broker).send(first)
    before = Publisher()
    with running_bridge(broker, before, group):
        before.wait_for({first.encode()})
    Kafka(broker).send(second)

    after = Publisher()
    with running_bridge(broker, after, group):
        messages = after.wait_for({second.encode()})

    assert first.encode() not in data_of(messages)


def test_the_module_runs_as_a_worker_of_its_own(broker: Settings) -> None:
    """A worker pool runs `python -m functions.kafka_bridge`: it logs JSON lines and stops in order at SIGTERM."""
    with bridge_process(broker) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        process.send_signal(signal.SIGTERM)

        assert process.wait(PATIENCE_SECONDS) == 0

    assert (line["severity"], line["message"].split()[0]) == ("INFO", "Bridging")


def test_a_worker_names_a_malformed_setting(broker: Settings) -> None:
    """It exits with a line that names the setting, instead of a traceback."""
    with bridge_process(broker, LOG_FORMAT="xml") as process:
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)

    assert process.returncode == 1
    assert errors == "LOG_FORMAT is 'xml'; it must be json or text.\n"


@contextmanager
def bridge_process(settings: Settings, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Starts kafka_bridge in a process of its own, which is killed when the block ends."""
    addresses = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
        "GOOGLE_CLOUD_PROJECT": "test",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "functions.kafka_bridge"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **addresses, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
