"""email_events: takes the mail service's signed event webhook: delivered, bounced, dropped, deferred.

An event that comes again changes nothing. Whatever it tells, it proves that the mail service has the mail.
"""

from datetime import UTC, datetime

import msgspec
from werkzeug.datastructures import Headers

from shared import clients
from shared.buy_orders import events
from shared.buy_orders.events import SIGNATURE_HEADER, TIMESTAMP_HEADER
from shared.http_api import Route, http_function
from shared.problems import Problem
from shared.settings import settings


def receive_events(body: bytes, headers: Headers) -> None:
    """Keeps the events of our mails."""
    signed = (headers.get(SIGNATURE_HEADER, ""), headers.get(TIMESTAMP_HEADER, ""), body)
    events.verify(settings().sendgrid_webhook_public_key, *signed, datetime.now(UTC))
    try:
        told = events.read(body)
    except msgspec.DecodeError as error:
        raise Problem(400, "malformed", f"The body is no list of events: {error}.") from error
    with clients.service_database().begin() as service:
        events.record(service, told)


# Public: the signature is what tells who is calling.
ROUTES = (Route("POST", "/email-events", receive_events, status=204, public=True),)

email_events = http_function("email_events", ROUTES)
