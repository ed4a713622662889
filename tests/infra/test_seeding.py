from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, text

from infra.local import seeding
from shared.columns import COLUMNS, Kind
from shared.tables import legacy, product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import MetaData

# What each export source is made of. One that is empty would make its export look broken.
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
def empty(postgres) -> Iterator[tuple[str, str]]:
    """A product and a legacy database with nothing in them, by URL."""
    names = (f"product_{uuid4().hex}", f"legacy_{uuid4().hex}")
    yield tuple(postgres.create(name) for name in names)
    for name in names:
        postgres.drop(name)


def rows(url: str, query: str, **parameters: object) -> list[Row]:
    with seeding.engine_to(url).begin() as connection:
        return list(connection.execute(text(query), parameters))


def change(url: str, statement: str) -> None:
    with seeding.engine_to(url).begin() as connection:
        connection.execute(text(statement))


def contents(url: str, platform: MetaData) -> dict[str, str]:
    """A digest of every table."""
    query = "select md5(string_agg(row::text, '|' order by row::text)) from (select * from {}) row"
    return {table.name: rows(url, query.format(table.name))[0][0] for table in platform.sorted_tables}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("webshop", ["webshop_uuid", "other_webshop_uuid"])
def test_no_export_source_is_empty(databases, source, webshop):
    """Of the other webshop neither: what leaks between tenants has to show."""
    [[count]] = rows(
        databases.product_url, f"select count(*) from {SOURCES[source]}", webshop=getattr(databases.tenants, webshop)
    )

    assert count > 0


@pytest.mark.parametrize("source", SOURCES)
def test_not_even_with_one_product(smallest, source):
    [[count]] = rows(smallest, f"select count(*) from {SOURCES[source]}", webshop=seeding.TENANTS.webshop_uuid)

    assert count > 0


@pytest.fixture(scope="module")
def smallest(postgres) -> str:
    """A product database with a single product in the first webshop."""
    product_url, legacy_url = postgres.create("product_smallest"), postgres.create("legacy_smallest")
    seeding.seed(product_url, legacy_url, 1)
    return product_url


def test_a_user_sees_their_own_webshop_alone(databases):
    tenants = databases.tenants

    seen = rows(databases.product_url, "select user_uuid, webshop_uuid from webshop_users")

    assert {tuple(row) for row in seen} == {
        (tenants.user_uuid, tenants.webshop_uuid),
        (tenants.user_uuid, tenants.featureless_webshop_uuid),
        (tenants.other_user_uuid, tenants.other_webshop_uuid),
    }


def test_two_webshops_have_all_features_and_one_has_none(databases):
    tenants = databases.tenants

    features = rows(databases.product_url, "select webshop_uuid, feature from webshop_features")

    assert {tuple(row) for row in features} == {
        (webshop, feature)
        for webshop in (tenants.webshop_uuid, tenants.other_webshop_uuid)
        for feature in ("imports", "exports", "buy_orders")
    }


def test_the_other_webshop_shares_some_identifiers_and_has_some_of_its_own(databases):
    """An update that forgets the webshop must hit a row it should not."""
    identifiers = {
        webshop: {row.identifier for row in products(databases.product_url, webshop)}
        for webshop in (databases.tenants.webshop_uuid, databases.tenants.other_webshop_uuid)
    }
    first, other = identifiers.values()

    assert len(first) == 2_000
    assert len(other) == 200
    assert first & other
    assert other - first


def test_every_value_is_one_that_an_import_would_take(databases):
    """A products export goes in again as it is, so nothing may be seeded that an import refuses."""
    for row in rows(databases.product_url, "select * from products"):
        for column in COLUMNS:
            value = getattr(row, column.key)
            assert value is not None or column.nullable
            if isinstance(value, str):
                assert value == value.strip() != ""
                assert len(value) <= column.max_length
                assert not column.choices or value in column.choices
            elif value is not None and column.kind is not Kind.BOOLEAN:
                assert column.minimum <= value < 10**column.digits


