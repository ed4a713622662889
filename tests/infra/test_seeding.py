from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from infra.local import seeding
from shared.columns import COLUMNS, Kind
from shared.tables import legacy, product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import MetaData

    from tests.conftest import Databases, PostgresServer

# The rows of each export source. The export of an empty source would look broken.
SOURCES = {
    "products": "products where webshop_uuid = :webshop",
    "suppliers": "suppliers where webshop_uuid = :webshop",
    "product_suppliers": "supplier_products join products on products.uuid = product_uuid"
    " where products.webshop_uuid = :webshop",
    "supplier_products": "supplier_products join suppliers on suppliers.uuid = supplier_uuid"
    " where suppliers.webshop_uuid = :webshop",
    "promotions": "promotions where webshop_uuid = :webshop",
    "product_promotions": "promotion_products join products on products.uuid = product_uuid"
    " where products.webshop_uuid = :webshop",
    "promotion_webshop_products": "promotion_products join promotions on promotions.uuid = promotion_uuid"
    " where promotions.webshop_uuid = :webshop",
    "buy_orders": "buy_order_lines join buy_orders on buy_orders.uuid = buy_order_uuid"
    " where buy_orders.webshop_uuid = :webshop and deleted_at is null",
    "undelivered_products": "buy_order_lines join buy_orders on buy_orders.uuid = buy_order_uuid"
    " where buy_orders.webshop_uuid = :webshop and deleted_at is null"
    " and status in ('OPEN', 'PARTIALLY_DELIVERED') and delivered_quantity < quantity",
}


@pytest.fixture
def empty(postgres: PostgresServer) -> Iterator[tuple[str, str]]:
    """The URLs of an empty product database and of an empty legacy database."""
    product_name, legacy_name = f"product_{uuid4().hex}", f"legacy_{uuid4().hex}"
    yield postgres.create(product_name), postgres.create(legacy_name)
    for name in (product_name, legacy_name):
        postgres.drop(name)


def fetch_rows(url: str, query: str, **parameters: object) -> list[Row[Any]]:
    with seeding.engine_to(url).begin() as connection:
        return list(connection.execute(text(query), parameters))


def execute(url: str, statement: str) -> None:
    with seeding.engine_to(url).begin() as connection:
        connection.execute(text(statement))


def digest_tables(url: str, platform: MetaData) -> dict[str, str]:
    """Returns a digest of the rows of every table, by the table's name."""
    query = "select md5(string_agg(row::text, '|' order by row::text)) from (select * from {}) row"
    return {table.name: fetch_rows(url, query.format(table.name))[0][0] for table in platform.sorted_tables}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("webshop", ["webshop_uuid", "other_webshop_uuid"])
def test_no_export_source_is_empty(databases: Databases, source: str, webshop: str) -> None:
    """The other webshop has rows too, so that a leak between tenants is visible."""
    [[count]] = fetch_rows(
        databases.product_url, f"select count(*) from {SOURCES[source]}", webshop=getattr(databases.tenants, webshop)
    )

    assert count > 0


@pytest.mark.parametrize("source", SOURCES)
def test_no_export_source_is_empty_with_one_product(smallest: str, source: str) -> None:
    """The smallest stack also has rows for every export."""
    [[count]] = fetch_rows(smallest, f"select count(*) from {SOURCES[source]}", webshop=seeding.TENANTS.webshop_uuid)

    assert count > 0


@pytest.fixture(scope="module")
def smallest(postgres: PostgresServer) -> str:
    """The URL of a product database with a single product in the first webshop."""
    product_url, legacy_url = postgres.create("product_smallest"), postgres.create("legacy_smallest")
    seeding.seed(product_url, legacy_url, 1)
    return product_url


def test_a_user_belongs_only_to_their_own_webshops(databases: Databases) -> None:
    """The first user has the first webshop and the one without features, the other user has the other webshop."""
    tenants = databases.tenants

    memberships = fetch_rows(databases.product_url, "select user_uuid, webshop_uuid from webshop_users")

    assert {tuple(row) for row in memberships} == {
        (tenants.user_uuid, tenants.webshop_uuid),
        (tenants.user_uuid, tenants.featureless_webshop_uuid),
        (tenants.other_user_uuid, tenants.other_webshop_uuid),
    }


