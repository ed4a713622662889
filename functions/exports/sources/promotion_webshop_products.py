"""The products of each promotion, with codes and stock: one row per promotion and product, ordered by promotion."""

from __future__ import annotations

from functions.exports.source import CODE, DATE, DECIMAL, INTEGER, TEXT, UUID, Column, Source, belongs_to
from shared.tables.product import products, promotion_products, promotions

SOURCE = Source(
    key="promotion_webshop_products",
    heading="Products of promotions",
    table=promotion_products.join(promotions, belongs_to(promotions, promotion_products.c.promotion_uuid)).join(
        products, belongs_to(products, promotion_products.c.product_uuid)
    ),
    webshop_uuid=promotion_products.c.webshop_uuid,
    unique=promotion_products.c.uuid,
    order=(promotions.c.starts_on, promotions.c.name, products.c.identifier),
    parents={"promotion_uuid": promotion_products.c.promotion_uuid, "product_uuid": promotion_products.c.product_uuid},
    columns=(
        Column("promotion_name", "Promotion", TEXT, promotions.c.name),
        Column("promotion_status", "Promotion status", TEXT, promotions.c.status),
        Column("starts_on", "Starts on", DATE, promotions.c.starts_on),
        Column("ends_on", "Ends on", DATE, promotions.c.ends_on),
        Column("identifier", "Identifier", TEXT, products.c.identifier),
        Column("name", "Name", TEXT, products.c.name),
        Column("sku_code", "SKU code", CODE, products.c.sku_code),
        Column("ean_code", "EAN code", CODE, products.c.ean_code),
        Column("article_code", "Article code", CODE, products.c.article_code),
        Column("price", "Price", DECIMAL, products.c.price),
        Column("promotion_price", "Promotion price", DECIMAL, promotion_products.c.promotion_price),
        Column("expected_quantity", "Expected quantity", INTEGER, promotion_products.c.expected_quantity),
        Column("stock_on_hand", "Stock on hand", INTEGER, products.c.stock_on_hand),
        Column("promotion_uuid", "Promotion UUID", UUID, promotion_products.c.promotion_uuid),
        Column("product_uuid", "Product UUID", UUID, promotion_products.c.product_uuid),
    ),
)
