"""import_mirror: copies changed products to the legacy database, as they are in the product database now.

It reads the current values instead of taking them from the message, so a duplicate or late message does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import msgspec
from sqlalchemy import Connection, Engine, TextClause, text, update

from shared import clients
from shared.columns import COLUMNS, IDENTIFIER
from shared.delivery import kafka_function
from shared.leases import now
from shared.messages import ProductsUpdated
from shared.tables.product import import_outcomes as batch_results

MIRRORED_COLUMNS = tuple(column for column in COLUMNS if column is not IDENTIFIER)

# Identifiers are passed as one JSON text: a sixth of the cost of encoding a Python list.
INSERT = text("""
    insert into products (webshop_uuid, identifier)
    select :webshop_uuid, value from json_array_elements_text(cast(:identifiers as json)) order by value
    on conflict do nothing
    returning identifier
""")
NAMED_PRODUCTS = """
    webshop_uuid = :webshop_uuid
    and identifier in (select value from json_array_elements_text(cast(:identifiers as json)))
"""
FIND = text(f"select identifier from products where {NAMED_PRODUCTS}")
LOCK = text(f"select identifier from products where {NAMED_PRODUCTS} order by identifier for update")
DELETE = text(f"delete from products where {NAMED_PRODUCTS}")


@kafka_function(ProductsUpdated)
def import_mirror(updated: ProductsUpdated) -> None:
    """Handles `webshop.products.updated`."""
    with clients.legacy_database().begin() as legacy_conn:
        mirror_products(clients.product_database(), legacy_conn, updated)
    with clients.product_database().begin() as product_conn:
        mark_mirrored(product_conn, updated)


def mirror_products(product_db: Engine, legacy_conn: Connection, updated: ProductsUpdated) -> None:
    """Writes all mirrored columns of the products in `updated`, in the caller's transaction.

    The rows are locked before the products are read: of two messages the last to lock reads last and writes last, so
    neither can leave an older value behind.
    """
    keys = {"webshop_uuid": updated.webshop_uuid, "identifiers": sorted_json(updated.identifiers)}
    inserted: set[str] = set()
    if missing := set(updated.identifiers) - set(legacy_conn.execute(FIND, keys).scalars()):
        inserted = set(legacy_conn.execute(INSERT, {**keys, "identifiers": sorted_json(missing)}).scalars())
    legacy_conn.execute(LOCK, keys)
    with product_db.connect() as product_conn:
        rows_json, found = product_conn.execute(read_statement(), keys).one()
    legacy_conn.execute(write_statement(), {"webshop_uuid": updated.webshop_uuid, "rows": rows_json})
    # A product that was deleted meanwhile leaves no empty row behind.
    if deleted := inserted - set(found):
        legacy_conn.execute(DELETE, {**keys, "identifiers": sorted_json(deleted)})


def sorted_json(identifiers: Iterable[str]) -> str:
    """The identifiers as JSON, in the order in which rows are inserted and locked."""
    return msgspec.json.encode(sorted(identifiers)).decode()


def mark_mirrored(conn: Connection, updated: ProductsUpdated) -> None:
    """Records that the batch result is mirrored."""
    columns = batch_results.c
    statement = update(batch_results).where(
        columns.import_uuid == updated.import_uuid,
        columns.run == updated.run,
        columns.first_row == updated.first_row,
        columns.mirrored_at.is_(None),
    )
    conn.execute(statement.values(mirrored_at=now()))


@cache
def read_statement() -> TextClause:
    """The products as they are now: as one JSON text, which is passed on unchanged, and their identifiers."""
    columns = ", ".join(column.key for column in COLUMNS)
    return text(f"""
        select cast(coalesce(json_agg(found), '[]') as text), coalesce(array_agg(found.identifier), '{{}}')
        from (select {columns} from products where {NAMED_PRODUCTS}) found
    """)


@cache
def write_statement() -> TextClause:
    """Sets every mirrored column. Every name in the text comes from the column table."""
    values = ", ".join(f"{column.key} = r.{column.key}" for column in MIRRORED_COLUMNS)
    types = ", ".join(f"{column.key} {column.kind.sql_type}" for column in COLUMNS)
    return text(f"""
        update products p set {values}, mirrored_at = clock_timestamp()
        from json_to_recordset(cast(:rows as json)) as r ({types})
        where p.webshop_uuid = :webshop_uuid and p.identifier = r.identifier
    """)
