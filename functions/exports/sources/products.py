"""The products. The columns of an import have the same names and types here, so an export can be imported again."""

from __future__ import annotations

from functions.exports.source import BOOLEAN, CODE, DECIMAL, INTEGER, TEXT, TIMESTAMP, UUID, Column, Source
from shared.columns import COLUMNS, Kind
from shared.tables.product import products

TYPES = {
    Kind.TEXT: TEXT,
    Kind.CODE: CODE,
    Kind.EAN: CODE,
    Kind.URL: TEXT,
    Kind.CHOICE: TEXT,
    Kind.DECIMAL: DECIMAL,
    Kind.INTEGER: INTEGER,
    Kind.BOOLEAN: BOOLEAN,
}

SOURCE = Source(
    key="products",
    heading="Products",
    table=products,
    webshop_uuid=products.c.webshop_uuid,
    unique=products.c.identifier,
    columns=(
        *(Column(column.key, column.heading, TYPES[column.kind], products.c[column.key]) for column in COLUMNS),
        Column("uuid", "UUID", UUID, products.c.uuid),
        Column("created_at", "Created at", TIMESTAMP, products.c.created_at),
        Column("updated_at", "Updated at", TIMESTAMP, products.c.updated_at),
    ),
)