def test_two_webshops_have_all_features_and_one_has_none(databases: Databases) -> None:
    """The third webshop shows what a webshop without a feature gets."""
    tenants = databases.tenants

    features = fetch_rows(databases.product_url, "select webshop_uuid, feature from webshop_features")

    assert {tuple(row) for row in features} == {
        (webshop, feature)
        for webshop in (tenants.webshop_uuid, tenants.other_webshop_uuid)
        for feature in ("imports", "exports", "buy_orders")
    }


def test_the_other_webshop_has_shared_and_own_identifiers(databases: Databases) -> None:
    """An update without the webshop in its condition then changes a wrong row, so that a test can find the error."""
    identifiers = {
        webshop: {row.identifier for row in fetch_products(databases.product_url, webshop)}
        for webshop in (databases.tenants.webshop_uuid, databases.tenants.other_webshop_uuid)
    }
    first, other = identifiers.values()

    assert len(first) == 2_000
    assert len(other) == 200
    assert first & other
    assert other - first


def test_every_seeded_value_is_valid_in_an_import(databases: Databases) -> None:
    """A products export can be imported again unchanged, so an import must accept every seeded value."""
    for row in fetch_rows(databases.product_url, "select * from products"):
        for column in COLUMNS:
            value = getattr(row, column.key)
            assert value is not None or column.nullable
            if isinstance(value, str):
                assert value == value.strip() != ""
                assert len(value) <= column.max_length
                assert not column.choices or value in column.choices
            elif value is not None and column.kind is not Kind.BOOLEAN:
                assert column.minimum <= value < 10**column.digits


def test_nullable_columns_are_sometimes_empty(databases: Databases) -> None:
    """Some but less than a quarter of the products have no value in such a column."""
    products = fetch_products(databases.product_url, databases.tenants.webshop_uuid)

    for column in COLUMNS:
        missing = sum(getattr(row, column.key) is None for row in products)
        assert (0 < missing < len(products) / 4) == column.nullable, column.key


def test_ean_codes_and_article_codes_look_real(databases: Databases) -> None:
    """EAN codes have a valid check digit, and article codes have leading zeros, which spreadsheets remove."""
    products = fetch_products(databases.product_url, databases.tenants.webshop_uuid)
    eans = [row.ean_code for row in products if row.ean_code]

    assert len(set(eans)) == len(eans)
    for ean in eans:
        assert len(ean) == 13
        assert sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(ean)) % 10 == 0
    assert all(row.article_code.startswith("0") for row in products if row.article_code)


@pytest.mark.parametrize(
    "letters",
    [
        pytest.param("äöüß", id="Latin"),
        pytest.param("αβγδε", id="Greek"),
        pytest.param("абвгд", id="Cyrillic"),
        pytest.param("陶竹急風玻", id="Han"),
    ],
)
def test_product_names_use_several_scripts(databases: Databases, letters: str) -> None:
    """Fonts, encodings and sorting are tested with realistic names."""
    names = "".join(row.name for row in fetch_products(databases.product_url, databases.tenants.webshop_uuid))

    assert any(letter in names for letter in letters)


def test_the_buy_order_of_the_demo_is_open_and_can_be_emailed(databases: Databases) -> None:
    """Its supplier has an email address."""
    [order] = fetch_rows(
        databases.product_url,
        "select buy_orders.webshop_uuid, status, email_address, (select count(*) from buy_order_lines"
        " where buy_order_uuid = buy_orders.uuid) lines from buy_orders"
        " join suppliers on suppliers.uuid = supplier_uuid where buy_orders.uuid = :order",
        order=databases.tenants.buy_order_uuid,
    )

    assert (order.webshop_uuid, order.status, order.lines) == (databases.tenants.webshop_uuid, "OPEN", 25)
    assert "@" in order.email_address


def test_there_is_a_buy_order_of_every_kind(databases: Databases) -> None:
    """Every status occurs, and so do a deleted order, a large order and a supplier without an email address."""
    orders = fetch_rows(
        databases.product_url,
        "select status, deleted_at, email_address, (select count(*) from buy_order_lines"
        " where buy_order_uuid = buy_orders.uuid) lines from buy_orders"
        " join suppliers on suppliers.uuid = supplier_uuid where buy_orders.webshop_uuid = :webshop",
        webshop=databases.tenants.webshop_uuid,
    )

    assert {order.status for order in orders} == {"OPEN", "PARTIALLY_DELIVERED", "DELIVERED", "CANCELLED"}
    assert sum(order.deleted_at is not None for order in orders) == 1
    assert any(order.email_address is None for order in orders)
    assert sum(order.lines == 500 for order in orders) == 1
    assert all(order.lines for order in orders)


