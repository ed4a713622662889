"""The clients of Kafka, where the broker does not respond or reports errors."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from infra.local import ports
from shared.clients import broker
from shared.clients.broker import DeliveryReports, KafkaConsumer, NotSent
from shared.settings import Settings, from_environment


@pytest.fixture
def no_broker() -> Settings:
    """Settings of a broker that does not run."""
    [port] = ports.free_ports(1)
    return from_environment({"KAFKA_BOOTSTRAP_SERVERS": f"{ports.HOST}:{port}"})


def test_a_message_that_the_broker_did_not_accept_is_not_sent() -> None:
    """One report of an error fails the whole send, so that all of its messages are sent again."""
    reports = DeliveryReports(3)
    for error in (None, KafkaError(KafkaError._MSG_TIMED_OUT), None):
        reports.add(error, Message())

    with pytest.raises(NotSent, match=r"Kafka did not accept 1 of 3 messages\. The first error: .*_MSG_TIMED_OUT"):
        reports.wait()


def test_a_send_does_not_wait_forever_for_its_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer whose polling thread died reports nothing."""
    monkeypatch.setattr(broker, "REPORT_TIMEOUT_SECONDS", 0.0)

    DeliveryReports(0).wait()
    with pytest.raises(NotSent, match="no report on 2 of 2 messages"):
        DeliveryReports(2).wait()


class FailingConsumer:
    """A consumer of the SDK whose broker reports an error and refuses the commit."""

    def poll(self, _timeout: float) -> FailingRecord:
        return FailingRecord()

    def consume(self, _number: int, _timeout: float) -> list[FailingRecord]:
        return [FailingRecord()]

    def commit(self, **_: Any) -> None:
        raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))


class FailingRecord:
    """What the SDK returns in place of a record when there is an error."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._ALL_BROKERS_DOWN)


def test_errors_of_a_consumer_are_logged_and_do_not_end_it(
    no_broker: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is no record. Records whose offsets were not committed are only published again."""
    consumer = KafkaConsumer(no_broker, "group", ["topic"])
    consumer.close()
    monkeypatch.setattr(consumer, "_consumer", FailingConsumer())

    assert consumer.fetch(0) == []
    consumer.commit()

    assert "_ALL_BROKERS_DOWN" in caplog.text
    assert "will be published again" in caplog.text
