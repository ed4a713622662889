"""A Kafka broker without Java: librdkafka's mock cluster, in its own process.

The broker keeps its messages in memory: they are lost when it ends, and a partition larger than 5 MiB drops its oldest
messages. sweep sends lost messages again. The broker chooses its port itself, so it has a new address after a restart.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from confluent_kafka import Producer

from infra.local.supervisor import Child

BROKERS = 1
METADATA_TIMEOUT_SECONDS = 10


def serve(child: Child, topics: Sequence[str]) -> None:
    """Runs the broker until SIGTERM. Each topic has 4 partitions, the default of the mock cluster."""
    host = Producer({"test.mock.num.brokers": BROKERS, "bootstrap.servers": "made-by-the-mock", "log_level": 3})
    [broker] = host.list_topics(timeout=METADATA_TIMEOUT_SECONDS).brokers.values()
    for topic in topics:
        host.list_topics(topic, timeout=METADATA_TIMEOUT_SECONDS)  # a request for its metadata creates the topic
    child.ready(address=f"{broker.host}:{broker.port}")
    signal.pause()
