from __future__ import annotations

import base64
import json
import os
import signal
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from google.api_core.exceptions import AlreadyExists, MethodNotImplemented, NotFound
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type
from google.protobuf.duration_pb2 import Duration

from infra.local import ports
from infra.local.supervisor import Service
from shared.clients.publisher import PubSub as Publisher
from shared.errors import Unavailable
from shared.messages import PubSubMessage
from shared.settings import from_environment
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from infra.local.state import State
    from infra.local.supervisor import Supervisor
    from tests.infra.conftest import Receiver

TOPIC = "projects/local/topics/orders"
DEAD_LETTERS = "projects/local/topics/dead-letters"
SUBSCRIPTION = "projects/local/subscriptions/function"
THREADS = 3
BACKOFF_SECONDS = 0.05
ACK_DEADLINE_SECONDS = 600  # Pub/Sub's longest


class PubSub:
    """The server in its own process, and Google's own clients for it."""

    def __init__(self, supervisor: Supervisor, state: State, receiver: Receiver) -> None:
        self.state, self.receiver, self.supervisor = state, receiver, supervisor
        port = ports.free_ports(1)[0]
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{port}"
        service = Service("pubsub", "infra.local.pubsub_server", (state.directory, port, {"function": THREADS}))
        supervisor.start(service)
        supervisor.wait_ready()
        self.publisher, self.subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        for topic in (TOPIC, DEAD_LETTERS):
            self.publisher.create_topic(name=topic)

    def subscribe(self) -> None:
        self.subscriber.create_subscription(self.subscription())

    def subscription(self, endpoint: str = "") -> pubsub_v1.types.Subscription:
        policy = pubsub_v1.types.DeadLetterPolicy(dead_letter_topic=DEAD_LETTERS, max_delivery_attempts=5)
        backoff = Duration(nanos=int(BACKOFF_SECONDS * 1e9))
        return pubsub_v1.types.Subscription(
            name=SUBSCRIPTION,
            topic=TOPIC,
            push_config=pubsub_v1.types.PushConfig(push_endpoint=endpoint or f"{self.receiver.url}{TOPIC}"),
            ack_deadline_seconds=ACK_DEADLINE_SECONDS,
            retry_policy=pubsub_v1.types.RetryPolicy(minimum_backoff=backoff, maximum_backoff=backoff),
            dead_letter_policy=policy,
        )

    def publish(self, data: bytes, **attributes: str) -> str:
        return str(self.publisher.publish(TOPIC, data, **attributes).result(PATIENCE_SECONDS))

    def kill(self) -> None:
        announcement = self.state.announced("pubsub")
        assert announcement is not None
        os.kill(announcement["pid"], signal.SIGKILL)
        wait_until(lambda: self.state.announced("pubsub") is None, "the server to die")

    def dead_letters(self) -> list[dict[str, object]]:
        file = self.state.path("dead-letters.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def pubsub(
    supervisor: Supervisor, state: State, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PubSub]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")
    server = PubSub(supervisor, state, receiver)
    yield server
    server.publisher.stop()
    server.subscriber.close()


def test_a_message_is_pushed_in_the_real_envelope(pubsub: PubSub, receiver: Receiver) -> None:
    """The functions framework converts it to a CloudEvent, like a push from the real service."""
    pubsub.subscribe()

    message_id = pubsub.publish(b"\x00\xffdata", key="k", traceparent="00-t")

    [push] = receiver.wait(1)
    message = push.json["message"]
    assert push.path == f"/{TOPIC}"
    assert base64.b64decode(message["data"]) == b"\x00\xffdata"
    assert message["attributes"] == {"key": "k", "traceparent": "00-t"}
    assert message["messageId"] == message["message_id"] == message_id
    assert message["publishTime"] == message["publish_time"]
    assert (push.json["subscription"], push.json["deliveryAttempt"]) == (SUBSCRIPTION, 1)


def test_a_refused_message_is_pushed_again_after_its_backoff(pubsub: PubSub, receiver: Receiver) -> None:
    """A function that responds with 5xx gets the same message again after a delay, with the number of the attempt."""
    pubsub.subscribe()
    receiver.statuses += [503, 500]

    pubsub.publish(b"again")

    pushes = receiver.wait(3)
    assert [push.json["deliveryAttempt"] for push in pushes] == [1, 2, 3]
    assert len({push.json["message"]["messageId"] for push in pushes}) == 1
    assert all(later.at - earlier.at >= BACKOFF_SECONDS for earlier, later in pairwise(pushes))


def test_five_refusals_make_a_dead_letter(pubsub: PubSub, receiver: Receiver) -> None:
    """A message that fails five times is not pushed again. Its dead letter names its subscription."""
    pubsub.subscribe()
    receiver.statuses += [500] * 5

    pubsub.publish(b"poison", key="k")
    dead_letters = wait_until(pubsub.dead_letters, "a dead letter")
    pubsub.publish(b"good")

    pushes = receiver.wait(6)
    assert len(pushes) == 6
    [dead_letter] = dead_letters
    assert dead_letter["data"] == "poison"
    attributes = dead_letter["attributes"]
    assert isinstance(attributes, dict)
    assert attributes["key"] == "k"
    assert attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
    assert attributes["CloudPubSubDeadLetterSourceSubscription"] == "function"


