"""The product database: the platform's tables, which this project reads and writes, and two tables of our own.

The platform's tables are a reference schema for the local stack and the tests; only ours have migrations in
infra/migrations/product.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

ours = MetaData()
platform = MetaData()

PRIMARY_KEY_OF_OUTCOMES = "import_outcomes_pkey"

import_outcomes = Table(
    "import_outcomes",
    ours,
    Column("import_uuid", Uuid, nullable=False),
    Column("run", Integer, nullable=False),
    Column("first_row", Integer, nullable=False),
    Column("webshop_uuid", Uuid, nullable=False),
    Column("updated", Integer, nullable=False),
    Column("unchanged", Integer, nullable=False),
    Column("refused", JSONB, nullable=False),  # a list of shared.messages.RefusedRow
    Column("identifiers", JSONB, nullable=False),  # of the products that changed
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    Column("mirrored_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("import_uuid", "run", "first_row", name=PRIMARY_KEY_OF_OUTCOMES),
    Column(
        "mirror_due_at", DateTime(timezone=True), nullable=False
    ),  # if it is not mirrored by then, sweep sends it again
    Index("import_outcomes_to_mirror", "mirror_due_at", postgresql_where=text("mirrored_at is null")),
    Index("import_outcomes_by_age", "applied_at", postgresql_using="brin"),
)

import_gates = Table(
    "import_gates",
    ours,
    Column("import_uuid", Uuid, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),  # why it was closed, for the import's final state
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
)

webshops = Table(
    "webshops",
    platform,
    Column("uuid", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email_address", Text, nullable=False),
    Column("phone_number", Text),
    Column("street", Text),
    Column("postal_code", Text),
    Column("city", Text),
    Column("country_code", Text),  # ISO 3166-1 alpha-2
    Column("vat_number", Text),
    Column("currency", Text, nullable=False),  # ISO 4217
)

users = Table(
    "users",
    platform,
    Column("uuid", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("email_address", Text, nullable=False),
)

webshop_users = Table(
    "webshop_users",
    platform,
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("user_uuid", Uuid, ForeignKey("users.uuid"), nullable=False),
    PrimaryKeyConstraint("webshop_uuid", "user_uuid"),
)

webshop_features = Table(
    "webshop_features",
    platform,
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("feature", Text, nullable=False),  # "imports", "exports", "buy_orders"
    PrimaryKeyConstraint("webshop_uuid", "feature"),
)

products = Table(
    "products",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("identifier", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sku_code", Text),
    Column("ean_code", Text),
    Column("article_code", Text),
    Column("price", Numeric(12, 2)),
    Column("cost_price", Numeric(12, 2)),
    Column("stock_on_hand", Integer, nullable=False, server_default="0"),
    Column("unlimited_stock", Boolean, nullable=False, server_default="false"),
    Column("minimum_stock", Integer),
    Column("maximum_stock", Integer),
    Column("lot_size", Integer),
    Column("lead_time_days", Integer),
    Column("status", Text, nullable=False, server_default="enabled"),
    Column("product_url", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    UniqueConstraint("webshop_uuid", "identifier", name="products_identifier"),
    CheckConstraint("status in ('enabled', 'disabled')", name="products_status"),
    CheckConstraint("maximum_stock >= minimum_stock", name="products_stock_levels"),
    CheckConstraint("price >= 0 and cost_price >= 0", name="products_prices"),
)

suppliers = Table(
    "suppliers",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("name", Text, nullable=False),
    Column("email_address", Text),
    Column("phone_number", Text),
    Column("contact_name", Text),
    Column("street", Text),
    Column("postal_code", Text),
    Column("city", Text),
    Column("country_code", Text),
    Column("customer_number", Text),  # the webshop's number at the supplier
    Column("lead_time_days", Integer),
    Column("minimum_order_value", Numeric(12, 2)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Index("suppliers_of_webshop", "webshop_uuid"),
)

supplier_products = Table(
    "supplier_products",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("supplier_uuid", Uuid, ForeignKey("suppliers.uuid"), nullable=False),
    Column("product_uuid", Uuid, ForeignKey("products.uuid"), nullable=False),
    Column("name", Text),
    Column("sku_code", Text),
    Column("ean_code", Text),
    Column("article_code", Text),
    Column("cost_price", Numeric(12, 2)),
    Column("minimum_order_quantity", Integer),
    Column("lot_size", Integer),
    Column("lead_time_days", Integer),
    Column("preferred", Boolean, nullable=False, server_default="false"),
    UniqueConstraint("supplier_uuid", "product_uuid", name="supplier_products_pair"),
    Index("supplier_products_of_webshop", "webshop_uuid"),
    Index("supplier_products_of_product", "product_uuid"),
)

promotions = Table(
    "promotions",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("name", Text, nullable=False),
    Column("starts_on", Date, nullable=False),
    Column("ends_on", Date, nullable=False),
    Column("discount_percent", Numeric(5, 2)),
    Column("status", Text, nullable=False),  # "planned", "running", "ended"
    Index("promotions_of_webshop", "webshop_uuid"),
)

promotion_products = Table(
    "promotion_products",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("promotion_uuid", Uuid, ForeignKey("promotions.uuid"), nullable=False),
    Column("product_uuid", Uuid, ForeignKey("products.uuid"), nullable=False),
    Column("promotion_price", Numeric(12, 2)),
    Column("expected_quantity", Integer),
    UniqueConstraint("promotion_uuid", "product_uuid", name="promotion_products_pair"),
    Index("promotion_products_of_webshop", "webshop_uuid"),
    Index("promotion_products_of_product", "product_uuid"),
)

buy_orders = Table(
    "buy_orders",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("supplier_uuid", Uuid, ForeignKey("suppliers.uuid"), nullable=False),
    Column("number", Text, nullable=False),  # as printed on the order, unique within the webshop
    Column("status", Text, nullable=False),  # "OPEN", "PARTIALLY_DELIVERED", "DELIVERED", "CANCELLED"
    Column("currency", Text, nullable=False),  # ISO 4217
    Column("ordered_on", Date, nullable=False),
    Column("expected_on", Date),
    Column("remarks", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("deleted_at", DateTime(timezone=True)),
    UniqueConstraint("webshop_uuid", "number", name="buy_orders_number"),
    Index("buy_orders_of_supplier", "supplier_uuid"),
)

buy_order_lines = Table(
    "buy_order_lines",
    platform,
    Column("uuid", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("webshop_uuid", Uuid, ForeignKey("webshops.uuid"), nullable=False),
    Column("buy_order_uuid", Uuid, ForeignKey("buy_orders.uuid"), nullable=False),
    Column("product_uuid", Uuid, ForeignKey("products.uuid"), nullable=False),
    Column("supplier_product_uuid", Uuid, ForeignKey("supplier_products.uuid")),
    Column("line_number", Integer, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("delivered_quantity", Integer, nullable=False, server_default="0"),
    Column("unit_price", Numeric(12, 2), nullable=False),
    UniqueConstraint("buy_order_uuid", "line_number", name="buy_order_lines_number"),
    Index("buy_order_lines_of_webshop", "webshop_uuid"),
)
