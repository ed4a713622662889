"""The products still to be delivered: every line of an open buy order that was not delivered in full."""

from __future__ import annotations

from functions.exports.source import CODE, DATE, DECIMAL, INTEGER, TEXT, UUID, Column, Source, belongs_to
from shared.tables.product import buy_order_lines, buy_orders, products, suppliers

UNDELIVERED_QUANTITY = buy_order_lines.c.quantity - buy_order_lines.c.delivered_quantity

SOURCE = Source(
    key="undelivered_products",
    heading="Undelivered products",
    table=buy_order_lines.join(buy_orders, belongs_to(buy_orders, buy_order_lines.c.buy_order_uuid))
    .join(products, belongs_to(products, buy_order_lines.c.product_uuid))
    .join(suppliers, belongs_to(suppliers, buy_orders.c.supplier_uuid)),
    webshop_uuid=buy_order_lines.c.webshop_uuid,
    unique=buy_order_lines.c.uuid,
    conditions=(
        UNDELIVERED_QUANTITY > 0,
        buy_orders.c.status.in_(("OPEN", "PARTIALLY_DELIVERED")),
        buy_orders.c.deleted_at.is_(None),
    ),
    order=(products.c.identifier, buy_orders.c.expected_on, buy_orders.c.number, buy_order_lines.c.line_number),
    parents={
        "product_uuid": buy_order_lines.c.product_uuid,
        "supplier_uuid": buy_orders.c.supplier_uuid,
        "buy_order_uuid": buy_order_lines.c.buy_order_uuid,
    },
    columns=(
        Column("identifier", "Identifier", TEXT, products.c.identifier),
        Column("name", "Name", TEXT, products.c.name),
        Column("sku_code", "SKU code", CODE, products.c.sku_code),
        Column("ean_code", "EAN code", CODE, products.c.ean_code),
        Column("article_code", "Article code", CODE, products.c.article_code),
        Column("supplier_name", "Supplier", TEXT, suppliers.c.name),
        Column("order_number", "Order number", TEXT, buy_orders.c.number),
        Column("order_status", "Order status", TEXT, buy_orders.c.status),
        Column("ordered_on", "Ordered on", DATE, buy_orders.c.ordered_on),
        Column("expected_on", "Expected on", DATE, buy_orders.c.expected_on),
        Column("quantity", "Ordered quantity", INTEGER, buy_order_lines.c.quantity),
        Column("delivered_quantity", "Delivered quantity", INTEGER, buy_order_lines.c.delivered_quantity),
        Column("undelivered_quantity", "Undelivered quantity", INTEGER, UNDELIVERED_QUANTITY),
        Column("unit_price", "Unit price", DECIMAL, buy_order_lines.c.unit_price),
        Column("currency", "Currency", TEXT, buy_orders.c.currency),
        Column("product_uuid", "Product UUID", UUID, buy_order_lines.c.product_uuid),
        Column("supplier_uuid", "Supplier UUID", UUID, buy_orders.c.supplier_uuid),
        Column("buy_order_uuid", "Buy order UUID", UUID, buy_order_lines.c.buy_order_uuid),
    ),
)
