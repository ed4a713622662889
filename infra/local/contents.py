"""What the servers hold before the functions run: tables, the seed, the bucket, topics and subscriptions.

All through the ordinary clients, so that any server will do, and safe to repeat: what is there stays. Called in a
process of its own: what is imported here inside functions is not for the supervisor to carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.local.seeding import Tenants

DEAD_LETTERS = "dead-letters"
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1, 10  # five tries outlast a function's restart
DELIVERY_ATTEMPTS = 5
ACK_DEADLINE_SECONDS = 600  # Pub/Sub's longest: a push is one request, and nothing else says that it goes on
KAFKA_PARTITIONS = 6  # of a new topic on a real broker
KAFKA_TIMEOUT_SECONDS = 30


def fill_databases(urls: Mapping[str, str], products: int) -> Tenants:
    """Migrates and seeds the databases (libpq URLs by name); returns who is in them."""
    from infra.local import seeding

    seeding.migrate(urls["service"], urls["product"], urls["legacy"])
    return seeding.seed(urls["product"], urls["legacy"], products=products)


def create_bucket(project: str, name: str) -> None:
    """Creates the bucket on a server that is not the stack's own."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(project=project, credentials=AnonymousCredentials())
    if client.lookup_bucket(name) is None:
        client.create_bucket(name)


def create_kafka_topics(bootstrap_servers: str, topics: Sequence[str]) -> None:
    """Creates those of `topics` that a real broker lacks. Raises KafkaException when it cannot."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    there = client.list_topics(timeout=KAFKA_TIMEOUT_SECONDS).topics
    missing = [NewTopic(topic, KAFKA_PARTITIONS) for topic in topics if topic not in there]
    for created in client.create_topics(missing).values() if missing else ():
        try:
            created.result(KAFKA_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def create_subscriptions(project: str, endpoints: Mapping[str, tuple[str, str]]) -> None:
    """Creates the Pub/Sub topics, and for each function a subscription of its name.

    `endpoints` holds (topic, push address) by function. A subscription that exists is changed to push there.
    """
    from google.api_core.exceptions import AlreadyExists
    from google.cloud import pubsub_v1
    from google.protobuf.duration_pb2 import Duration

    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        dead_letters = publisher.topic_path(project, DEAD_LETTERS)
        for topic in {dead_letters, *(publisher.topic_path(project, topic) for topic, _ in endpoints.values())}:
            with suppress(AlreadyExists):
                publisher.create_topic(name=topic)
        for function, (topic, endpoint) in endpoints.items():
            subscription = pubsub_v1.types.Subscription(
                name=subscriber.subscription_path(project, function),
                topic=publisher.topic_path(project, topic),
                push_config=pubsub_v1.types.PushConfig(push_endpoint=endpoint),
                ack_deadline_seconds=ACK_DEADLINE_SECONDS,
                retry_policy=pubsub_v1.types.RetryPolicy(
                    minimum_backoff=Duration(seconds=MIN_BACKOFF_SECONDS),
                    maximum_backoff=Duration(seconds=MAX_BACKOFF_SECONDS),
                ),
                dead_letter_policy=pubsub_v1.types.DeadLetterPolicy(
                    dead_letter_topic=dead_letters, max_delivery_attempts=DELIVERY_ATTEMPTS
                ),
            )
            try:
                subscriber.create_subscription(subscription)
            except AlreadyExists:
                subscriber.update_subscription(subscription=subscription, update_mask={"paths": ["push_config"]})
