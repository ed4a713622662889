"""What a merchant can do: mail a buy order, see what became of it, choose which codes name its products."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from functions.buy_orders import email_content, jobs, orders
from functions.buy_orders.states import Status
from functions.exports.identifiers import IDENTIFIERS, MAX_IDENTIFIERS, find_identifiers
from shared.idempotency import checked_key, key_reused
from shared.messages import BuyOrderEmail, StorableText
from shared.paging import MAX_PAGE, Position
from shared.problems import not_found, refused
from shared.tables.service import buy_order_export_settings, buy_order_send_events, buy_order_sends

if TYPE_CHECKING:
    from shared.clients.broker import Kafka

log = logging.getLogger(__name__)


class ExportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By which codes a webshop's buy orders name their products."""

    identifiers: tuple[str, ...]  # of functions/exports/identifiers.py; read in the order of their columns


class EmailBuyOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to mail a buy order."""

    recipient: StorableText | None = None  # None: the supplier's address
    cc: tuple[StorableText, ...] = ()
    message: StorableText = ""
    language: StorableText = "en"


class RequestedSend(msgspec.Struct, frozen=True):
    """A mail that was asked for."""

    uuid: UUID
    status: Status


class Event(msgspec.Struct, frozen=True):
    """What the mail service tells of a mail, at one address."""

    event: str  # "delivered", "bounced", "dropped", "deferred" and so on
    recipient: str
    reason: str  # what the other mail server said; "" where nothing
    occurred_at: datetime


class Send(msgspec.Struct, frozen=True):
    """A mail as its merchant sees it."""

    uuid: UUID
    status: Status
    reason: str  # why it stands where it stands; "" while all is well
    recipient: str | None  # None until it is known
    file_uris: tuple[str, ...]  # gs://bucket/path of CSV, XLSX and PDF, while they are kept
    events: tuple[Event, ...]  # oldest first
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None


class SendQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which sends to list."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50
    cursor: str = ""  # next_cursor of the page before


class SendPage(msgspec.Struct, frozen=True):
    """A page of sends, newest first."""

    items: tuple[Send, ...]
    next_cursor: str | None  # None: this is the last page


@dataclass(frozen=True)
class Mailing:
    """The operations over buy orders, and what they need of the outside."""

    service: Engine
    product: Engine
    kafka: Kafka

    def request(
        self, webshop_uuid: UUID, user_uuid: UUID, buy_order_uuid: UUID, wanted: EmailBuyOrder, key: str | None
    ) -> RequestedSend:
        """Adds a send for buy_order_email to do, or finds the one of that idempotency key.

        Raises Problem 404 for an order that the webshop does not have, 422 for one that cannot be mailed.
        """
        message = BuyOrderEmail(webshop_uuid, uuid4(), buy_order_uuid, user_uuid, **msgspec.structs.asdict(wanted))
        if found := self.found_by_key(message, checked_key(key)):
            return found
        email_content.check(wanted.message, wanted.language)
        with self.product.connect() as product:
            order = orders.find(product, webshop_uuid, buy_order_uuid)
        addressees = orders.addressees(order, wanted.recipient, wanted.cc)
        with self.service.begin() as service:
            added = jobs.add(service, message, addressees.recipient, key)
        if not added and (found := self.found_by_key(message, key)):
            return found
        self.announce(message)
        return RequestedSend(message.send_uuid, Status.PENDING)

    def found_by_key(self, wanted: BuyOrderEmail, key: str | None) -> RequestedSend | None:
        """The send that was asked for with that key. Raises Problem 422 when it is not the one `wanted`."""
        if key is None:
            return None
        table = buy_order_sends.c
        same_key = (
            table.webshop_uuid == wanted.webshop_uuid,
            table.user_uuid == wanted.user_uuid,
            table.idempotency_key == key,
        )
        with self.service.connect() as service:
            row = service.execute(select(buy_order_sends).where(*same_key)).one_or_none()
        if row is None:
            return None
        asked = BuyOrderEmail.decoded(row.request.encode())
        if asked != msgspec.structs.replace(wanted, send_uuid=asked.send_uuid):
            raise key_reused("mail")
        return RequestedSend(row.uuid, Status(row.status))

    def announce(self, message: BuyOrderEmail) -> None:
        """Sends the message of a send that is recorded. Failing is logged only: sweep sends it again."""
        try:
            self.kafka.send(message)
        except Exception:
            log.exception("The message of send %s was not sent; sweep will", message.send_uuid)

    def find_all(self, webshop_uuid: UUID, buy_order_uuid: UUID, query: SendQuery) -> SendPage:
        """A page of the sends of an order, deleted or not, newest first. Raises Problem 404."""
        with self.product.connect() as product:
            if not orders.exists(product, webshop_uuid, buy_order_uuid):
                raise not_found("buy order")
        with self.service.connect() as service:
            return page(service, webshop_uuid, buy_order_uuid, query)


def page(service: Connection, webshop_uuid: UUID, buy_order_uuid: UUID, query: SendQuery) -> SendPage:
    """A page of sends, newest first, by keyset: new ones never shift it."""
    table = buy_order_sends.c
    conditions: list[ColumnElement[bool]] = [
        table.webshop_uuid == webshop_uuid,
        table.buy_order_uuid == buy_order_uuid,
    ]
    if query.cursor:
        last = Position.of(query.cursor)
        conditions.append(tuple_(table.created_at, table.uuid) < (last.created_at, last.uuid))
    newest_first = (table.created_at.desc(), table.uuid.desc())
    statement = select(buy_order_sends).where(*conditions).order_by(*newest_first).limit(query.limit + 1)
    rows = service.execute(statement).all()
    shown = rows[: query.limit]
    events = events_of(service, [row.uuid for row in shown])
    items = tuple(view(row, events[row.uuid]) for row in shown)
    more = len(rows) > query.limit
    return SendPage(items, Position(items[-1].created_at, items[-1].uuid).cursor() if more else None)


def events_of(service: Connection, send_uuids: Sequence[UUID]) -> defaultdict[UUID, list[Event]]:
    """What the mail service told of each of these sends, oldest first."""
    table = buy_order_send_events.c
    statement = (
        select(buy_order_send_events).where(table.send_uuid.in_(send_uuids)).order_by(table.occurred_at, table.id)
    )
    found: defaultdict[UUID, list[Event]] = defaultdict(list)
    for row in service.execute(statement):
        found[row.send_uuid].append(msgspec.convert(row._mapping, Event, from_attributes=True))
    return found


def view(row: Row[tuple[object, ...]], events: Iterable[Event]) -> Send:
    """A row as its merchant sees it."""
    known = {name: row._mapping[name] for name in Send.__struct_fields__ if name in row._mapping}
    return msgspec.convert({**known, "events": tuple(events)}, Send)


def find_settings(service: Connection, webshop_uuid: UUID) -> ExportSettings:
    """The webshop's settings, or the defaults."""
    return ExportSettings(find_identifiers(service, webshop_uuid))


