"""Sends CloudEvents to functions over HTTP, as Eventarc does."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

FINALIZED = "google.cloud.storage.object.v1.finalized"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
STRUCTURED = "application/cloudevents+json"
TIMEOUT_SECONDS = 300  # the longest timeout of a function


def make_object_finalized(resource: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Returns the headers and the body of Cloud Storage's event for an object's JSON resource, in binary mode."""
    attributes = {
        "specversion": "1.0",
        "id": str(resource["generation"]),
        "type": FINALIZED,
        "source": f"//storage.googleapis.com/projects/_/buckets/{resource['bucket']}",
        "subject": f"objects/{resource['name']}",
        "time": resource["updated"],
        "bucket": resource["bucket"],
    }
    headers = {f"ce-{name}": quote(value, safe="/:@._-~!$&'()*+,;=") for name, value in attributes.items()}
    return {"Content-Type": "application/json", **headers}, json.dumps(resource).encode()


def find_destination(event: Mapping[str, Any], functions: Sequence[Mapping[str, Any]]) -> str | None:
    """Finds the function for an event's type and source. Returns its address, or None."""
    topic = str(event.get("source", "")).rpartition("/topics/")[2]
    for function in functions:
        if event.get("type") == FINALIZED and function["kind"] == "storage":
            return str(function["url"])
        if event.get("type") == PUBLISHED and function["kind"] == "kafka" and function["topic"] == topic:
            return str(function["url"])
    return None


def post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """Sends an event to a function. Returns the status and the body of the response. Raises OSError without one."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", address.path or "/", body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url} did not respond completely: {error!r}") from error
    finally:
        connection.close()


def deliver(url: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Sends an event to a function. Returns whether the function accepted it (2xx)."""
    try:
        status, _ = post(url, headers, body)
    except OSError:
        return False
    return 200 <= status < 300
