"""kafka_bridge: a worker that publishes each record of our Kafka topics to the Pub/Sub topic of the same name.

It commits an offset only after Pub/Sub has the record: a bridge that is killed sends some records twice and loses none.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING

from shared import clients
from shared.delivery import worker_function
from shared.messages import TOPICS
from shared.settings import settings

if TYPE_CHECKING:
    from shared.clients.broker import KafkaConsumer
    from shared.clients.publisher import PubSub

GROUP = "kafka-bridge"
POLL_TIMEOUT_SECONDS = 1.0  # the longest time until it notices SIGTERM

log = logging.getLogger(__name__)


@worker_function
def kafka_bridge() -> None:
    """Runs until SIGTERM. An error ends the process: it is restarted and continues at the committed offsets."""
    from shared.clients.broker import KafkaConsumer

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log.info("Bridging %s", ", ".join(TOPICS))
    bridge_records(KafkaConsumer(settings(), GROUP, TOPICS), clients.pubsub(), stopping)


def bridge_records(consumer: KafkaConsumer, pubsub: PubSub, stopping: threading.Event) -> None:
    """Publishes the records that `consumer` reads until `stopping` is set, then leaves the consumer group."""
    try:
        while not stopping.is_set():
            if messages := consumer.fetch(POLL_TIMEOUT_SECONDS):
                pubsub.publish(messages)
                consumer.commit()
    finally:
        consumer.close()


if __name__ == "__main__":
    kafka_bridge()