def test_the_largest_buy_order_has_2000_lines_if_there_are_enough_products(empty: tuple[str, str]) -> None:
    """A webshop with 4,000 products has enough."""
    product_url, legacy_url = empty

    seeding.seed(product_url, legacy_url, 4_000)
    lines = fetch_rows(
        product_url, "select count(*) from buy_order_lines group by buy_order_uuid order by 1 desc limit 2"
    )

    assert [count for (count,) in lines] == [2_000, 500]


def test_buy_order_lines_match_their_supplier_and_status(databases: Databases) -> None:
    """The supplier sells each product of the order, and the status agrees with the delivered quantities."""
    lines = fetch_rows(
        databases.product_url,
        "select status, line.quantity, line.delivered_quantity, line.unit_price,"
        " (line.webshop_uuid, line.product_uuid, buy_orders.supplier_uuid, buy_orders.webshop_uuid)"
        " is not distinct from"
        " (offered.webshop_uuid, offered.product_uuid, offered.supplier_uuid, offered.webshop_uuid) plausible"
        " from buy_order_lines line join buy_orders on buy_orders.uuid = buy_order_uuid"
        " left join supplier_products offered on offered.uuid = supplier_product_uuid",
    )

    assert all(line.plausible and line.quantity > 0 and line.unit_price > 0 for line in lines)
    for line in lines:
        if line.status in {"OPEN", "CANCELLED"}:
            assert line.delivered_quantity == 0
        elif line.status == "DELIVERED":
            assert line.delivered_quantity >= line.quantity


def test_partially_delivered_buy_orders_are_neither_empty_nor_complete(databases: Databases) -> None:
    """Part of the ordered quantity has been delivered."""
    orders = fetch_rows(
        databases.product_url,
        "select sum(delivered_quantity) delivered, sum(quantity) ordered from buy_order_lines"
        " join buy_orders on buy_orders.uuid = buy_order_uuid where status = 'PARTIALLY_DELIVERED'"
        " group by buy_order_uuid",
    )

    assert orders
    assert all(0 < order.delivered < order.ordered for order in orders)


def test_every_product_with_suppliers_has_one_preferred_supplier(databases: Databases) -> None:
    """No such product has zero or two preferred suppliers."""
    preferred = fetch_rows(
        databases.product_url,
        "select count(*) filter (where preferred) from supplier_products group by product_uuid",
    )

    assert {count for (count,) in preferred} == {1}


def test_the_status_of_a_promotion_agrees_with_its_dates(databases: Databases) -> None:
    """The dates count from the day of seeding."""
    wrong = fetch_rows(
        databases.product_url,
        "select * from promotions where status <> case when ends_on < current_date then 'ended'"
        " when starts_on <= current_date then 'running' else 'planned' end",
    )

    assert wrong == []


def test_the_legacy_database_has_the_same_products(databases: Databases) -> None:
    """The mirror is up to date before the first import, so that an import causes every later difference."""
    columns = ", ".join(column.key for column in COLUMNS)
    query = f"select webshop_uuid, {columns} from products order by 1, 2"

    assert fetch_rows(databases.legacy_url, query) == fetch_rows(databases.product_url, query)


def test_seeding_the_same_number_again_changes_nothing(fresh_databases: Databases) -> None:
    """After a restart, a stack still has the changes of its imports."""
    execute(fresh_databases.product_url, "update products set price = 1 where identifier = 'P-000001'")
    before = digest_tables(fresh_databases.product_url, product.platform)

    tenants = seeding.seed(fresh_databases.product_url, fresh_databases.legacy_url, 2_000)

    assert tenants == fresh_databases.tenants
    assert digest_tables(fresh_databases.product_url, product.platform) == before


