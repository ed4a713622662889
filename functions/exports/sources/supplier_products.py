"""The products of each supplier, with the supplier's own names and codes: one row per supplier and product."""

from __future__ import annotations

from functions.exports.source import BOOLEAN, CODE, DECIMAL, INTEGER, TEXT, UUID, Column, Source, belongs_to
from shared.tables.product import products, supplier_products, suppliers

SOURCE = Source(
    key="supplier_products",
    heading="Products of suppliers",
    table=supplier_products.join(suppliers, belongs_to(suppliers, supplier_products.c.supplier_uuid)).join(
        products, belongs_to(products, supplier_products.c.product_uuid)
    ),
    webshop_uuid=supplier_products.c.webshop_uuid,
    unique=supplier_products.c.uuid,
    order=(suppliers.c.name, products.c.identifier),
    parents={"supplier_uuid": supplier_products.c.supplier_uuid, "product_uuid": supplier_products.c.product_uuid},
    columns=(
        Column("supplier_name", "Supplier", TEXT, suppliers.c.name),
        Column("supplier_product_name", "Supplier product name", TEXT, supplier_products.c.name),
        Column("supplier_sku_code", "Supplier SKU code", CODE, supplier_products.c.sku_code),
        Column("supplier_ean_code", "Supplier EAN code", CODE, supplier_products.c.ean_code),
        Column("supplier_article_code", "Supplier article code", CODE, supplier_products.c.article_code),
        Column("cost_price", "Cost price", DECIMAL, supplier_products.c.cost_price),
        Column("minimum_order_quantity", "Minimum order quantity", INTEGER, supplier_products.c.minimum_order_quantity),
        Column("lot_size", "Lot size", INTEGER, supplier_products.c.lot_size),
        Column("lead_time_days", "Lead time (days)", INTEGER, supplier_products.c.lead_time_days),
        Column("preferred", "Preferred", BOOLEAN, supplier_products.c.preferred),
        Column("identifier", "Identifier", TEXT, products.c.identifier),
        Column("name", "Name", TEXT, products.c.name),
        Column("sku_code", "SKU code", CODE, products.c.sku_code),
        Column("ean_code", "EAN code", CODE, products.c.ean_code),
        Column("article_code", "Article code", CODE, products.c.article_code),
        Column("price", "Price", DECIMAL, products.c.price),
        Column("stock_on_hand", "Stock on hand", INTEGER, products.c.stock_on_hand),
        Column("supplier_uuid", "Supplier UUID", UUID, supplier_products.c.supplier_uuid),
        Column("product_uuid", "Product UUID", UUID, supplier_products.c.product_uuid),
    ),
)
