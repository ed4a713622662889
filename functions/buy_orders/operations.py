"""What a merchant can do with buy orders: email them, list these emails, choose how products are identified."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, func, select
from sqlalchemy.dialects.postgresql import insert

from functions.buy_orders import email_content, orders
from functions.buy_orders.jobs import insert_delivery
from functions.buy_orders.states import Status
from functions.exports.identifiers import IDENTIFIERS, MAX_IDENTIFIERS, find_identifiers
from shared.delivery import send_or_leave_to_sweep
from shared.idempotency import check_key, key_reused
from shared.messages import BuyOrderEmail, StorableText
from shared.pagination import PageQuery, fetch_page
from shared.problems import invalid_input, not_found
from shared.tables.service import buy_order_export_settings
from shared.tables.service import buy_order_send_events as delivery_events
from shared.tables.service import buy_order_sends as deliveries
from shared.wording import format_count, was_or_were

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.broker import Kafka


class ExportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The identifiers by which a webshop's buy orders name their products, such as the SKU code."""

    identifiers: tuple[str, ...]  # of functions/exports/identifiers.py; a response has them in the order of columns


class EmailBuyOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to email a buy order."""

    recipient: StorableText | None = None  # None: the supplier's address
    cc: tuple[StorableText, ...] = ()
    message: StorableText = ""
    language: StorableText = "en"


class RequestedDelivery(msgspec.Struct, frozen=True):
    """The response to a request to email a buy order."""

    uuid: UUID
    status: Status


class DeliveryEvent(msgspec.Struct, frozen=True):
    """What the email service reported about an email to one address."""

    event: str  # "delivered", "bounced", "dropped", "deferred" and so on
    recipient: str
    reason: str  # the response of the recipient's email server; "" if there is none
    occurred_at: datetime


class Delivery(msgspec.Struct, frozen=True):
    """An email delivery as the merchant sees it."""

    uuid: UUID
    status: Status
    reason: str  # why it has this status; "" unless there was a problem
    recipient: str | None  # None until a worker has read the supplier's address
    file_uris: tuple[str, ...]  # gs://bucket/path of CSV, XLSX and PDF; empty before and after these exist
    events: tuple[DeliveryEvent, ...]  # oldest first
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of email deliveries, newest first."""

    items: tuple[Delivery, ...]
    next_cursor: str | None  # None: this is the last page


@dataclass(frozen=True)
class EmailOperations:
    """The operations on the emails of buy orders, and the clients that they need."""

    service_db: Engine
    product_db: Engine
    kafka: Kafka

    def request_email(
        self,
        webshop_uuid: UUID,
        user_uuid: UUID,
        buy_order_uuid: UUID,
        request: EmailBuyOrder,
        idempotency_key: str | None,
    ) -> RequestedDelivery:
        """Inserts a delivery, whose email the function buy_order_email will send.

        If the user sent the same request with this idempotency key before, returns the delivery of that request. Raises
        Problem 404 if the webshop has no such order, and 422 if the request is invalid or the order cannot be emailed.
        """
        message = BuyOrderEmail(webshop_uuid, uuid4(), buy_order_uuid, user_uuid, **msgspec.structs.asdict(request))
        if delivery := self.find_by_key(message, check_key(idempotency_key)):
            return delivery
        email_content.check_options(request.message, request.language)
        with self.product_db.connect() as conn:
            order = orders.find_order(conn, webshop_uuid, buy_order_uuid)
        addressees = orders.find_addressees(order, request.recipient, request.cc)
        with self.service_db.begin() as conn:
            is_new = insert_delivery(conn, message, addressees.recipient, idempotency_key)
        if not is_new and (delivery := self.find_by_key(message, idempotency_key)):
            return delivery
        send_or_leave_to_sweep(self.kafka, message)
        return RequestedDelivery(message.send_uuid, Status.PENDING)

    def find_by_key(self, message: BuyOrderEmail, idempotency_key: str | None) -> RequestedDelivery | None:
        """Returns the user's delivery with that key, if any. Raises Problem 422 if it was for a different request."""
        if idempotency_key is None:
            return None
        statement = select(deliveries.c.uuid, deliveries.c.request, deliveries.c.status).where(
            deliveries.c.webshop_uuid == message.webshop_uuid,
            deliveries.c.user_uuid == message.user_uuid,
            deliveries.c.idempotency_key == idempotency_key,
        )
        with self.service_db.connect() as conn:
            row = conn.execute(statement).one_or_none()
        if row is None:
            return None
        earlier = BuyOrderEmail.decode(row.request.encode())
        if earlier != msgspec.structs.replace(message, send_uuid=earlier.send_uuid):
            raise key_reused("email")
        return RequestedDelivery(row.uuid, Status(row.status))

    def list_emails(self, webshop_uuid: UUID, buy_order_uuid: UUID, query: PageQuery) -> DeliveryPage:
        """Returns a page of an order's deliveries, newest first, also if the order was deleted.

        Raises Problem 404 if the webshop never had such an order.
        """
        with self.product_db.connect() as conn:
            if not orders.order_exists(conn, webshop_uuid, buy_order_uuid):
                raise not_found("buy order")
        with self.service_db.connect() as conn:
            return list_deliveries(conn, webshop_uuid, buy_order_uuid, query)


