"""What is in the databases of the local stack and of the tests: believable webshops, always the same ones.

Everything is made by the server from numbers (product 17 of a webshop is the same on every machine), set by set:
nothing is drawn by chance and no row passes through Python. Only dates move: they count from the day of seeding, so
that a promotion that runs is running.
"""

from __future__ import annotations

import hashlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
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
    create_engine,
    delete,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable

from infra import migrations
from infra.local import seeding_sql as sql
from shared.tables import legacy, product

MOST_PRODUCTS = 9_999_999  # an EAN code has room for seven digits after the country and company
ADVISORY_LOCK = 0x73_6565_6473  # "seeds": two that seed one database take turns


@dataclass(frozen=True)
class Tenants:
    """Who is in the seeded databases: the same on every machine."""

    webshop_uuid: UUID  # with all features
    user_uuid: UUID  # sees the first webshop and the one without features
    other_webshop_uuid: UUID  # with all features, and some identifiers that are the first's too
    other_user_uuid: UUID  # sees the other webshop alone
    featureless_webshop_uuid: UUID  # with products, but without any feature
    buy_order_uuid: UUID  # of the first webshop, open, with lines and a supplier that has an e-mail address


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
    """How much of everything a webshop has: parameters of the statements in seeding_sql."""

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


# What a database was seeded with, written in the transaction that seeded it.
marker = MetaData()
seeded = Table("seeded", marker, Column("products", Integer, nullable=False), Column("edition", Text, nullable=False))


def edition() -> str:
    """Changes whenever a seeded database would look different: the statements, or the tables they fill."""
    sources = (inspect.getsource(module) for module in (inspect.getmodule(edition), sql, product, legacy) if module)
    return hashlib.sha256("".join(sources).encode()).hexdigest()


def migrate(service_url: str, product_url: str, legacy_url: str) -> None:
    """Makes all tables that are missing: ours by their migrations, the platform's from the reference schema.

    The URLs are libpq's: postgresql://user:password@host:port/name. A database that is up to date takes 0.05 s.
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
    or by an older edition of this module, it is emptied and seeded anew: imports change products, so topping up would
    leave a mixture that nobody can predict. Both databases are seeded at the same time, each in one transaction.

    Raises ValueError for a number that is out of range, and for a database with webshops that do not come from here.
    """
    if not 1 <= products <= MOST_PRODUCTS:
        raise ValueError(f"{products} products cannot be seeded: from 1 to {MOST_PRODUCTS} can.")
    with ThreadPoolExecutor() as pool:
        other = pool.submit(fill, legacy_url, legacy.platform, products)
        fill(product_url, product.platform, products)
        other.result()
    return TENANTS


def fill(url: str, platform: MetaData, products: int) -> None:
    """Makes the tables of `platform` anew, full, unless they are those of this number of products and this edition."""
    with engine_to(url).begin() as database:
        database.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        marker.create_all(database)
        found = database.execute(select(seeded)).one_or_none()
        if found == (products, edition()):
            return
        if found is None:
            refuse_rows_of_others(database, platform)
        platform.drop_all(database)
        for table in platform.sorted_tables:
            database.execute(CreateTable(table, include_foreign_key_constraints=()))
        load(database, platform, products)
        # Indexes and keys on what is there already: half the time of checking them row by row.
        for table in platform.sorted_tables:
            for index in table.indexes:
                database.execute(CreateIndex(index))
            for key in table.foreign_key_constraints:
                database.execute(AddConstraint(key))
        database.execute(delete(seeded))
        database.execute(insert(seeded).values(products=products, edition=edition()))
    with engine_to(url).connect().execution_options(isolation_level="AUTOCOMMIT") as database:
        database.execute(text("vacuum (analyze)"))


def refuse_rows_of_others(database: Connection, platform: MetaData) -> None:
    """Raises ValueError where one of the tables, about to be dropped, holds rows."""
    for table in platform.sorted_tables:
        if database.execute(select(table).limit(1)).first():
            name = f"{database.engine.url.host}/{database.engine.url.database}"
            raise ValueError(
                f"The table {table.name} of {name} holds rows that are not seeded ones. It is left alone: name an"
                " empty database, or empty this one."
            )


def load(database: Connection, platform: MetaData, products: int) -> None:
    """Runs the statements that fill the tables of `platform`."""
    database.execute(text("set local jit = off"))  # compiling these statements takes longer than running them
    for statement in sql.FUNCTIONS:
        run(database, statement)
    statements: tuple[str, ...] = (sql.LEGACY_PRODUCTS,)
    if platform is product.platform:
        run(database, sql.WEBSHOPS_AND_USERS, **asdict(TENANTS), features=list(FEATURES))
        statements = sql.PLATFORM
    for statement in statements:
        for webshop in webshops(products):
            run(database, statement, **asdict(webshop))


def run(database: Connection, statement: str, **parameters: object) -> None:
    """Executes one statement of seeding_sql."""
    # pg8000 takes a percent sign for the start of a placeholder, unless there are two.
    database.execute(text(statement.replace("%", "%%")), parameters)


def engine_to(url: str) -> Engine:
    """An engine over pg8000 for a libpq URL; it keeps no connection open, so its database can be copied or dropped."""
    return create_engine(make_url(url).set(drivername="postgresql+pg8000"), poolclass=NullPool)
