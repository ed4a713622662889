"""Reads a buy order from the product database for its email, and checks that it can be emailed."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from sqlalchemy import func, select

from functions.buy_orders.addresses import parse_address, parse_copies
from functions.exports.source import belongs_to
from shared.problems import invalid_input, not_found
from shared.tables.product import buy_order_lines, buy_orders, suppliers, webshops

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Order(msgspec.Struct, frozen=True):
    """The fields of a buy order that its email shows."""

    number: str
    currency: str  # ISO 4217
    ordered_on: date
    expected_on: date | None
    lines: int
    total: Decimal  # in `currency`
    webshop_name: str
    webshop_email_address: str
    webshop_phone_number: str | None
    supplier_name: str
    supplier_email_address: str | None
    contact_name: str | None


class Addressees(msgspec.Struct, frozen=True):
    """The addresses of an email: who gets it, and who gets the reply."""

    reply_to: str
    recipient: str
    cc: tuple[str, ...]


def find_order(conn: Connection, webshop_uuid: UUID, buy_order_uuid: UUID) -> Order:
    """Returns the order. Raises Problem 404 if the webshop has no such order or it was deleted, 422 without lines."""
    amounts = func.sum(buy_order_lines.c.quantity * buy_order_lines.c.unit_price)
    statement = (
        select(
            buy_orders.c.number,
            buy_orders.c.currency,
            buy_orders.c.ordered_on,
            buy_orders.c.expected_on,
            func.count(buy_order_lines.c.uuid).label("lines"),
            func.coalesce(amounts, 0).label("total"),
            webshops.c.name.label("webshop_name"),
            webshops.c.email_address.label("webshop_email_address"),
            webshops.c.phone_number.label("webshop_phone_number"),
            suppliers.c.name.label("supplier_name"),
            suppliers.c.email_address.label("supplier_email_address"),
            suppliers.c.contact_name,
        )
        .join(webshops, webshops.c.uuid == buy_orders.c.webshop_uuid)
        .join(suppliers, belongs_to(suppliers, buy_orders.c.supplier_uuid))
        .outerjoin(buy_order_lines, belongs_to(buy_orders, buy_order_lines.c.buy_order_uuid))
        .where(
            buy_orders.c.uuid == buy_order_uuid,
            buy_orders.c.webshop_uuid == webshop_uuid,
            buy_orders.c.deleted_at.is_(None),
        )
        .group_by(buy_orders.c.uuid, webshops.c.uuid, suppliers.c.uuid)
    )
    row = conn.execute(statement).one_or_none()
    if row is None:
        raise not_found("buy order")
    order = msgspec.convert(row._mapping, Order, from_attributes=True)
    if not order.lines:
        raise invalid_input(
            "buy_order_uuid", f"Buy order {order.number} has no lines. Add a line for each product to order."
        )
    return order


def order_exists(conn: Connection, webshop_uuid: UUID, buy_order_uuid: UUID) -> bool:
    """Returns whether the webshop has such an order, also if it was deleted."""
    statement = select(buy_orders.c.uuid).where(
        buy_orders.c.uuid == buy_order_uuid, buy_orders.c.webshop_uuid == webshop_uuid
    )
    return conn.execute(statement).one_or_none() is not None


def find_addressees(order: Order, recipient: str | None, cc: tuple[str, ...]) -> Addressees:
    """Returns the addresses of the order's email. Without `recipient` it goes to the supplier. Raises Problem 422."""
    if recipient is None and not order.supplier_email_address:
        detail = f"The supplier {order.supplier_name} has no email address. Add one, or name a recipient."
        raise invalid_input("recipient", detail)
    address = parse_address((order.supplier_email_address if recipient is None else recipient) or "", "recipient")
    reply_to = parse_address(order.webshop_email_address, "webshop.email_address")
    return Addressees(reply_to, address, parse_copies(cc, address))