def test_a_killed_server_loses_no_message(pubsub: PubSub, receiver: Receiver) -> None:
    """An accepted message is delivered even if the server dies, and its attempts are not counted again from one."""
    pubsub.subscribe()
    receiver.statuses += [500] * 3
    sent = {pubsub.publish(str(number).encode()) for number in range(20)}
    wait_until(lambda: len(receiver.requests) >= 3, "the first pushes")

    pubsub.kill()
    pubsub.supervisor.wait_ready()
    sent.add(pubsub.publish(b"after"))

    def accepted() -> set[str]:
        return {push.json["message"]["messageId"] for push in list(receiver.requests) if push.status == 204}

    wait_until(lambda: accepted() == sent, "all messages")
    assert pubsub.dead_letters() == []


def test_a_delivered_message_is_not_delivered_again_after_a_restart(pubsub: PubSub, receiver: Receiver) -> None:
    """A restarted server delivers only the messages that were not yet delivered."""
    pubsub.subscribe()
    done = pubsub.publish(b"done")
    receiver.wait(1)
    journal = pubsub.state.path("pubsub.journal")
    wait_until(lambda: b'"done":' in journal.read_bytes(), "the delivery to be recorded")

    pubsub.kill()
    pubsub.supervisor.wait_ready()
    fresh = pubsub.publish(b"fresh")

    pushes = receiver.wait(2)
    assert [push.json["message"]["messageId"] for push in pushes] == [done, fresh]


def test_concurrent_pushes_are_limited_to_the_functions_threads(pubsub: PubSub, receiver: Receiver) -> None:
    """A function with three threads never gets a fourth concurrent push."""
    pubsub.subscribe()
    lock, all_busy, at_once = threading.Lock(), threading.Event(), []
    busy = 0

    def slowly(handler: BaseHTTPRequestHandler) -> None:
        nonlocal busy
        with lock:
            busy += 1
            at_once.append(busy)
            if busy == THREADS:
                all_busy.set()
        all_busy.wait(PATIENCE_SECONDS)
        with lock:
            busy -= 1
        handler.send_response(204)
        handler.end_headers()

    receiver.answer = slowly
    for number in range(12):
        pubsub.publish(str(number).encode())

    receiver.wait(12)
    wait_until(lambda: busy == 0, "the last response")
    assert max(at_once) == THREADS


def test_a_subscription_can_be_moved_to_another_address(pubsub: PubSub, receiver: Receiver) -> None:
    """A restarted stack has new ports. The server refuses to create the subscription again, but changes its address."""
    pubsub.subscriber.create_subscription(pubsub.subscription("http://127.0.0.1:9/unreachable"))

    with pytest.raises(AlreadyExists):
        pubsub.subscribe()
    pubsub.subscriber.update_subscription(subscription=pubsub.subscription(), update_mask={"paths": ["push_config"]})
    pubsub.publish(b"moved")

    [push] = receiver.wait(1)
    assert base64.b64decode(push.json["message"]["data"]) == b"moved"


def test_an_unsupported_request_fails_immediately(pubsub: PubSub) -> None:
    """A client gets an error instead of waiting for a response."""
    with pytest.raises(MethodNotImplemented):
        pubsub.publisher.delete_topic(topic=TOPIC)
    with pytest.raises(NotFound):
        pubsub.publisher.publish("projects/local/topics/none", b"").result(PATIENCE_SECONDS)
    with pytest.raises(AlreadyExists):
        pubsub.publisher.create_topic(name=TOPIC)


def test_attributes_may_have_any_name(pubsub: PubSub, receiver: Receiver) -> None:
    """Dead letters have an attribute `topic`, and Kafka headers any name, also that of an argument of the SDK."""
    pubsub.subscribe()
    attributes = dict.fromkeys(("topic", "data", "self", "retry", "timeout", "ordering_key", "messages"), "x")

    Publisher(from_environment({"GOOGLE_CLOUD_PROJECT": "local"})).publish([PubSubMessage("orders", b"1", attributes)])

    wait_until(lambda: len(receiver.requests) == 1, "the push")
    assert json.loads(receiver.requests[0].body)["message"]["attributes"] == attributes


def test_every_message_of_a_large_publish_arrives(pubsub: PubSub, receiver: Receiver) -> None:
    """The messages do not fit into one request, and have more than one topic."""
    pubsub.subscribe()
    messages = [PubSubMessage("orders", str(number).encode() + b" " * 900_000) for number in range(20)]

    Publisher(from_environment({"GOOGLE_CLOUD_PROJECT": "local"})).publish(
        [*messages, PubSubMessage("dead-letters", b"")]
    )

    wait_until(lambda: len(receiver.requests) == 20, "every push")


def test_a_failed_publish_raises(pubsub: PubSub) -> None:
    """If the topic does not exist, the caller fails and tries again, so that no message is lost."""
    with pytest.raises(Unavailable, match="did not accept 1 message"):
        Publisher(from_environment({"GOOGLE_CLOUD_PROJECT": "local"})).publish([PubSubMessage("nowhere", b"1")])
