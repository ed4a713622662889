"""Fills the databases of the local stack and of the tests with realistic webshops, which are always the same.

The database server computes every row from its number, so product 17 of a webshop is the same on every machine. Nothing
is random, and no row passes through Python. The statements are in the .sql files beside this one. Only dates differ:
they are relative to the day of seeding, so that a running promotion is always running.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product as pairs
from pathlib import Path
from uuid import UUID

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    NullPool,
    Table,
    Text,
    Uuid,
    create_engine,
    delete,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from infra import migrations
from shared.tables import legacy, product

MOST_PRODUCTS = 9_999_999  # an EAN code has seven digits after those of the country and the company
ADVISORY_LOCK = 0x7365_6564  # "seed" in ASCII: only one process at a time seeds a database
STATEMENTS = Path(__file__).parent


@dataclass(frozen=True)
class Tenants:
    """The webshops and users in the seeded databases, which are the same on every machine."""

    webshop_uuid: UUID  # with all features
    user_uuid: UUID  # sees the first webshop and the one without features
    other_webshop_uuid: UUID  # with all features, and some identifiers that the first webshop has too
    other_user_uuid: UUID  # sees only the other webshop
    featureless_webshop_uuid: UUID  # with products and orders, but without features
    buy_order_uuid: UUID  # of the first webshop: open, 25 lines (fewer than 50 products: fewer), supplier with address


TENANTS = Tenants(
    webshop_uuid=UUID("5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"),
    user_uuid=UUID("c0ffee00-52b7-4a57-8a4d-64a7d3c90001"),
    other_webshop_uuid=UUID("5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0002"),
    other_user_uuid=UUID("c0ffee00-52b7-4a57-8a4d-64a7d3c90002"),
    featureless_webshop_uuid=UUID("5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0003"),
    buy_order_uuid=UUID("b0de4000-91c8-4d5e-b6a2-0d9a7e550001"),
)
FEATURES = ("imports", "exports", "buy_orders")


@dataclass(frozen=True)
class Webshop:
    """How many rows of each kind a webshop has."""

    webshop_uuid: UUID
    products: int
    common_products: int  # the identifiers of so many products begin with P-, those of the others with X-
    suppliers: int
    promotions: int
    buy_orders: int
    first_buy_order_uuid: UUID


def plan_webshops(products: int) -> tuple[Webshop, ...]:
    """Returns all webshops. The first one has `products`."""
    return (
        Webshop(TENANTS.webshop_uuid, products, products, 50, 12, 42, TENANTS.buy_order_uuid),
        Webshop(TENANTS.other_webshop_uuid, 200, 120, 6, 3, 5, UUID(int=TENANTS.buy_order_uuid.int + 1)),
        Webshop(TENANTS.featureless_webshop_uuid, 20, 20, 2, 1, 2, UUID(int=TENANTS.buy_order_uuid.int + 2)),
    )


TENANT_ROWS: dict[Table, list[dict[str, object]]] = {
    product.webshops: [
        {
            "uuid": TENANTS.webshop_uuid,
            "name": "Huis & Haard",
            "email_address": "purchasing@huis-en-haard.example",
            "phone_number": "+31 20 555 0142",
            "street": "Prinsengracht 263",
            "postal_code": "1016 GV",
            "city": "Amsterdam",
            "country_code": "NL",
            "vat_number": "NL123456789B01",
            "currency": "EUR",
        },
        {
            "uuid": TENANTS.other_webshop_uuid,
            "name": "Gemütlich Wohnen",
            "email_address": "einkauf@gemuetlich-wohnen.example",
            "phone_number": "+49 221 555 0187",
            "street": "Hohe Straße 12",
            "postal_code": "50667",
            "city": "Köln",
            "country_code": "DE",
            "vat_number": "DE123456789",
            "currency": "EUR",
        },
        {
            "uuid": TENANTS.featureless_webshop_uuid,
            "name": "Corner Shop",
            "email_address": "hello@corner-shop.example",
            "phone_number": None,
            "street": "4 Mill Lane",
            "postal_code": "LS1 4DY",
            "city": "Leeds",
            "country_code": "GB",
            "vat_number": None,
            "currency": "GBP",
        },
    ],
    product.users: [
        {"uuid": TENANTS.user_uuid, "name": "Saskia Jansen", "email_address": "saskia@huis-en-haard.example"},
        {"uuid": TENANTS.other_user_uuid, "name": "Jörg Schäfer", "email_address": "joerg@gemuetlich-wohnen.example"},
    ],
    product.webshop_users: [
        {"webshop_uuid": TENANTS.webshop_uuid, "user_uuid": TENANTS.user_uuid},
        {"webshop_uuid": TENANTS.featureless_webshop_uuid, "user_uuid": TENANTS.user_uuid},
        {"webshop_uuid": TENANTS.other_webshop_uuid, "user_uuid": TENANTS.other_user_uuid},
    ],
    product.webshop_features: [
        {"webshop_uuid": webshop_uuid, "feature": feature}
        for webshop_uuid, feature in pairs((TENANTS.webshop_uuid, TENANTS.other_webshop_uuid), FEATURES)
    ],
}

# Read by the statements; exists as long as their transaction.
webshop_sizes = Table(
    "webshop_sizes",
    MetaData(),
    Column("webshop_uuid", Uuid),
    *(Column(name, Integer) for name in ("products", "common_products", "suppliers", "promotions", "buy_orders")),
    Column("first_buy_order_uuid", Uuid),
    prefixes=["temporary"],
    postgresql_on_commit="drop",
)

# Records how a database was seeded, in the same transaction.
seeded = Table(
    "seeded", MetaData(), Column("products", Integer, nullable=False), Column("edition", Text, nullable=False)
)


def compute_edition() -> str:
    """Computes a hash that changes when the statements, or the tables that they fill, change."""
    sources = (Path(__file__), *sorted(STATEMENTS.glob("seeding_*.sql")), Path(product.__file__), Path(legacy.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def migrate(service_url: str, product_url: str, legacy_url: str) -> None:
    """Creates the missing tables: this project's by migrations, the platform's from the reference schema.

    The URLs have libpq's form: postgresql://user:password@host:port/name.
    """
    with engine_to(service_url).begin() as service_conn:
        migrations.upgrade("service", service_conn)
    with engine_to(product_url).begin() as product_conn:
        migrations.upgrade("product", product_conn)
        product.platform.create_all(product_conn)
    with engine_to(legacy_url).begin() as legacy_conn:
        legacy.platform.create_all(legacy_conn)


def seed(product_url: str, legacy_url: str, products: int) -> Tenants:
    """Fills the platform's tables, with `products` products in the first webshop. Returns the tenants.

    A database that was seeded with the same number and the same statements is not changed, even if its rows have been
    changed since. Otherwise all rows are replaced: imports change products, so adding the missing ones would give an
    unpredictable mixture. Both databases are seeded at the same time, each in one transaction.

    Raises ValueError for a number out of range, and for a database with rows that were not seeded.
    """
    if not 1 <= products <= MOST_PRODUCTS:
        raise ValueError(f"{products} products cannot be seeded. The number must be from 1 to {MOST_PRODUCTS}.")
    with ThreadPoolExecutor() as pool:
        seeding_legacy = pool.submit(fill, legacy_url, legacy.platform, products)
        fill(product_url, product.platform, products)
        seeding_legacy.result()
    return TENANTS


def fill(url: str, platform: MetaData, products: int) -> None:
    """Recreates and fills the tables of `platform`, unless they were seeded with this number and this edition."""
    with engine_to(url).begin() as conn:
        conn.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        seeded.create(conn, checkfirst=True)
        found = conn.execute(select(seeded)).one_or_none()
        if found == (products, compute_edition()):
            return
        if found is None:
            require_no_other_rows(conn, platform)
        platform.drop_all(conn)
        for table in platform.sorted_tables:
            conn.execute(CreateTable(table, include_foreign_key_constraints=()))
        insert_rows(conn, platform, products)
        # Indexes and foreign keys are created after the rows: one check of all rows is faster than one per row.
        for table in platform.sorted_tables:
            for index in table.indexes:
                conn.execute(CreateIndex(index))
            for key in table.foreign_key_constraints:
                conn.execute(AddConstraint(key, isolate_from_table=False))
        conn.execute(delete(seeded))
        conn.execute(insert(seeded).values(products=products, edition=compute_edition()))
    with engine_to(url).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("vacuum (analyze)"))


def require_no_other_rows(conn: Connection, platform: MetaData) -> None:
    """Raises ValueError where one of the tables, which are about to be dropped, has rows."""
    existing = set(inspect(conn).get_table_names())
    for table in platform.sorted_tables:
        if table.name in existing and conn.execute(select(table).limit(1)).first():
            raise ValueError(
                f"The table {table.name} of the database {conn.engine.url.database} holds rows that were not"
                " seeded, and was not changed. Use another database, or empty this one."
            )


def insert_rows(conn: Connection, platform: MetaData, products: int) -> None:
    """Inserts the rows of all tables of `platform`."""
    conn.execute(text("set local jit = off"))  # compiling these statements takes longer than running them
    webshop_sizes.create(conn)
    conn.execute(insert(webshop_sizes), [asdict(webshop) for webshop in plan_webshops(products)])
    scripts = ["seeding_functions.sql", "seeding_legacy.sql"]
    if platform is product.platform:
        scripts = ["seeding_functions.sql", "seeding_product.sql"]
        for table, rows in TENANT_ROWS.items():
            conn.execute(insert(table), rows)
    for script in scripts:
        conn.exec_driver_sql((STATEMENTS / script).read_text(encoding="utf-8"))


def engine_to(url: str) -> Engine:
    """Makes an engine for a libpq URL. It keeps no connection open, so that its database can be copied or dropped."""
    return create_engine(make_url(url).set(drivername="postgresql+pg8000"), poolclass=NullPool)
