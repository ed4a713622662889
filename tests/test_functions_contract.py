"""What every function keeps to, whatever it does, checked through functions-framework itself."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import msgspec
import pytest

import main
from shared.messages import DEAD_LETTERS, MESSAGES, Message
from tests.world import World, app, push

BY_KIND: dict[str, list[str]] = {}
for _name in main.__all__:
    BY_KIND.setdefault(getattr(main, _name).trigger.kind, []).append(_name)

SAMPLES = (str(uuid.uuid4()), 2, ["x"], [2], [["x"]], [], {}, "2026-01-01T00:00:00Z", None, True)

POISON = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff",
    b'{"webshop_uuid": "x"}',
    json.dumps({"webshop_uuid": str(uuid.uuid4())}).encode(),
]


def test_every_function_has_its_test() -> None:
    """The test of a function has the function's name, wherever it stands in tests/functions/."""
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).with_name("functions").rglob("test_*.py")}

    assert set(main.__all__) <= tests


def test_every_message_has_one_function():
    """No topic without a reader, no reader without a topic."""
    topics = [getattr(main, name).trigger.topic for name in BY_KIND["kafka"]]

    assert sorted(topics) == sorted(message.topic for message in MESSAGES)


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_poison_is_put_aside_once_and_never_delivered_again(world: World, caplog, function):
    """2xx, one error in the log, one dead letter with the topic and the reason."""
    topic = getattr(main, function).trigger.topic
    for number, poison in enumerate(POISON, start=1):
        assert push(function, topic, poison) == 200

        assert len(world.dead_letters.messages) == number
        letter = world.dead_letters.messages[-1]
        assert (letter.topic, letter.data, letter.attributes["topic"]) == (DEAD_LETTERS, poison, topic)
        assert "Not a message of" in letter.attributes["reason"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == len(POISON)
    assert not world.broker.sent


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_a_push_that_is_no_pubsub_message_is_put_aside(world, function):
    """Somebody posts anything to a function's address: it is no message either."""
    headers = {"ce-id": "1", "ce-source": "x", "ce-specversion": "1.0", "ce-type": "any"}

    assert app(function).post("/", json={"hello": 1}, headers=headers).status_code == 200

    assert len(world.dead_letters.messages) == 1


@pytest.mark.parametrize("function", BY_KIND["kafka"])
def test_what_may_pass_is_delivered_again(world, monkeypatch, function):
    """A database that does not answer is no reason to put a message aside: 503, and no dead letter."""
    message = next(message for message in MESSAGES if message.topic == getattr(main, function).trigger.topic)
    data = example(message)
    for engine in (world.service, world.product, world.legacy):
        monkeypatch.setattr(engine, "connect", unreachable)
        monkeypatch.setattr(engine, "begin", unreachable)

    assert push(function, message.topic, data) == 503

    assert not world.dead_letters.messages


def unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("the database does not answer")


def example(message: type[Message]) -> bytes:
    """A message of this kind: each of its fields takes the first sample that its type allows."""
    fields: dict[str, object] = {}
    for field in msgspec.structs.fields(message):
        fields[field.encode_name] = next(sample for sample in SAMPLES if takes(field.type, sample))
    return msgspec.json.encode(fields)


def takes(field_type: object, sample: object) -> bool:
    """Whether a field of this type may hold the sample."""
    try:
        msgspec.convert(sample, field_type)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("function", BY_KIND["http"])
def test_an_unknown_address_is_a_problem(world, function):
    """404 as problem+json, with a stable type."""
    answer = app(function).get("/nowhere")

    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"
    assert answer.json["type"] == "/problems/not-found"


@pytest.mark.parametrize(
    ("function", "route"),
    [
        pytest.param(name, route, id=f"{route.method} {route.path}")
        for name in BY_KIND["http"]
        for route in getattr(main, name).routes
        if not route.public
    ],
)
def test_no_route_answers_without_a_token(world, function, route):
    """401 with a challenge, before anything is read or looked up."""
    path = re.sub(r"<uuid:\w+>", str(uuid.uuid4()), route.path)

    answer = app(function).open(path, method=route.method)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("function", BY_KIND["http"])
def test_every_route_says_what_it_needs(function):
    """A webshop in the path unless it is public, a status, types for body and query: what an API description needs."""
    for route in getattr(main, function).routes:
        assert route.public or "<uuid:webshop_uuid>" in route.path
        assert route.operation.__doc__
