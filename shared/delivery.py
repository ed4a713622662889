"""How an event function answers. One place decides for Storage and Kafka functions; a function only does its step.

Done, or nothing to do: 2xx. PermanentError: it is logged once, the message is published to `dead-letters`, 2xx. Any
other error: 503, and Pub/Sub or Eventarc delivers the event again with backoff.
"""

from __future__ import annotations

import logging
import sys
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
from shared.settings import InvalidSettings, settings
from shared.wording import format_count, was_or_were

if TYPE_CHECKING:  # the functions in shared/clients import it when they make the client
    from shared.clients.broker import Kafka

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

MAX_REASON_BYTES = 1000  # Pub/Sub allows 1,024 bytes per attribute


@dataclass(frozen=True)
class Trigger:
    """What calls a function. infra/functions.yaml says the same for the deployment; a test compares the two."""

    kind: Literal["http", "kafka", "storage", "schedule", "worker"]
    topic: str = ""  # of a "kafka" function


class Function(Protocol):
    """A function in the form that functions-framework calls, with its trigger."""

    __name__: str
    trigger: Trigger

    def __call__(self, *event: Any) -> Any:
        """Handles one event or request."""


class PushedMessage(msgspec.Struct, frozen=True):
    """https://cloud.google.com/pubsub/docs/push#receive_push ."""

    data: bytes = b""  # base64 in the request, decoded by msgspec
    attributes: dict[str, str] = {}


class PushEvent(msgspec.Struct, frozen=True):
    """The data of a Pub/Sub CloudEvent. functions-framework converts a raw push request into one."""

    message: PushedMessage


class FinalizedObject(msgspec.Struct, frozen=True, rename="camel"):
    """The data of a Cloud Storage event: the fields of the object's resource that the project uses."""

    name: str
    generation: int
    size: int = 0  # bytes
    metadata: dict[str, str] = {}


def kafka_function(message_type: type[M]) -> Callable[[Callable[[M], None]], Function]:
    """Makes a function of a step that handles one message. Pub/Sub pushes `message_type`'s topic to it."""

    def decorate(step: Callable[[M], None]) -> Function:
        def handle(event: CloudEvent) -> None:
            message = parse_push(event, message_type.topic)
            deliver(lambda: step(decode_message(message_type, message.data)), message)

        return register_event_handler(handle, step, Trigger("kafka", message_type.topic))

    return decorate


def storage_function(step: Callable[[FinalizedObject], None]) -> Function:
    """Makes a function of a step that handles one finalized object. Cloud Storage's events call it."""

    def handle(event: CloudEvent) -> None:
        message = PubSubMessage("storage.finalized", msgspec.json.encode(event.data))
        deliver(lambda: step(parse_storage_event(event)), message)

    return register_event_handler(handle, step, Trigger("storage"))


def scheduled_function(step: Callable[[], None]) -> Function:
    """Makes a function of a step that Cloud Scheduler calls over HTTP. Any error is a 503, so that it calls again."""

    def handle(request: flask.Request) -> str:
        with logs.context(request.headers.get("traceparent", ""), function=step.__name__):
            try:
                step()
            except Exception:
                log.exception("The scheduled call failed and will be retried")
                flask.abort(503)
        return "OK"

    copy_identity(step, handle)
    return set_trigger(functions_framework.http(handle), Trigger("schedule"))


def worker_function(work: Callable[[], None]) -> Function:
    """Makes a worker of `work`: it is called without arguments, once per process.

    The call configures logging first, because a worker's process runs its module without importing main.py.
    """

    def run() -> None:
        try:
            logs.configure(settings())
        except InvalidSettings as error:
            sys.exit(str(error))  # one line per malformed setting, without a traceback
        work()

    copy_identity(work, run)
    return set_trigger(run, Trigger("worker"))


def register_event_handler(
    handle: Callable[[CloudEvent], None], step: Callable[..., None], trigger: Trigger
) -> Function:
    """Registers `handle` with functions-framework, which finds it by the step's name."""
    copy_identity(step, handle)
    return set_trigger(functions_framework.cloud_event(handle), trigger)


def copy_identity(step: Callable[..., Any], handle: Callable[..., Any]) -> None:
    """Gives `handle` the name, docstring and module of `step`."""
    handle.__name__, handle.__doc__, handle.__module__ = step.__name__, step.__doc__, step.__module__


def set_trigger(function: Any, trigger: Trigger) -> Function:
    """Records on the function what calls it."""
    function.trigger = trigger
    return cast("Function", function)


def parse_push(event: CloudEvent, topic: str) -> PubSubMessage:
    """Returns the Pub/Sub message in `event`.

    An invalid envelope is passed through as the data of a message, and is then rejected like an invalid message.
    """
    try:
        pushed = msgspec.convert(event.data, PushEvent, strict=False).message
    except msgspec.ValidationError:
        return PubSubMessage(topic, msgspec.json.encode(event.data))
    return PubSubMessage(topic, pushed.data, pushed.attributes)


def parse_storage_event(event: CloudEvent) -> FinalizedObject:
    """Returns the object that `event` reports. Raises PermanentError when it is not an event of Cloud Storage."""
    try:
        return msgspec.convert(event.data, FinalizedObject, strict=False)
    except msgspec.ValidationError as error:
        raise PermanentError(f"Not an event of Cloud Storage: {error}") from error


def decode_message(message_type: type[M], data: bytes) -> M:
    """Decodes `data`. Raises PermanentError when it is not a `message_type`: a redelivery would not change it."""
    try:
        return message_type.decode(data)
    except msgspec.MsgspecError as error:
        raise PermanentError(f"Not a message of {message_type.topic}: {error}") from error


def send_or_leave_to_sweep(kafka: Kafka, *messages: Message) -> None:
    """Sends the messages of a committed change. When Kafka is unavailable the change stays, and sweep sends them."""
    try:
        kafka.send(*messages)
    except Unavailable:
        count = f"{format_count(len(messages), 'message')} {was_or_were(len(messages))}"
        log.warning("%s not sent; sweep will send what is missing", count, exc_info=True)


def deliver(step: Callable[[], None], message: PubSubMessage) -> None:
    """Runs `step` and answers as the docstring of this module describes."""
    attributes: Mapping[str, str] = message.attributes
    fields = {"topic": message.topic, "message_id": attributes.get("message-id", "")}
    with logs.context(attributes.get("traceparent", ""), **fields):
        try:
            step()
        except NothingToDo as error:
            log.info("Nothing to do: %s", error)
        except PermanentError as error:
            log.error("The message goes to dead-letters: %s", error)
            reason = str(error).encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            dead_letter = PubSubMessage(
                DEAD_LETTERS, message.data, {**attributes, "topic": message.topic, "reason": reason}
            )
            clients.pubsub().publish([dead_letter])
        except Exception:
            log.exception("The delivery failed and will be retried")
            flask.abort(503)
