"""The promotions of each product: one row per product and promotion, ordered by product."""

from __future__ import annotations

from functions.exports.source import DATE, DECIMAL, INTEGER, TEXT, UUID, Column, Source, belongs_to
from shared.tables.product import products, promotion_products, promotions

SOURCE = Source(
    key="product_promotions",
    heading="Promotions of products",
    table=promotion_products.join(products, belongs_to(products, promotion_products.c.product_uuid)).join(
        promotions, belongs_to(promotions, promotion_products.c.promotion_uuid)
    ),
    webshop_uuid=promotion_products.c.webshop_uuid,
    unique=promotion_products.c.uuid,
    order=(products.c.identifier, promotions.c.starts_on),
    parents={"product_uuid": promotion_products.c.product_uuid, "promotion_uuid": promotion_products.c.promotion_uuid},
    columns=(
        Column("identifier", "Identifier", TEXT, products.c.identifier),
        Column("name", "Name", TEXT, products.c.name),
        Column("promotion_name", "Promotion", TEXT, promotions.c.name),
        Column("promotion_status", "Promotion status", TEXT, promotions.c.status),
        Column("starts_on", "Starts on", DATE, promotions.c.starts_on),
        Column("ends_on", "Ends on", DATE, promotions.c.ends_on),
        Column("price", "Price", DECIMAL, products.c.price),
        Column("promotion_price", "Promotion price", DECIMAL, promotion_products.c.promotion_price),
        Column("expected_quantity", "Expected quantity", INTEGER, promotion_products.c.expected_quantity),
        Column("product_uuid", "Product UUID", UUID, promotion_products.c.product_uuid),
        Column("promotion_uuid", "Promotion UUID", UUID, promotion_products.c.promotion_uuid),
    ),
)
