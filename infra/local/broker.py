"""A Kafka broker without Java: librdkafka's own mock cluster, in a process of its own.

It keeps its messages in memory: they die with it, and a partition drops its oldest past 5 MiB. The sweep sends again
what was lost. It listens on a port of its own choosing, so a broker that was started again has a new address.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from confluent_kafka import Producer

from infra.local.supervisor import Child

BROKERS = 1
METADATA_TIMEOUT_SECONDS = 10


def serve(child: Child, topics: Sequence[str]) -> None:
    """Runs the broker with these topics (4 partitions each, the mock's own number) until SIGTERM."""
    host = Producer({"test.mock.num.brokers": BROKERS, "bootstrap.servers": "made-by-the-mock", "log_level": 3})
    [broker] = host.list_topics(timeout=METADATA_TIMEOUT_SECONDS).brokers.values()
    for topic in topics:
        host.list_topics(topic, timeout=METADATA_TIMEOUT_SECONDS)  # asking makes it
    child.ready(address=f"{broker.host}:{broker.port}")
    signal.pause()