def save_settings(service: Connection, webshop_uuid: UUID, wanted: ExportSettings) -> ExportSettings:
    """Keeps the settings. Raises Problem 422 that names what is not allowed."""
    statement = insert(buy_order_export_settings).values(
        webshop_uuid=webshop_uuid, identifiers=list(in_column_order(wanted.identifiers))
    )
    service.execute(
        statement.on_conflict_do_update(
            index_elements=[buy_order_export_settings.c.webshop_uuid],
            set_={"identifiers": statement.excluded.identifiers, "updated_at": func.clock_timestamp()},
        )
    )
    return find_settings(service, webshop_uuid)


def in_column_order(identifiers: Sequence[str]) -> tuple[str, ...]:
    """`identifiers` in the order of their columns. Raises Problem 422 for unknown, repeated, too many or none."""
    known = ", ".join(IDENTIFIERS)
    for position, identifier in enumerate(identifiers):
        if identifier not in IDENTIFIERS:
            raise refused(f"identifiers[{position}]", f'There is no identifier "{identifier[:60]}". Known: {known}.')
    if repeated := [identifier for identifier, times in Counter(identifiers).items() if times > 1]:
        raise refused("identifiers", f"Each identifier may stand once. Repeated: {', '.join(repeated)}.")
    if not 1 <= len(identifiers) <= MAX_IDENTIFIERS:
        named = f": {', '.join(identifiers)}" if identifiers else ""
        sentence = f"A buy order takes 1 to {MAX_IDENTIFIERS} identifiers. These are {len(identifiers)}{named}."
        raise refused("identifiers", sentence)
    return tuple(sorted(identifiers, key=IDENTIFIERS.index))
