"""The contract of every function, whatever it does, checked through functions-framework itself."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

import main
from shared.http_api import Route
from shared.messages import DEAD_LETTERS, MESSAGES, Message
from tests.world import World, app, push

BY_KIND: dict[str, list[str]] = {}
for _name in main.__all__:
    BY_KIND.setdefault(getattr(main, _name).trigger.kind, []).append(_name)

SAMPLES: tuple[object, ...] = (str(uuid.uuid4()), 2, ["x"], [2], [["x"]], [], {}, "2026-01-01T00:00:00Z", None, True)

INVALID_MESSAGES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff",
    b'{"webshop_uuid": "x"}',
    json.dumps({"webshop_uuid": str(uuid.uuid4())}).encode(),
]


def test_every_function_has_its_test() -> None:
    """The test of a function has the function's name, in any folder of tests/functions/."""
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).with_name("functions").rglob("test_*.py")}

    assert set(main.__all__) <= tested


def test_every_message_has_one_function() -> None:
    """Each topic has one subscriber, and each subscriber has a topic."""
    topics = [getattr(main, name).trigger.topic for name in BY_KIND["kafka"]]

    assert sorted(topics) == sorted(message.topic for message in MESSAGES)


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_an_invalid_message_becomes_one_dead_letter_and_is_not_delivered_again(
    world: World, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    """The answer is 2xx, with one error in the log and one dead letter that has the topic and the reason."""
    topic = getattr(main, function).trigger.topic

    statuses = [push(function, topic, data) for data in INVALID_MESSAGES]

    assert statuses == [200] * len(INVALID_MESSAGES)
    assert [message.data for message in world.dead_letters.messages] == INVALID_MESSAGES
    for message in world.dead_letters.messages:
        assert (message.topic, message.attributes["topic"]) == (DEAD_LETTERS, topic)
        assert "Not a message of" in message.attributes["reason"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == len(INVALID_MESSAGES)
    assert not world.broker.sent


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_an_event_that_is_not_from_pubsub_becomes_a_dead_letter(world: World, function: str) -> None:
    """A client may post any event to a function's address; it is treated like an invalid message."""
    headers = {"ce-id": "1", "ce-source": "x", "ce-specversion": "1.0", "ce-type": "any"}

    response = app(function).post("/", json={"hello": 1}, headers=headers)

    assert response.status_code == 200
    assert len(world.dead_letters.messages) == 1


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_a_temporary_failure_is_delivered_again(world: World, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """While a database does not respond, the answer is 503 and there is no dead letter."""
    message = next(message for message in MESSAGES if message.topic == getattr(main, function).trigger.topic)
    data = build_example(message)
    for engine in (world.service_db, world.product_db, world.legacy_db):
        monkeypatch.setattr(engine, "connect", fail_to_connect)
        monkeypatch.setattr(engine, "begin", fail_to_connect)

    status = push(function, message.topic, data)

    assert status == 503
    assert not world.dead_letters.messages


def fail_to_connect(*_: object, **__: object) -> None:
    raise ConnectionError("the database does not respond")


def build_example(message: type[Message]) -> bytes:
    """Returns a valid message of this type: each of its fields has the first sample that the field's type allows."""
    fields: dict[str, object] = {}
    for field in msgspec.structs.fields(message):
        fields[field.encode_name] = next(sample for sample in SAMPLES if is_valid(field.type, sample))
    return msgspec.json.encode(fields)


def is_valid(field_type: Any, sample: object) -> bool:
    """Whether a field of this type may have the sample as its value."""
    try:
        msgspec.convert(sample, field_type)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("function", BY_KIND["http"])
def test_an_unknown_address_is_a_problem(world: World, function: str) -> None:
    """It is a 404 as problem+json, with a stable type."""
    response = app(function).get("/nowhere")

    assert response.status_code == 404
    assert response.content_type == "application/problem+json"
    assert response.get_json()["type"] == "/problems/not-found"


@pytest.mark.parametrize(
    ("function", "route"),
    [
        pytest.param(name, route, id=f"{route.method} {route.path}")
        for name in BY_KIND["http"]
        for route in getattr(main, name).routes
        if not route.public
    ],
)
def test_every_route_needs_a_token(world: World, function: str, route: Route) -> None:
    """Without one the response is 401 with a challenge, and nothing is read."""
    path = re.sub(r"<uuid:\w+>", str(uuid.uuid4()), route.path)

    response = app(function).open(path, method=route.method)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("function", BY_KIND["http"])
def test_every_route_has_a_webshop_and_a_description(function: str) -> None:
    """A route that is not public has a webshop in its path, and every operation has a docstring."""
    for route in getattr(main, function).routes:
        assert route.public or "<uuid:webshop_uuid>" in route.path
        assert route.operation.__doc__
