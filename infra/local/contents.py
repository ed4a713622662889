"""Creates what the functions need on the servers: tables, seeded rows, the bucket, topics and subscriptions.

Everything goes through the ordinary clients, so it works with any server. It can be repeated: what exists stays. The
functions here run in a separate process and import their libraries themselves, which keeps the supervisor small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.local.seeding import Tenants

DEAD_LETTERS = "dead-letters"
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1, 10  # five attempts take longer than the restart of a function
DELIVERY_ATTEMPTS = 5
ACK_DEADLINE_SECONDS = 600  # Pub/Sub's maximum: the response to the push is the only acknowledgement
KAFKA_PARTITIONS = 6  # of a new topic on a real broker
KAFKA_TIMEOUT_SECONDS = 30


def fill_databases(urls: Mapping[str, str], products: int) -> Tenants:
    """Migrates and seeds the databases, given as libpq URLs by name. Returns the seeded tenants."""
    from infra.local import seeding

    seeding.migrate(urls["service"], urls["product"], urls["legacy"])
    return seeding.seed(urls["product"], urls["legacy"], products=products)


def create_bucket(project: str, name: str) -> None:
    """Creates the bucket where it does not exist. The stack's own storage server creates it itself."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type

    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client = storage.Client(project=project, credentials=credentials)
    if client.lookup_bucket(name) is None:
        client.create_bucket(name)


def create_kafka_topics(bootstrap_servers: str, topics: Sequence[str]) -> None:
    """Creates the missing `topics` on a real broker. Raises KafkaException when that fails."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    client = AdminClient({"bootstrap.servers": bootstrap_servers})
    existing = client.list_topics(timeout=KAFKA_TIMEOUT_SECONDS).topics
    missing = [NewTopic(topic, KAFKA_PARTITIONS) for topic in topics if topic not in existing]
    for created in client.create_topics(missing).values() if missing else ():
        try:
            created.result(KAFKA_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def create_subscriptions(project: str, endpoints: Mapping[str, tuple[str, str]]) -> None:
    """Creates the Pub/Sub topics, and one subscription per function, with the function's name.

    `endpoints` has (topic, push address) by function. The push address of an existing subscription is updated.
    """
    from google.api_core.exceptions import AlreadyExists
    from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type
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
