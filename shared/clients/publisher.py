"""The Pub/Sub publisher: it returns only when the service has the messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import attrgetter

from google.api_core.exceptions import GoogleAPIError
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type
from google.pubsub_v1 import PublisherClient as Api
from google.pubsub_v1.types import PubsubMessage

from shared.errors import Unavailable
from shared.messages import PubSubMessage
from shared.settings import Settings
from shared.wording import format_count

# As long as Kafka's own delivery may take. After it the caller's delivery is retried.
PUBLISH_TIMEOUT_SECONDS = 30
# A request may have 10 MB; one of our messages has at most 1 MB.
MAX_REQUEST_BYTES = 8_000_000


class PubSub:
    """One publisher per process."""

    def __init__(self, settings: Settings) -> None:
        """Connects to PUBSUB_EMULATOR_HOST if it is set: the SDK reads it itself."""
        settings.require("google_cloud_project")
        self._client = pubsub_v1.PublisherClient()
        self._project = settings.google_cloud_project

    def publish(self, messages: Iterable[PubSubMessage]) -> None:
        """Publishes `messages`, grouped by topic. Raises Unavailable unless the service has all of them.

        It calls the API below the SDK's own batching, whose keyword arguments have the same names as some attributes.
        """
        by_topic = attrgetter("topic")
        for topic, group in groupby(sorted(messages, key=by_topic), key=by_topic):
            path = self._client.topic_path(self._project, topic)
            for request in split_into_requests(group):
                try:
                    Api.publish(self._client, topic=path, messages=request, timeout=PUBLISH_TIMEOUT_SECONDS)
                except GoogleAPIError as error:
                    count = format_count(len(request), "message")
                    raise Unavailable(f"Pub/Sub did not accept {count}: {error}") from error


def split_into_requests(messages: Iterable[PubSubMessage]) -> Iterator[list[PubsubMessage]]:
    """Yields the messages as the SDK's, in lists that each fit into one request."""
    request: list[PubsubMessage] = []
    size_bytes = 0
    for message in messages:
        if request and size_bytes + len(message.data) > MAX_REQUEST_BYTES:
            yield request
            request, size_bytes = [], 0
        request.append(PubsubMessage(data=message.data, attributes=dict(message.attributes)))
        size_bytes += len(message.data)
    if request:
        yield request
