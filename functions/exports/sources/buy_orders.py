"""Buy orders: one row per order line. A PDF has one document per order.

Each webshop chooses the identifiers that name the products.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Numeric, Table, func, type_coerce

from functions.exports.identifiers import IDENTIFIERS
from functions.exports.source import CODE, DATE, DECIMAL, INTEGER, TEXT, Column, Document, Party, Source, belongs_to
from shared.tables.product import buy_order_lines, buy_orders, products, supplier_products, suppliers, webshops

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

AMOUNT = type_coerce(buy_order_lines.c.quantity * buy_order_lines.c.unit_price, Numeric(12, 2))

HEADINGS = {
    "WEBSHOP_PRODUCT_SKU_CODE": "SKU code",
    "SUPPLIER_PRODUCT_SKU_CODE": "Supplier SKU code",
    "WEBSHOP_PRODUCT_EAN_CODE": "EAN code",
    "SUPPLIER_PRODUCT_EAN_CODE": "Supplier EAN code",
    "WEBSHOP_PRODUCT_ARTICLE_CODE": "Article code",
    "SUPPLIER_PRODUCT_ARTICLE_CODE": "Supplier article code",
    "WEBSHOP_PRODUCT_NAME": "Product name",
    "SUPPLIER_PRODUCT_NAME": "Supplier product name",
}


def make_identifier_column(identifier: str) -> Column:
    """Returns the column of one identifier, such as SUPPLIER_PRODUCT_SKU_CODE."""
    key = identifier.lower()
    owner, _, code = key.partition("_product_")
    table = {"webshop": products, "supplier": supplier_products}[owner]
    column_type = TEXT if code == "name" else CODE
    return Column(key, HEADINGS[identifier], column_type, table.c[code], identifier=identifier)


def address_lines(table: Table) -> tuple[ColumnElement[Any], ...]:
    """Returns the lines of an address: the street, then postal code, city and country."""
    city = func.concat_ws(" ", table.c.postal_code, table.c.city)
    return (table.c.street, func.concat_ws(", ", city, table.c.country_code))


def format_date(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Formats a date so that readers of every country understand the same day."""
    return func.to_char(value, "YYYY-MM-DD")


SOURCE = Source(
    key="buy_orders",
    heading="Buy orders",
    table=buy_order_lines.join(buy_orders, belongs_to(buy_orders, buy_order_lines.c.buy_order_uuid))
    .join(webshops, webshops.c.uuid == buy_order_lines.c.webshop_uuid)
    .join(suppliers, belongs_to(suppliers, buy_orders.c.supplier_uuid))
    .join(products, belongs_to(products, buy_order_lines.c.product_uuid))
    .outerjoin(supplier_products, belongs_to(supplier_products, buy_order_lines.c.supplier_product_uuid)),
    webshop_uuid=buy_order_lines.c.webshop_uuid,
    unique=buy_order_lines.c.uuid,
    conditions=(buy_orders.c.deleted_at.is_(None),),
    order=(buy_orders.c.number, buy_order_lines.c.line_number),
    parents={
        "buy_order_uuid": buy_order_lines.c.buy_order_uuid,
        "supplier_uuid": buy_orders.c.supplier_uuid,
        "product_uuid": buy_order_lines.c.product_uuid,
    },
    columns=(
        Column("order_number", "Order number", TEXT, buy_orders.c.number),
        Column("order_status", "Order status", TEXT, buy_orders.c.status),
        Column("ordered_on", "Ordered on", DATE, buy_orders.c.ordered_on),
        Column("expected_on", "Expected on", DATE, buy_orders.c.expected_on),
        Column("supplier_name", "Supplier", TEXT, suppliers.c.name),
        Column("line_number", "Line", INTEGER, buy_order_lines.c.line_number),
        *(make_identifier_column(identifier) for identifier in IDENTIFIERS),
        Column("quantity", "Quantity", INTEGER, buy_order_lines.c.quantity),
        Column("delivered_quantity", "Delivered quantity", INTEGER, buy_order_lines.c.delivered_quantity),
        Column("unit_price", "Unit price", DECIMAL, buy_order_lines.c.unit_price),
        Column("amount", "Amount", DECIMAL, AMOUNT),
        Column("currency", "Currency", TEXT, buy_orders.c.currency),
        Column("remarks", "Remarks", TEXT, buy_orders.c.remarks),
    ),
    document=Document(
        title="Purchase order",
        key=buy_orders.c.uuid,
        number=buy_orders.c.number,
        sender=Party(
            heading="From",
            name=webshops.c.name,
            fallbacks=(webshops.c.email_address, webshops.c.uuid),
            lines=(*address_lines(webshops), webshops.c.email_address, webshops.c.phone_number),
        ),
        recipient=Party(
            heading="Supplier",
            name=suppliers.c.name,
            fallbacks=(suppliers.c.email_address, suppliers.c.uuid),
            lines=(
                suppliers.c.contact_name,
                *address_lines(suppliers),
                suppliers.c.email_address,
                suppliers.c.phone_number,
            ),
        ),
        facts={
            "Order number": buy_orders.c.number,
            "Order date": format_date(buy_orders.c.ordered_on),
            "Expected delivery": format_date(buy_orders.c.expected_on),
            "Customer number": suppliers.c.customer_number,
            "Currency": buy_orders.c.currency,
            "Our VAT number": webshops.c.vat_number,
        },
        remarks=buy_orders.c.remarks,
        currency=buy_orders.c.currency,
        amount=AMOUNT,
        line_fallbacks=(products.c.identifier, products.c.uuid),
        columns=frozenset(("line_number", "quantity", "unit_price", "amount", *(key.lower() for key in IDENTIFIERS))),
    ),
)
