"""kafka_bridge: a worker that publishes every record of our Kafka topics to the Pub/Sub topic of the same name.

An offset is committed only after Pub/Sub has the record: a bridge that is killed sends some twice and loses none.
"""

import logging
import signal
import threading

from shared import clients
from shared.clients.broker import Records
from shared.delivery import worker_function
from shared.messages import TOPICS
from shared.settings import settings

GROUP = "kafka-bridge"
WAIT_SECONDS = 1.0  # how soon it notices that it is to stop

log = logging.getLogger(__name__)


@worker_function
def kafka_bridge() -> None:
    """Runs until SIGTERM. What it raises ends the process: it is started again and goes on where it was."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    records = Records(settings(), GROUP, TOPICS)
    log.info("Bridging %s", ", ".join(TOPICS))
    try:
        while not stopping.is_set():
            if letters := records.next(WAIT_SECONDS):
                clients.pubsub().publish(letters)
                records.commit()
    finally:
        records.close()


if __name__ == "__main__":
    import main  # noqa: F401  # sets up logging, as for every function

    kafka_bridge()
