"""email_events: receives the email service's signed events, such as delivered, bounced, dropped, deferred.

A duplicate event changes nothing. Any event of an email proves that the email service accepted it.
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert
from werkzeug.datastructures import Headers

from functions.buy_orders.jobs import CHECK_FILES_LATER, DELIVERIES
from functions.buy_orders.states import Status
from shared import clients
from shared.http_api import Route, http_function
from shared.leases import now
from shared.problems import Problem
from shared.settings import settings
from shared.tables.service import buy_order_send_events as delivery_events
from shared.tables.service import buy_order_sends as deliveries

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"

# A recorded request cannot be replayed for longer; the clocks of two systems differ by less.
MAX_AGE_SECONDS = 300
LAST_SECOND = 253_402_300_799  # of the year 9999, the last that Python's datetime holds
EVENT_NAMES = {"bounce": "bounced"}  # other events keep the name that the email service gives them

log = logging.getLogger(__name__)


def receive_events(body: bytes, headers: Headers) -> None:
    """Stores the events of our emails."""
    signature, timestamp = headers.get(SIGNATURE_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    verify_signature(settings().sendgrid_webhook_public_key, signature, timestamp, body, datetime.now(UTC))
    try:
        events = decode_events(body)
    except msgspec.DecodeError as error:
        raise Problem(400, "malformed", f"The body is not a list of events: {error}.") from error
    with clients.service_database().begin() as conn:
        store_events(conn, events)


# Public: the signature identifies the caller.
ROUTES = (Route("POST", "/email-events", receive_events, status=204, public=True),)

email_events = http_function("email_events", ROUTES)


class SendGridEvent(msgspec.Struct, frozen=True):
    """One event of the webhook: the fields that are used here."""

    event: str
    sg_event_id: str  # the same when the event is sent again
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=LAST_SECOND)]  # seconds since 1970
    send_uuid: str = ""  # the custom argument of our emails; "" for other emails of the same account
    email: str = ""
    reason: str | None = None  # why the email bounced or was dropped
    response: str | None = None  # of the recipient's email server, if the email was delivered or deferred


def verify_signature(public_key: str, signature: str, timestamp: str, body: bytes, received_at: datetime) -> None:
    """Raises Problem 401 unless the email service signed `body` at `timestamp`, within MAX_AGE_SECONDS.

    `timestamp` is the header's text, in seconds since 1970. Raises ValueError when `public_key` is not a key in
    SendGrid's form.
    """
    if not public_key:
        raise ValueError("Set SENDGRID_WEBHOOK_PUBLIC_KEY to receive the email service's events.")
    key = load_der_public_key(base64.b64decode(public_key))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("SENDGRID_WEBHOOK_PUBLIC_KEY is not an elliptic curve key.")
    try:
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        age_seconds = abs(received_at.timestamp() - int(timestamp))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise Problem(401, "unauthorized", "These events are not signed by the email service.") from error
    if age_seconds > MAX_AGE_SECONDS:
        difference = f"The signature's timestamp differs from the current time by {age_seconds:.0f} s."
        detail = f"{difference} At most {MAX_AGE_SECONDS} s are allowed. Sign the events again."
        raise Problem(401, "unauthorized", detail)


def decode_events(body: bytes) -> list[SendGridEvent]:
    """Returns the events of our emails and skips all others. Raises msgspec.DecodeError if `body` is not a list."""
    events = []
    for item in msgspec.json.decode(body.replace(rb"\u0000", b""), type=list[msgspec.Raw]):
        try:
            event = msgspec.json.decode(item, type=SendGridEvent)
        except msgspec.ValidationError as error:
            log.warning("Not an event of the email service: %s", error)
            continue
        if parse_delivery_uuid(event):
            events.append(event)
    return events


def parse_delivery_uuid(event: SendGridEvent) -> UUID | None:
    """Returns the uuid of the event's delivery, or None if the email is not ours."""
    try:
        return UUID(event.send_uuid)
    except ValueError:
        return None


def store_events(conn: Connection, events: Sequence[SendGridEvent]) -> None:
    """Stores each event once, and marks its delivery SENT: any event proves that the email was accepted.

    A FAILED delivery stays FAILED: the email service itself rejected that email. The deliveries are locked first, in
    the order of their uuids, so that two concurrent requests cannot deadlock.
    """
    columns = deliveries.c
    uuids = {parse_delivery_uuid(event) for event in events}
    statement = select(columns.uuid).where(columns.uuid.in_(uuids)).order_by(columns.uuid).with_for_update()
    known_uuids = set(conn.execute(statement).scalars())
    unique_events = {event.sg_event_id: event for event in events if parse_delivery_uuid(event) in known_uuids}
    if not unique_events:
        return
    rows = [to_row(event) for event in unique_events.values()]
    conn.execute(insert(delivery_events).values(rows).on_conflict_do_nothing())
    values = {
        **DELIVERIES.final_values(Status.SENT),
        **CHECK_FILES_LATER,
        "finished_at": func.coalesce(columns.finished_at, now()),
        "reason": "",
        "sent_at": now(),
        "updated_at": now(),
    }
    is_unsettled = columns.status.not_in((Status.SENT, Status.FAILED))
    conn.execute(update(deliveries).where(columns.uuid.in_(known_uuids), is_unsettled).values(**values))


def to_row(event: SendGridEvent) -> dict[str, object]:
    """Returns the event as a row."""
    return {
        "id": event.sg_event_id,
        "send_uuid": parse_delivery_uuid(event),
        "event": EVENT_NAMES.get(event.event, event.event),
        "recipient": event.email,
        "reason": event.reason or event.response or "",
        "occurred_at": datetime.fromtimestamp(event.timestamp, UTC),
    }
