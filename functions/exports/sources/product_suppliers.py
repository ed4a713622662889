"""The suppliers of each product and their terms: one row per product and supplier, ordered by both."""

from __future__ import annotations

from functions.exports.source import BOOLEAN, CODE, DECIMAL, INTEGER, TEXT, UUID, Column, Source, belongs_to
from shared.tables.product import products, supplier_products, suppliers

SOURCE = Source(
    key="product_suppliers",
    heading="Suppliers of products",
    table=supplier_products.join(products, belongs_to(products, supplier_products.c.product_uuid)).join(
        suppliers, belongs_to(suppliers, supplier_products.c.supplier_uuid)
    ),
    webshop_uuid=supplier_products.c.webshop_uuid,
    unique=supplier_products.c.uuid,
    order=(products.c.identifier, suppliers.c.name),
    parents={"product_uuid": supplier_products.c.product_uuid, "supplier_uuid": supplier_products.c.supplier_uuid},
    columns=(
        Column("identifier", "Identifier", TEXT, products.c.identifier),
        Column("name", "Name", TEXT, products.c.name),
        Column("supplier_name", "Supplier", TEXT, suppliers.c.name),
        Column("supplier_email_address", "Supplier e-mail address", TEXT, suppliers.c.email_address),
        Column("customer_number", "Customer number", TEXT, suppliers.c.customer_number),
        Column("preferred", "Preferred", BOOLEAN, supplier_products.c.preferred),
        Column("supplier_sku_code", "Supplier SKU code", CODE, supplier_products.c.sku_code),
        Column("supplier_article_code", "Supplier article code", CODE, supplier_products.c.article_code),
        Column("cost_price", "Cost price", DECIMAL, supplier_products.c.cost_price),
        Column("minimum_order_quantity", "Minimum order quantity", INTEGER, supplier_products.c.minimum_order_quantity),
        Column("lot_size", "Lot size", INTEGER, supplier_products.c.lot_size),
        Column("lead_time_days", "Lead time (days)", INTEGER, supplier_products.c.lead_time_days),
        Column("product_uuid", "Product UUID", UUID, supplier_products.c.product_uuid),
        Column("supplier_uuid", "Supplier UUID", UUID, supplier_products.c.supplier_uuid),
    ),
)
