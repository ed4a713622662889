"""The bridge turns Kafka's records into messages, and an import survives a broker that dies or hangs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Producer
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type

from shared.messages import ImportTrigger
from tests.integration.catalogue import csv_of, new_values
from tests.integration.database import GATES, ONE_IMPORT, ONE_PRODUCT, Hold
from tests.integration.test_kills import APPLYING, BATCH_ROWS, SENDING
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.catalogue import Catalogue
    from tests.integration.shop import Shop
    from tests.integration.stack import Databases, LocalStack

KAFKA_DIR = os.environ.get("KAFKA_DIR", "")  # set by with_servers, beside KAFKA_BOOTSTRAP_SERVERS
PROJECT = "local"
TOPIC = ImportTrigger.topic

Message = dict[str, Any]  # a Pub/Sub message in a push request


@pytest.fixture(scope="session")
def pushed(stack: LocalStack) -> Iterator[list[Message]]:
    """The messages of one topic, which a subscription of the tests' own pushes until the session ends."""
    messages: list[Message] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            messages.append(body["message"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PUBSUB_EMULATOR_HOST", stack.env["PUBSUB_EMULATOR_HOST"])
        with pubsub_v1.SubscriberClient() as subscriber:
            subscriber.create_subscription(
                name=f"projects/{PROJECT}/subscriptions/integration-tests",
                topic=f"projects/{PROJECT}/topics/{TOPIC}",
                push_config=pubsub_v1.types.PushConfig(push_endpoint=f"http://127.0.0.1:{server.server_port}/"),
            )
    yield messages
    server.shutdown()
    server.server_close()


def test_the_bridge_creates_the_same_message_as_googles_connector(stack: LocalStack, pushed: list[Message]) -> None:
    """Value, key, position, time and headers are the same, so managed Kafka Connect could replace the bridge."""
    trigger = ImportTrigger(
        UUID(stack.env["WEBSHOP_UUID"]), uuid4(), run=1
    )  # there is no such import: it has no effect
    reports: list[Any] = []
    producer = Producer({"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"]})

    producer.produce(
        TOPIC,
        key=str(trigger.webshop_uuid),
        value=trigger.encode(),
        headers=[("message-id", "m-1"), ("note", "Süß".encode())],
        timestamp=1_700_000_000_123,
        on_delivery=lambda error, record: reports.append(error or record),
    )
    assert producer.flush(PATIENCE_SECONDS) == 0
    [record] = reports
    position = {"kafka.partition": str(record.partition()), "kafka.offset": str(record.offset())}

    def find_message() -> Message | None:
        return next((message for message in pushed if position.items() <= message["attributes"].items()), None)

    message = wait_until(find_message, "the pushed message")
    assert base64.b64decode(message["data"]) == trigger.encode()
    assert message["attributes"] == {
        **position,
        "key": str(trigger.webshop_uuid),
        "kafka.topic": TOPIC,
        "kafka.timestamp": "1700000000123",
        "message-id": "m-1",
        "note": "Süß",
    }


def test_messages_have_an_id_and_a_trace(shop: Shop, catalogue: Catalogue, pushed: list[Message]) -> None:
    """With them, people can find the effects of a message in the logs."""
    import_uuid = shop.upload(csv_of(new_values(catalogue.identifiers(3))))
    shop.wait_for_end(import_uuid)

    def find_trigger() -> Message | None:
        return next((message for message in pushed if import_uuid in str(base64.b64decode(message["data"]))), None)

    attributes = wait_until(find_trigger, "the import's trigger")["attributes"]
    assert attributes["key"] == shop.webshop_uuid
    assert UUID(attributes["message-id"])
    version, trace, span, _flags = attributes["traceparent"].split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)


def control_kafka(command: str) -> None:
    """Runs a command of the program that started the broker."""
    program = Path(os.environ["TEST_SERVERS"], "kafka").absolute()
    subprocess.run([program, command, KAFKA_DIR], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def paused_broker() -> Iterator[None]:
    control_kafka("pause")
    try:
        yield
    finally:
        control_kafka("resume")


@contextmanager
def killed_broker() -> Iterator[None]:
    control_kafka("kill")
    try:
        yield
    finally:
        control_kafka("start")


@pytest.mark.skipif(not KAFKA_DIR, reason="only a real broker, started by with_servers, can be killed and paused")
def test_an_import_survives_a_broker_that_dies_or_hangs(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """The import waits for a broker that restarts, and for one that hangs for some time. It loses no row."""
    rows = new_values(catalogue.identifiers(20_000))
    late = {"webshop": shop.webshop_uuid, "identifier": list(rows)[-BATCH_ROWS // 2]}

    with Hold(databases.product, GATES) as unsent, Hold(databases.product, ONE_PRODUCT, **late) as unapplied:
        import_uuid = shop.upload(csv_of(rows))
        shop.wait_for(import_uuid, "to be validated", total_rows=len(rows))
        with Hold(databases.service, ONE_IMPORT, import_uuid=import_uuid) as half_sent:
            unsent.release()
            databases.service.wait_for_blocked(SENDING)
            with killed_broker():
                half_sent.release()  # import_batches sends the next batches while no broker runs
        databases.product.wait_for_blocked(APPLYING)
        with paused_broker():
            applied, _ = catalogue.count_applied(import_uuid)
            unapplied.release()
            wait_until(lambda: catalogue.count_applied(import_uuid)[0] > applied, "a batch to be applied")
            current = shop.find(import_uuid)
            assert current is not None
            assert current["status"] == "IMPORTING"  # the broker cannot pass on the result
    ended = shop.wait_for_end(import_uuid)

    assert (ended["status"], ended["updated_rows"], ended["run"]) == ("COMPLETED", len(rows), 1)
    catalogue.assert_applied(import_uuid, rows)
