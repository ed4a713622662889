"""What an event function may answer, for Storage and for Kafka: one place decides, the functions only do their step.

Done or nothing to do: 2xx. PermanentError: logged once, published to `dead-letters`, 2xx. Anything else: 503, which
Pub/Sub and Eventarc deliver again with backoff.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import flask
import functions_framework
import msgspec
from cloudevents.http.event import CloudEvent

from shared import clients, logs
from shared.errors import NothingToDo, PermanentError, Unavailable
from shared.messages import DEAD_LETTERS, Message, PubSubMessage

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.broker import Kafka

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Trigger:
    """What calls a function. infra/functions.yaml says the same for the deployment; a test compares them."""

    kind: Literal["http", "kafka", "storage", "schedule", "worker"]
    topic: str = ""  # of a "kafka" function


class Function(Protocol):
    """A function as the framework takes it, and what triggers it."""

    trigger: Trigger

    def __call__(self, *event: Any) -> Any:
        """Handles one event or request."""


class PushedMessage(msgspec.Struct, frozen=True):
    """https://cloud.google.com/pubsub/docs/push#receive_push ."""

    data: bytes = b""  # base64 on the wire, decoded by msgspec
    attributes: dict[str, str] = {}


class PushEvent(msgspec.Struct, frozen=True):
    """The data of a Pub/Sub CloudEvent; a raw push is made into one by the framework."""

    message: PushedMessage


class FinalizedObject(msgspec.Struct, frozen=True, rename="camel"):
    """The data of a Cloud Storage event: the object's resource, as far as it is used."""

    name: str
    generation: int
    size: int = 0  # bytes
    metadata: dict[str, str] = {}


def kafka_function(message_type: type[M]) -> Callable[[Callable[[M], None]], Function]:
    """Makes a step over one message a function that Pub/Sub pushes `message_type`'s topic to."""

    def decorate(step: Callable[[M], None]) -> Function:
        def handle(event: CloudEvent) -> None:
            letter = opened(event, message_type.topic)
            deliver(lambda: step(decoded(message_type, letter.data)), letter)

        return registered(handle, step, Trigger("kafka", message_type.topic))

    return decorate


def storage_function(step: Callable[[FinalizedObject], None]) -> Function:
    """Makes a step over one finalized object a function for Cloud Storage's events."""

    def handle(event: CloudEvent) -> None:
        letter = PubSubMessage("storage.finalized", msgspec.json.encode(event.data))
        deliver(lambda: step(finalized(event)), letter)

    return registered(handle, step, Trigger("storage"))


def scheduled_function(step: Callable[[], None]) -> Function:
    """Makes a step a function that Cloud Scheduler calls over HTTP. What it raises is a 503: it is called again."""

    def handle(request: flask.Request) -> str:
        with logs.context(request.headers.get("traceparent", ""), function=step.__name__):
            try:
                step()
            except Exception:
                log.exception("Failed; it will be called again")
                flask.abort(503)
        return "OK"

    handle.__name__, handle.__doc__, handle.__module__ = step.__name__, step.__doc__, step.__module__
    return triggered(functions_framework.http(handle), Trigger("schedule"))


def worker_function(work: Callable[[], None]) -> Function:
    """Makes `work` a worker: called without arguments, once a process."""
    return triggered(work, Trigger("worker"))


def registered(handle: Callable[[CloudEvent], None], step: Callable[..., None], trigger: Trigger) -> Function:
    """Gives `handle` the step's name, which the framework finds it by."""
    handle.__name__, handle.__doc__, handle.__module__ = step.__name__, step.__doc__, step.__module__
    return triggered(functions_framework.cloud_event(handle), trigger)


def triggered(function: Any, trigger: Trigger) -> Function:
    """Writes on the function what calls it."""
    function.trigger = trigger
    return cast("Function", function)


def opened(event: CloudEvent, topic: str) -> PubSubMessage:
    """The Pub/Sub message in `event`; what is none of Pub/Sub's keeps its bytes, and fails as a message does."""
    try:
        pushed = msgspec.convert(event.data, PushEvent, strict=False).message
    except msgspec.ValidationError:
        return PubSubMessage(topic, msgspec.json.encode(event.data))
    return PubSubMessage(topic, pushed.data, pushed.attributes)


def finalized(event: CloudEvent) -> FinalizedObject:
    """Raises PermanentError when the event is not Cloud Storage's."""
    try:
        return msgspec.convert(event.data, FinalizedObject, strict=False)
    except msgspec.ValidationError as error:
        raise PermanentError(f"Not an event of Cloud Storage: {error}") from error


def decoded(message_type: type[M], data: bytes) -> M:
    """Raises PermanentError when `data` is not such a message: no delivery can mend it."""
    try:
        return message_type.decoded(data)
    except msgspec.MsgspecError as error:
        raise PermanentError(f"Not a message of {message_type.topic}: {error}") from error


def send_or_leave_to_sweep(kafka: Kafka, *messages: Message) -> None:
    """Sends the messages of a committed change. The change stays when Kafka is away: sweep sends them then."""
    try:
        kafka.send(*messages)
    except Unavailable:
        log.warning("%s messages were not sent; sweep will send them", len(messages), exc_info=True)


def deliver(step: Callable[[], None], letter: PubSubMessage) -> None:
    """Does `step` and answers for it as this module's head says."""
    attributes: Mapping[str, str] = letter.attributes
    fields = {"topic": letter.topic, "message_id": attributes.get("message-id", "")}
    with logs.context(attributes.get("traceparent", ""), **fields):
        try:
            step()
        except NothingToDo as late:
            log.info("Nothing to do: %s", late)
        except PermanentError as error:
            log.error("Given up: %s", error)
            reason = {"topic": letter.topic, "reason": str(error).encode()[:1000].decode(errors="ignore")}  # of 1024
            clients.pubsub().publish([PubSubMessage(DEAD_LETTERS, letter.data, {**attributes, **reason})])
        except Exception:
            log.exception("Failed; it will be delivered again")
            flask.abort(503)
