"""The legacy database: the old platform's copy of the products. The reference schema for local stack and tests."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Integer, MetaData, Numeric, Table, Text, UniqueConstraint, Uuid, text

platform = MetaData()

products = Table(
    "products",
    platform,
    Column("webshop_uuid", Uuid, nullable=False),
    Column("identifier", Text, nullable=False),
    Column("name", Text),
    Column("sku_code", Text),
    Column("ean_code", Text),
    Column("article_code", Text),
    Column("price", Numeric(12, 2)),
    Column("cost_price", Numeric(12, 2)),
    Column("stock_on_hand", Integer),
    Column("unlimited_stock", Boolean),
    Column("minimum_stock", Integer),
    Column("maximum_stock", Integer),
    Column("lot_size", Integer),
    Column("lead_time_days", Integer),
    Column("status", Text),
    Column("product_url", Text),
    Column("mirrored_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    UniqueConstraint("webshop_uuid", "identifier", name="products_identifier"),
)
