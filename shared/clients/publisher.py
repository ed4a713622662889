"""The Pub/Sub publisher: publishes and returns only when the service has it."""

from __future__ import annotations

from collections.abc import Iterable

from google.cloud import pubsub_v1  # type: ignore[attr-defined]  # a namespace that other packages type

from shared.messages import Letter
from shared.settings import Settings

# As long as Kafka's own delivery may take; the caller's delivery is tried again after it.
PUBLISH_TIMEOUT_SECONDS = 30


class PubSub:
    """One publisher a process."""

    def __init__(self, settings: Settings) -> None:
        """Connects to PUBSUB_EMULATOR_HOST where that is set, which the SDK reads itself."""
        # Whoever publishes waits for it: a batch closes as soon as 5 ms bring nothing more.
        batching = pubsub_v1.types.BatchSettings(max_messages=200, max_bytes=5_000_000, max_latency=0.005)
        self._client = pubsub_v1.PublisherClient(batching)
        self._project = settings.project

    def publish(self, letters: Iterable[Letter]) -> None:
        """Publishes `letters`; raises the SDK's error, or TimeoutError, unless the service has every one of them."""
        pending = [
            self._client.publish(self._client.topic_path(self._project, letter.topic), letter.data, **letter.attributes)
            for letter in letters
        ]
        for future in pending:
            future.result(timeout=PUBLISH_TIMEOUT_SECONDS)
