"""The Pub/Sub publisher: publishes and returns only when the service has it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from google.api_core.exceptions import GoogleAPIError
from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type
from google.pubsub_v1 import PublisherClient as Api
from google.pubsub_v1.types import PubsubMessage

from shared.errors import Unavailable
from shared.messages import PubSubMessage
from shared.settings import Settings

# As long as Kafka's own delivery may take; the caller's delivery is tried again after it.
PUBLISH_TIMEOUT_SECONDS = 30
# A request may have 10 MB; a message of ours has at most 1 MB.
MAX_REQUEST_BYTES = 8_000_000


class PubSub:
    """One publisher a process."""

    def __init__(self, settings: Settings) -> None:
        """Connects to PUBSUB_EMULATOR_HOST if that is set: the SDK reads it itself."""
        settings.require("google_cloud_project")
        self._client = pubsub_v1.PublisherClient()
        self._project = settings.google_cloud_project

    def publish(self, letters: Iterable[PubSubMessage]) -> None:
        """Publishes `letters`, those of a topic together; raises Unavailable unless the service has every one.

        It calls the API beneath the SDK's own batching, whose keywords share their names with attributes.
        """
        by_topic = attrgetter("topic")
        for topic, of_topic in groupby(sorted(letters, key=by_topic), key=by_topic):
            path = self._client.topic_path(self._project, topic)
            for request in requests(of_topic):
                try:
                    Api.publish(self._client, topic=path, messages=request, timeout=PUBLISH_TIMEOUT_SECONDS)
                except GoogleAPIError as error:
                    raise Unavailable(f"Pub/Sub did not take {len(request)} messages: {error}") from error


def requests(letters: Iterable[PubSubMessage]) -> Iterable[list[PubsubMessage]]:
    """The letters as messages, in lists that one request can hold."""
    request: list[PubsubMessage] = []
    size_bytes = 0
    for letter in letters:
        if request and size_bytes + len(letter.data) > MAX_REQUEST_BYTES:
            yield request
            request, size_bytes = [], 0
        request.append(PubsubMessage(data=letter.data, attributes=dict(letter.attributes)))
        size_bytes += len(letter.data)
    if request:
        yield request