def test_every_nullable_column_is_missing_sometimes_and_given_mostly(databases):
    seen = products(databases.product_url, databases.tenants.webshop_uuid)

    for column in COLUMNS:
        missing = sum(getattr(row, column.key) is None for row in seen)
        assert (0 < missing < len(seen) / 4) == column.nullable, column.key


def test_ean_codes_have_their_check_digit_and_article_codes_their_leading_zeros(databases):
    seen = products(databases.product_url, databases.tenants.webshop_uuid)
    eans = [row.ean_code for row in seen if row.ean_code]

    assert len(set(eans)) == len(eans)
    for ean in eans:
        assert len(ean) == 13
        assert sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(ean)) % 10 == 0
    assert all(row.article_code.startswith("0") for row in seen if row.article_code)


@pytest.mark.parametrize(
    "letters",
    [
        pytest.param("äöüß", id="Latin"),
        pytest.param("αβγδε", id="Greek"),
        pytest.param("абвгд", id="Cyrillic"),
        pytest.param("陶竹急風玻", id="Han"),
    ],
)
def test_names_meet_every_script(databases, letters):
    """Fonts, encodings and sorting are met by what people really call their products."""
    names = "".join(row.name for row in products(databases.product_url, databases.tenants.webshop_uuid))

    assert any(letter in names for letter in letters)


def test_the_buy_order_to_show_is_open_and_can_be_mailed(databases):
    [order] = rows(
        databases.product_url,
        "select buy_orders.webshop_uuid, status, email_address, (select count(*) from buy_order_lines"
        " where buy_order_uuid = buy_orders.uuid) lines from buy_orders"
        " join suppliers on suppliers.uuid = supplier_uuid where buy_orders.uuid = :order",
        order=databases.tenants.buy_order_uuid,
    )

    assert (order.webshop_uuid, order.status, order.lines) == (databases.tenants.webshop_uuid, "OPEN", 25)
    assert "@" in order.email_address