@pytest.mark.parametrize("number", [1_500, 2_500])
def test_seeding_another_number_starts_from_an_empty_database(
    fresh_databases: Databases, empty: tuple[str, str], number: int
) -> None:
    """The result equals that of a new database, so no change of an import remains."""
    execute(fresh_databases.product_url, "update products set price = 1 where identifier = 'P-000001'")
    execute(fresh_databases.legacy_url, "delete from products")

    seeding.seed(fresh_databases.product_url, fresh_databases.legacy_url, number)
    seeding.seed(*empty, number)

    assert len(fetch_products(fresh_databases.product_url, fresh_databases.tenants.webshop_uuid)) == number
    for url, fresh_url, platform in zip(
        (fresh_databases.product_url, fresh_databases.legacy_url),
        empty,
        (product.platform, legacy.platform),
        strict=True,
    ):
        assert digest_tables(url, platform) == digest_tables(fresh_url, platform)


def test_a_product_does_not_depend_on_the_number_of_products(databases: Databases, smallest: str) -> None:
    """Tests and demos may refer to a product by its identifier."""
    query = "select * from products where webshop_uuid = :webshop and identifier = 'P-000001'"

    in_small, in_large = (
        fetch_rows(url, query, webshop=databases.tenants.webshop_uuid) for url in (smallest, databases.product_url)
    )

    assert in_small == in_large


def test_an_interrupted_seeding_is_completed(fresh_databases: Databases, empty: tuple[str, str]) -> None:
    """If only one of the two databases was seeded, the next start seeds the other one."""
    _, empty_legacy = empty

    seeding.seed(fresh_databases.product_url, empty_legacy, 2_000)

    assert digest_tables(empty_legacy, legacy.platform) == digest_tables(fresh_databases.legacy_url, legacy.platform)


def test_concurrent_seedings_seed_once(empty: tuple[str, str]) -> None:
    """Two stacks may start on the same databases at the same time."""
    with ThreadPoolExecutor() as pool:
        attempts = [pool.submit(seeding.seed, *empty, 50) for _ in range(2)]
        tenants = [attempt.result() for attempt in attempts]

    assert tenants == [seeding.TENANTS] * 2
    assert len(fetch_products(empty[0], seeding.TENANTS.webshop_uuid)) == 50


def test_rows_that_were_not_seeded_are_never_dropped(empty: tuple[str, str]) -> None:
    """By mistake, the URLs may name a database with real data."""
    product_url, legacy_url = empty
    with seeding.engine_to(product_url).begin() as connection:
        product.platform.create_all(connection)
    execute(product_url, f"insert into users values ('{uuid4()}', 'Somebody', 'somebody@shop.example')")

    with pytest.raises(ValueError, match=r"users .* holds rows that were not seeded"):
        seeding.seed(product_url, legacy_url, 10)

    assert [row.name for row in fetch_rows(product_url, "select name from users")] == ["Somebody"]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(0, id="zero"),
        pytest.param(-1, id="negative"),
        pytest.param(seeding.MOST_PRODUCTS + 1, id="one too many"),
    ],
)
def test_a_number_out_of_range_is_refused(empty: tuple[str, str], number: int) -> None:
    """The error names the number."""
    with pytest.raises(ValueError, match=f"^{number} products cannot be seeded"):
        seeding.seed(*empty, number)


@pytest.mark.parametrize(
    ("database", "platform"),
    [pytest.param("product", product.platform, id="product"), pytest.param("legacy", legacy.platform, id="legacy")],
)
def test_the_seeded_tables_match_the_code(
    databases: Databases, postgres: PostgresServer, database: str, platform: MetaData
) -> None:
    """Seeding creates keys and indexes after the rows. The result must equal the tables that the code declares."""
    name = f"from_code_{uuid4().hex}"
    from_code = postgres.create(name)
    with seeding.engine_to(from_code).begin() as connection:
        platform.create_all(connection)
    tables = [table.name for table in platform.sorted_tables]

    for query in (
        "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid::regclass::text = any(:tables) order by 1, 2",
        "select tablename, indexname, indexdef from pg_indexes where tablename = any(:tables) order by 1, 2",
        "select table_name, column_name, data_type, column_default, is_nullable from information_schema.columns"
        " where table_name = any(:tables) order by 1, ordinal_position",
    ):
        expected = fetch_rows(from_code, query, tables=tables)
        assert expected
        assert fetch_rows(getattr(databases, f"{database}_url"), query, tables=tables) == expected
    postgres.drop(name)


def fetch_products(url: str, webshop_uuid: UUID) -> list[Row[Any]]:
    return fetch_rows(url, "select * from products where webshop_uuid = :webshop", webshop=webshop_uuid)
