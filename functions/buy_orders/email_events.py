"""email_events: takes the mail service's signed event webhook: delivered, bounced, dropped, deferred.

An event that comes again changes nothing. Whatever it tells, it proves that the mail service has the mail.
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

from functions.buy_orders import jobs
from functions.buy_orders.states import Status
from shared import clients
from shared.http_api import Route, http_function
from shared.problems import Problem
from shared.settings import settings
from shared.tables.service import buy_order_send_events, buy_order_sends

SIGNATURE_HEADER = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP_HEADER = "X-Twilio-Email-Event-Webhook-Timestamp"

# A body that was caught on its way is of no use for longer; the clocks of two systems differ by less.
MAX_AGE_SECONDS = 300
LAST_SECOND = 253_402_300_799  # of the year 9999, where Python's time ends
NAMES = {"bounce": "bounced"}  # the others are called as their service calls them

log = logging.getLogger(__name__)


def receive_events(body: bytes, headers: Headers) -> None:
    """Keeps the events of our mails."""
    signed = (headers.get(SIGNATURE_HEADER, ""), headers.get(TIMESTAMP_HEADER, ""), body)
    verify(settings().sendgrid_webhook_public_key, *signed, datetime.now(UTC))
    try:
        told = read(body)
    except msgspec.DecodeError as error:
        raise Problem(400, "malformed", f"The body is no list of events: {error}.") from error
    with clients.service_database().begin() as service:
        record(service, told)


# Public: the signature is what tells who is calling.
ROUTES = (Route("POST", "/email-events", receive_events, status=204, public=True),)

email_events = http_function("email_events", ROUTES)


class SendGridEvent(msgspec.Struct, frozen=True):
    """One event as it comes, as far as it is used."""

    event: str
    sg_event_id: str  # the same when the event comes again
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=LAST_SECOND)]  # since 1970
    send_uuid: str = ""  # the custom argument of our mails; other mails of the same account have none
    email: str = ""
    reason: str | None = None  # of a bounce or a drop
    response: str | None = None  # of the other mail server, to a delivery or a deferral


def verify(public_key: str, signature: str, timestamp: str, body: bytes, now: datetime) -> None:
    """Raises Problem 401 unless the mail service signed `body` at `timestamp`, and did so just now.

    Raises ValueError when `public_key` is no key in SendGrid's form.
    """
    if not public_key:
        raise ValueError("Set SENDGRID_WEBHOOK_PUBLIC_KEY to take the mail service's events.")
    key = load_der_public_key(base64.b64decode(public_key))
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("SENDGRID_WEBHOOK_PUBLIC_KEY is no elliptic curve key.")
    try:
        key.verify(base64.b64decode(signature, validate=True), timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        age = abs(now.timestamp() - int(timestamp))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise Problem(401, "unauthorized", "These events are not signed by the mail service.") from error
    if age > MAX_AGE_SECONDS:
        sentence = f"These events were signed {age:.0f} s ago. Allowed are {MAX_AGE_SECONDS}: sign them again."
        raise Problem(401, "unauthorized", sentence)


def read(body: bytes) -> list[SendGridEvent]:
    """The events of our mails in `body`; what is no such event is left out. Raises msgspec.DecodeError."""
    events = []
    for raw in msgspec.json.decode(body.replace(rb"\u0000", b""), type=list[msgspec.Raw]):
        try:
            event = msgspec.json.decode(raw, type=SendGridEvent)
        except msgspec.ValidationError as error:
            log.warning("Not an event of the mail service: %s", error)
            continue
        if uuid_of(event):
            events.append(event)
    return events


def uuid_of(event: SendGridEvent) -> UUID | None:
    """The send that the event is about; None for a mail that is not ours."""
    try:
        return UUID(event.send_uuid)
    except ValueError:
        return None


def record(service: Connection, events: Sequence[SendGridEvent]) -> None:
    """Keeps each event once, and makes SENT of their sends: whatever it tells, the mail service has the mail.

    Not of FAILED ones, of which it said itself that it refused them. Sends are locked first, in one order, so that
    two deliveries at once cannot wait for each other.
    """
    table = buy_order_sends.c
    asked = {uuid_of(event) for event in events}
    locking = select(table.uuid).where(table.uuid.in_(asked)).order_by(table.uuid).with_for_update()
    known = set(service.execute(locking).scalars())
    new = {event.sg_event_id: event for event in events if uuid_of(event) in known}
    if not new:
        return
    statement = insert(buy_order_send_events).values([values(event) for event in new.values()])
    service.execute(statement.on_conflict_do_nothing())
    proof = {**jobs.over(Status.SENT), "finished_at": func.coalesce(table.finished_at, jobs.now())}
    statement_of_proof = update(buy_order_sends).where(
        table.uuid.in_(known), table.status.not_in((Status.SENT, Status.FAILED))
    )
    service.execute(statement_of_proof.values(**proof, reason="", sent_at=jobs.now(), updated_at=jobs.now()))


def values(event: SendGridEvent) -> dict[str, object]:
    """The event's row."""
    return {
        "id": event.sg_event_id,
        "send_uuid": uuid_of(event),
        "event": NAMES.get(event.event, event.event),
        "recipient": event.email,
        "reason": event.reason or event.response or "",
        "occurred_at": datetime.fromtimestamp(event.timestamp, UTC),
    }
