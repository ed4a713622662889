"""kafka_bridge: a worker that publishes every record of our Kafka topics to the Pub/Sub topic of the same name.

An offset is committed only after Pub/Sub has the record: a bridge that is killed sends some twice and loses none.
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
    from shared.clients.broker import Records
    from shared.clients.publisher import PubSub

GROUP = "kafka-bridge"
WAIT_SECONDS = 1.0  # how soon it notices that it is to stop

log = logging.getLogger(__name__)


@worker_function
def kafka_bridge() -> None:
    """Runs until SIGTERM. What it raises ends the process: it is started again and goes on where it was."""
    from shared.clients.broker import Records

    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    log.info("Bridging %s", ", ".join(TOPICS))
    bridge(Records(settings(), GROUP, TOPICS), clients.pubsub(), stopping)


def bridge(records: Records, pubsub: PubSub, stopping: threading.Event) -> None:
    """Publishes what `records` reads until `stopping` is set, then leaves the consumer group."""
    try:
        while not stopping.is_set():
            if letters := records.next(WAIT_SECONDS):
                pubsub.publish(letters)
                records.commit()
    finally:
        records.close()


if __name__ == "__main__":
    import main  # noqa: F401  # sets up logging, as for every function

    kafka_bridge()