def list_deliveries(conn: Connection, webshop_uuid: UUID, buy_order_uuid: UUID, query: PageQuery) -> DeliveryPage:
    """Returns a page of an order's deliveries, newest first."""
    statement = select(deliveries).where(
        deliveries.c.webshop_uuid == webshop_uuid, deliveries.c.buy_order_uuid == buy_order_uuid
    )
    rows, next_cursor = fetch_page(conn, statement, deliveries, query)
    events = find_events(conn, [row["uuid"] for row in rows])
    return DeliveryPage(tuple(to_delivery(row, events[row["uuid"]]) for row in rows), next_cursor)


def find_events(conn: Connection, delivery_uuids: Sequence[UUID]) -> defaultdict[UUID, list[DeliveryEvent]]:
    """Returns the events of each of these deliveries, oldest first."""
    statement = (
        select(delivery_events)
        .where(delivery_events.c.send_uuid.in_(delivery_uuids))
        .order_by(delivery_events.c.occurred_at, delivery_events.c.id)
    )
    events: defaultdict[UUID, list[DeliveryEvent]] = defaultdict(list)
    for row in conn.execute(statement):
        events[row.send_uuid].append(msgspec.convert(row, DeliveryEvent, from_attributes=True))
    return events


def to_delivery(row: RowMapping, events: Iterable[DeliveryEvent]) -> Delivery:
    """Returns a row as the merchant sees it."""
    values = {name: row[name] for name in Delivery.__struct_fields__ if name in row}
    return msgspec.convert({**values, "events": tuple(events)}, Delivery)


def find_settings(conn: Connection, webshop_uuid: UUID) -> ExportSettings:
    """Returns the webshop's settings, or the default ones."""
    return ExportSettings(find_identifiers(conn, webshop_uuid))


def save_settings(conn: Connection, webshop_uuid: UUID, request: ExportSettings) -> ExportSettings:
    """Saves the settings. Raises Problem 422 naming what is not allowed."""
    identifiers = check_identifiers(request.identifiers)
    statement = insert(buy_order_export_settings).values(webshop_uuid=webshop_uuid, identifiers=list(identifiers))
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[buy_order_export_settings.c.webshop_uuid],
            set_={"identifiers": statement.excluded.identifiers, "updated_at": func.clock_timestamp()},
        )
    )
    return find_settings(conn, webshop_uuid)


def check_identifiers(identifiers: Sequence[str]) -> tuple[str, ...]:
    """Returns `identifiers` in the order of their columns. Raises Problem 422 if they are not a valid choice."""
    for position, identifier in enumerate(identifiers):
        if identifier not in IDENTIFIERS:
            detail = f'There is no identifier "{identifier[:60]}". Known: {", ".join(IDENTIFIERS)}.'
            raise invalid_input(f"identifiers[{position}]", detail)
    if repeated := [identifier for identifier, count in Counter(identifiers).items() if count > 1]:
        raise invalid_input("identifiers", f"Each identifier may appear once. Repeated: {', '.join(repeated)}.")
    if not 1 <= len(identifiers) <= MAX_IDENTIFIERS:
        found = f"{format_count(len(identifiers), 'identifier')} {was_or_were(len(identifiers))}"
        names = f": {', '.join(identifiers)}" if identifiers else ""
        raise invalid_input(
            "identifiers", f"A buy order takes 1 to {MAX_IDENTIFIERS} identifiers. {found} given{names}."
        )
    return tuple(sorted(identifiers, key=IDENTIFIERS.index))
