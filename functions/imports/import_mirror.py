"""import_mirror: brings changed products of the legacy database to what they are in the product database.

It writes what the products are now, not what they were when the message was sent, so a message that comes again or late
does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import msgspec
from sqlalchemy import Connection, Engine, TextClause, text

from shared import clients
from shared.columns import COLUMNS, IDENTIFIER
from shared.delivery import kafka_function
from shared.messages import ProductsUpdated

MIRRORED = tuple(column for column in COLUMNS if column is not IDENTIFIER)


@kafka_function(ProductsUpdated)
def import_mirror(updated: ProductsUpdated) -> None:
    """Called for `webshop.products.updated`."""
    with clients.legacy_database().begin() as legacy:
        mirror(clients.product_database(), legacy, updated)
    with clients.product_database().begin() as product:
        mark_mirrored(product, updated)


def mirror(product: Engine, legacy: Connection, updated: ProductsUpdated) -> None:
    """Writes all mirrored columns of the products in `updated`, in the transaction of `legacy`.

    The rows are locked before the products are read: of two messages the last to lock reads last and writes last, so
    none can leave an older value behind.
    """
    keys = {"webshop_uuid": updated.webshop_uuid, "identifiers": as_json(updated.identifiers)}
    inserted: set[str] = set()
    if missing := set(updated.identifiers) - set(legacy.execute(FIND, keys).scalars()):
        inserted = set(legacy.execute(INSERT, {**keys, "identifiers": as_json(missing)}).scalars())
    legacy.execute(LOCK, keys)
    with product.connect() as reading:
        rows, found = reading.execute(read_statement(), keys).one()
    legacy.execute(write_statement(), {"webshop_uuid": updated.webshop_uuid, "rows": rows})
    if gone := inserted - set(found):
        legacy.execute(REMOVE, {**keys, "identifiers": as_json(gone)})


def as_json(identifiers: Iterable[str]) -> str:
    """The identifiers in the order that rows are locked and inserted in."""
    return msgspec.json.encode(sorted(identifiers)).decode()


def mark_mirrored(product: Connection, updated: ProductsUpdated) -> None:
    """Records that the outcome needs no mirroring any more."""
    statement = text("""
        update import_outcomes set mirrored_at = clock_timestamp()
        where import_uuid = :import_uuid and run = :run and first_row = :first_row and mirrored_at is null
    """)
    key = {"import_uuid": updated.import_uuid, "run": updated.run, "first_row": updated.first_row}
    product.execute(statement, key)


INSERT = text("""
    insert into products (webshop_uuid, identifier)
    select :webshop_uuid, value from json_array_elements_text(cast(:identifiers as json)) order by value
    on conflict do nothing
    returning identifier
""")
THEIR_ROWS = """
    select identifier from products
    where webshop_uuid = :webshop_uuid
      and identifier in (select value from json_array_elements_text(cast(:identifiers as json)))
"""
FIND = text(THEIR_ROWS)
LOCK = text(f"{THEIR_ROWS} order by identifier for update")
# A product that was removed meanwhile leaves no empty row behind where there was none before.
REMOVE = text("""
    delete from products
    where webshop_uuid = :webshop_uuid
      and identifier in (select value from json_array_elements_text(cast(:identifiers as json)))
""")


@cache
def read_statement() -> TextClause:
    """The products as they are now, as one JSON text that goes to the other server as it is; and which there are."""
    columns = ", ".join(column.key for column in COLUMNS)
    return text(f"""
        select cast(coalesce(json_agg(found), '[]') as text), coalesce(array_agg(found.identifier), '{{}}')
        from (
            select {columns} from products
            where webshop_uuid = :webshop_uuid
              and identifier in (select value from json_array_elements_text(cast(:identifiers as json)))
        ) found
    """)


@cache
def write_statement() -> TextClause:
    """Sets every mirrored column. Every name comes from the column table."""
    values = ", ".join(f"{column.key} = r.{column.key}" for column in MIRRORED)
    types = ", ".join(f"{column.key} {column.kind.sql_type}" for column in COLUMNS)
    return text(f"""
        update products p set {values}, mirrored_at = clock_timestamp()
        from json_to_recordset(cast(:rows as json)) as r ({types})
        where p.webshop_uuid = :webshop_uuid and p.identifier = r.identifier
    """)
