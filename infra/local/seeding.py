"""What is in the databases of the local stack and of the tests: believable webshops, always the same ones.

The server makes everything from numbers (product 17 of a webshop is the same on every machine), set by set: nothing is
drawn by chance and no row passes through Python. The statements stand in the .sql files beside this one. Only dates
move: they count from the day of seeding, so that a promotion that runs is running.
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

MOST_PRODUCTS = 9_999_999  # an EAN code has room for seven digits after its country and company
ADVISORY_LOCK = 0x7365_6564  # "seed": two that seed one database take turns
STATEMENTS = Path(__file__).parent


@dataclass(frozen=True)
class Tenants:
    """Who is in the seeded databases: the same on every machine."""

    webshop_uuid: UUID  # with all features
    user_uuid: UUID  # sees the first webshop and the one without features
    other_webshop_uuid: UUID  # with all features, and some identifiers that are the first's too
    other_user_uuid: UUID  # sees the other webshop alone
    featureless_webshop_uuid: UUID  # with products and orders, but without any feature
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
    """How much of everything a webshop has."""

    webshop_uuid: UUID
    products: int
    common_products: int  # of them, the first so many are called P-…, the rest X-…
    suppliers: int
    promotions: int
    buy_orders: int
    first_buy_order_uuid: UUID


def webshops(products: int) -> tuple[Webshop, ...]:
    """All webshops, the first with so many products."""
    return (
        Webshop(TENANTS.webshop_uuid, products, products, 50, 12, 42, TENANTS.buy_order_uuid),
        Webshop(TENANTS.other_webshop_uuid, 200, 120, 6, 3, 5, UUID(int=TENANTS.buy_order_uuid.int + 1)),
        Webshop(TENANTS.featureless_webshop_uuid, 20, 20, 2, 1, 2, UUID(int=TENANTS.buy_order_uuid.int + 2)),
    )


PEOPLE: dict[Table, list[dict[str, object]]] = {
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

# For the statements alone: as long as their transaction.
webshop_sizes = Table(
    "webshop_sizes",
    MetaData(),
    Column("webshop_uuid", Uuid),
    *(Column(name, Integer) for name in ("products", "common_products", "suppliers", "promotions", "buy_orders")),
    Column("first_buy_order_uuid", Uuid),
    prefixes=["temporary"],
    postgresql_on_commit="drop",
)

# What a database was seeded with, written in the transaction that seeded it.
seeded = Table(
    "seeded", MetaData(), Column("products", Integer, nullable=False), Column("edition", Text, nullable=False)
)


def edition() -> str:
    """Changes whenever a seeded database would look different: with the statements, and with the tables they fill."""
    sources = (Path(__file__), *sorted(STATEMENTS.glob("seeding_*.sql")), Path(product.__file__), Path(legacy.__file__))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def migrate(service_url: str, product_url: str, legacy_url: str) -> None:
    """Makes all tables that are missing: ours by their migrations, the platform's from the reference schema.

    The URLs are libpq's: postgresql://user:password@host:port/name.
    """
    with engine_to(service_url).begin() as service_database:
        migrations.upgrade("service", service_database)
    with engine_to(product_url).begin() as product_database:
        migrations.upgrade("product", product_database)
        product.platform.create_all(product_database)
    with engine_to(legacy_url).begin() as legacy_database:
        legacy.platform.create_all(legacy_database)


def seed(product_url: str, legacy_url: str, products: int) -> Tenants:
    """Fills the platform's tables, with `products` of them in the first webshop, and says who is in there.

    A database that was seeded with as many is left as it is, whatever became of its rows since. With another number,
    or from another edition of the statements, it is seeded anew: imports change products, so topping up would leave a
    mixture that nobody can predict. Both databases are seeded at the same time, each in one transaction.

    Raises ValueError for a number that is out of range, and for a database with rows that do not come from here.
    """
    if not 1 <= products <= MOST_PRODUCTS:
        raise ValueError(f"{products} products cannot be seeded: from 1 to {MOST_PRODUCTS} can.")
    with ThreadPoolExecutor() as pool:
        seeding_legacy = pool.submit(fill, legacy_url, legacy.platform, products)
        fill(product_url, product.platform, products)
        seeding_legacy.result()
    return TENANTS


def fill(url: str, platform: MetaData, products: int) -> None:
    """Makes the tables of `platform` anew, full, unless they are those of this number of products and this edition."""
    with engine_to(url).begin() as database:
        database.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        seeded.create(database, checkfirst=True)
        found = database.execute(select(seeded)).one_or_none()
        if found == (products, edition()):
            return
        if found is None:
            refuse_rows_of_others(database, platform)
        platform.drop_all(database)
        for table in platform.sorted_tables:
            database.execute(CreateTable(table, include_foreign_key_constraints=()))
        load(database, platform, products)
        # Indexes and foreign keys over what is there already: checked at once, not row by row.
        for table in platform.sorted_tables:
            for index in table.indexes:
                database.execute(CreateIndex(index))
            for key in table.foreign_key_constraints:
                database.execute(AddConstraint(key, isolate_from_table=False))
        database.execute(delete(seeded))
        database.execute(insert(seeded).values(products=products, edition=edition()))
    with engine_to(url).connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        database.execute(text("vacuum (analyze)"))


def refuse_rows_of_others(database: Connection, platform: MetaData) -> None:
    """Raises ValueError where one of the tables, about to be dropped, holds rows."""
    there = set(inspect(database).get_table_names())
    for table in platform.sorted_tables:
        if table.name in there and database.execute(select(table).limit(1)).first():
            raise ValueError(
                f"The table {table.name} of the database {database.engine.url.database} holds rows that were not"
                " seeded. It is left alone: name another database, or empty this one."
            )


def load(database: Connection, platform: MetaData, products: int) -> None:
    """Fills the tables of `platform`."""
    database.execute(text("set local jit = off"))  # compiling these statements takes longer than running them
    webshop_sizes.create(database)
    database.execute(insert(webshop_sizes), [asdict(webshop) for webshop in webshops(products)])
    scripts = ["seeding_functions.sql", "seeding_legacy.sql"]
    if platform is product.platform:
        scripts = ["seeding_functions.sql", "seeding_product.sql"]
        for table, rows in PEOPLE.items():
            database.execute(insert(table), rows)
    for script in scripts:
        database.exec_driver_sql((STATEMENTS / script).read_text(encoding="utf-8"))


def engine_to(url: str) -> Engine:
    """An engine over pg8000 for a libpq URL; it keeps no connection open, so its database can be copied or dropped."""
    return create_engine(make_url(url).set(drivername="postgresql+pg8000"), poolclass=NullPool)
