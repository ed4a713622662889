"""The promotions, with the number of products in each."""

from __future__ import annotations

from sqlalchemy import func, select

from functions.exports.source import DATE, DECIMAL, INTEGER, TEXT, UUID, Column, Source
from shared.tables.product import promotion_products, promotions

PRODUCT_COUNT = (
    select(func.count())
    .where(
        promotion_products.c.promotion_uuid == promotions.c.uuid,
        promotion_products.c.webshop_uuid == promotions.c.webshop_uuid,
    )
    .scalar_subquery()
)

SOURCE = Source(
    key="promotions",
    heading="Promotions",
    table=promotions,
    webshop_uuid=promotions.c.webshop_uuid,
    unique=promotions.c.uuid,
    order=(promotions.c.starts_on, promotions.c.name),
    columns=(
        Column("name", "Name", TEXT, promotions.c.name),
        Column("status", "Status", TEXT, promotions.c.status),
        Column("starts_on", "Starts on", DATE, promotions.c.starts_on),
        Column("ends_on", "Ends on", DATE, promotions.c.ends_on),
        Column("discount_percent", "Discount (%)", DECIMAL, promotions.c.discount_percent),
        Column("products", "Products", INTEGER, PRODUCT_COUNT, filterable=False),
        Column("uuid", "UUID", UUID, promotions.c.uuid),
    ),
)
