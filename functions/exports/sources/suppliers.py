"""The suppliers, with the number of open buy orders at each."""

from __future__ import annotations

from sqlalchemy import func, select

from functions.exports.source import DECIMAL, INTEGER, TEXT, TIMESTAMP, UUID, Column, Source
from shared.tables.product import buy_orders, suppliers

OPEN_ORDER_COUNT = (
    select(func.count())
    .where(
        buy_orders.c.supplier_uuid == suppliers.c.uuid,
        buy_orders.c.webshop_uuid == suppliers.c.webshop_uuid,
        buy_orders.c.status.in_(("OPEN", "PARTIALLY_DELIVERED")),
        buy_orders.c.deleted_at.is_(None),
    )
    .scalar_subquery()
)

SOURCE = Source(
    key="suppliers",
    heading="Suppliers",
    table=suppliers,
    webshop_uuid=suppliers.c.webshop_uuid,
    unique=suppliers.c.uuid,
    order=(suppliers.c.name,),
    columns=(
        Column("name", "Name", TEXT, suppliers.c.name),
        Column("email_address", "E-mail address", TEXT, suppliers.c.email_address),
        Column("phone_number", "Phone number", TEXT, suppliers.c.phone_number),
        Column("contact_name", "Contact", TEXT, suppliers.c.contact_name),
        Column("street", "Street", TEXT, suppliers.c.street),
        Column("postal_code", "Postal code", TEXT, suppliers.c.postal_code),
        Column("city", "City", TEXT, suppliers.c.city),
        Column("country_code", "Country", TEXT, suppliers.c.country_code),
        Column("customer_number", "Customer number", TEXT, suppliers.c.customer_number),
        Column("lead_time_days", "Lead time (days)", INTEGER, suppliers.c.lead_time_days),
        Column("minimum_order_value", "Minimum order value", DECIMAL, suppliers.c.minimum_order_value),
        Column("open_orders", "Open buy orders", INTEGER, OPEN_ORDER_COUNT, filterable=False),
        Column("uuid", "UUID", UUID, suppliers.c.uuid),
        Column("created_at", "Created at", TIMESTAMP, suppliers.c.created_at),
    ),
)