def test_there_is_an_order_of_every_kind(databases):
    orders = rows(
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


def test_the_largest_order_has_2000_lines_where_there_are_products_enough(empty):
    product_url, legacy_url = empty
    seeding.seed(product_url, legacy_url, 4_000)

    lines = rows(product_url, "select count(*) from buy_order_lines group by buy_order_uuid order by 1 desc limit 2")

    assert [count for (count,) in lines] == [2_000, 500]


def test_an_order_holds_what_its_supplier_sells_and_no_more_is_delivered_than_its_status_says(databases):
    lines = rows(
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


def test_partially_delivered_orders_are_neither_empty_nor_complete(databases):
    orders = rows(
        databases.product_url,
        "select sum(delivered_quantity) delivered, sum(quantity) ordered from buy_order_lines"
        " join buy_orders on buy_orders.uuid = buy_order_uuid where status = 'PARTIALLY_DELIVERED'"
        " group by buy_order_uuid",
    )

    assert orders
    assert all(0 < order.delivered < order.ordered for order in orders)


def test_every_product_that_can_be_ordered_has_one_preferred_supplier(databases):
    preferred = rows(
        databases.product_url,
        "select count(*) filter (where preferred) from supplier_products group by product_uuid",
    )

    assert {count for (count,) in preferred} == {1}


def test_the_status_of_a_promotion_is_that_of_its_dates(databases):
    wrong = rows(
        databases.product_url,
        "select * from promotions where status <> case when ends_on < current_date then 'ended'"
        " when starts_on <= current_date then 'running' else 'planned' end",
    )

    assert wrong == []


def test_the_legacy_database_holds_the_same_products(databases):
    """The mirror is up to date before the first import, so that whatever differs afterwards was done by one."""
    columns = ", ".join(column.key for column in COLUMNS)
    query = f"select webshop_uuid, {columns} from products order by 1, 2"

    assert rows(databases.legacy_url, query) == rows(databases.product_url, query)


def test_the_same_number_again_leaves_everything_as_it_is(fresh_databases):
    """A stack that is started again finds what its imports have changed."""
    change(fresh_databases.product_url, "update products set price = 1 where identifier = 'P-000001'")
    before = contents(fresh_databases.product_url, product.platform)

    tenants = seeding.seed(fresh_databases.product_url, fresh_databases.legacy_url, 2_000)

    assert tenants == fresh_databases.tenants
    assert contents(fresh_databases.product_url, product.platform) == before


@pytest.mark.parametrize("number", [1_500, 2_500])
def test_another_number_gives_what_a_new_database_would_have(fresh_databases, empty, number):
    change(fresh_databases.product_url, "update products set price = 1 where identifier = 'P-000001'")
    change(fresh_databases.legacy_url, "delete from products")

    seeding.seed(fresh_databases.product_url, fresh_databases.legacy_url, number)
    seeding.seed(*empty, number)

    assert len(products(fresh_databases.product_url, fresh_databases.tenants.webshop_uuid)) == number
    for url, fresh_url, platform in zip(
        (fresh_databases.product_url, fresh_databases.legacy_url),
        empty,
        (product.platform, legacy.platform),
        strict=True,
    ):
        assert contents(url, platform) == contents(fresh_url, platform)


def test_a_product_is_the_same_however_many_there_are(databases, smallest):
    """Tests and demos may name one."""
    query = "select * from products where webshop_uuid = :webshop and identifier = 'P-000001'"

    in_small, in_large = (
        rows(url, query, webshop=databases.tenants.webshop_uuid) for url in (smallest, databases.product_url)
    )

    assert in_small == in_large


def test_a_database_that_was_seeded_half_is_completed(fresh_databases, postgres, empty):
    """Killed between the two databases: the next start seeds the one that is left."""
    _, empty_legacy = empty

    seeding.seed(fresh_databases.product_url, empty_legacy, 2_000)

    assert contents(empty_legacy, legacy.platform) == contents(fresh_databases.legacy_url, legacy.platform)


def test_two_at_once_seed_once(empty):
    with ThreadPoolExecutor() as pool:
        attempts = [pool.submit(seeding.seed, *empty, 50) for _ in range(2)]

        assert [attempt.result() for attempt in attempts] == [seeding.TENANTS] * 2
    assert len(products(empty[0], seeding.TENANTS.webshop_uuid)) == 50


def test_rows_of_somebody_else_are_never_dropped(empty):
    """The URLs may name any database, by mistake one that matters."""
    product_url, legacy_url = empty
    with seeding.engine_to(product_url).begin() as connection:
        product.platform.create_all(connection)
    change(product_url, f"insert into users values ('{uuid4()}', 'Somebody', 'somebody@shop.example')")

    with pytest.raises(ValueError, match=r"users .* holds rows that were not seeded"):
        seeding.seed(product_url, legacy_url, 10)

    assert [row.name for row in rows(product_url, "select name from users")] == ["Somebody"]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(0, id="zero"),
        pytest.param(-1, id="negative"),
        pytest.param(seeding.MOST_PRODUCTS + 1, id="one too many"),
    ],
)
def test_a_number_that_cannot_be_seeded_is_refused(empty, number):
    with pytest.raises(ValueError, match=f"^{number} products cannot be seeded"):
        seeding.seed(*empty, number)


@pytest.mark.parametrize(
    ("database", "platform"),
    [pytest.param("product", product.platform, id="product"), pytest.param("legacy", legacy.platform, id="legacy")],
)
def test_the_seeded_tables_are_those_of_the_code(databases, postgres, database, platform):
    """Seeding builds keys and indexes after the rows: none may be forgotten or come out differently."""
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
        expected = rows(from_code, query, tables=tables)
        assert expected
        assert rows(getattr(databases, f"{database}_url"), query, tables=tables) == expected
    postgres.drop(name)


def products(url: str, webshop_uuid: UUID) -> list[Row]:
    return rows(url, "select * from products where webshop_uuid = :webshop", webshop=webshop_uuid)
