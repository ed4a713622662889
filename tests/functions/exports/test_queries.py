"""What an export finds: filters, sorts, parents and bounds, each against the database's own answer."""

from __future__ import annotations

import contextlib
import io
import operator
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from functions.exports import queries
from functions.exports.queries import DIALECT, Progress, Values, rows_of
from functions.exports.requests import CreateExport, Filter, checked
from functions.exports.source import FileType, Operator
from functions.exports.sources import SOURCES
from shared.problems import Problem

if TYPE_CHECKING:
    from tests.conftest import Databases
    from tests.functions.exports.conftest import Exporter

INJECTIONS = (
    "'; drop table products; --", "' or '1'='1", "\\'; select pg_sleep(9); --", "%s", "%(x)s", ":x", "$1", "$$", "{}",
    "x' || current_setting('export.value_0') || '", "null", "", "'", "\\", "/*", "--", "\";--", "\x01", "E'\\x'",
    "é\N{GRINNING FACE}",
)  # fmt: skip
strings = st.one_of(st.sampled_from(INJECTIONS), st.text(max_size=30))


def filtered(column: str, name: str, value: Any) -> dict[str, Any]:
    return {"filters": [{"column": column, "operator": name, "value": value}]}


@pytest.mark.parametrize(
    ("column", "name", "value", "condition"),
    [
        pytest.param("price", "gt", 50, "price > 50", id="decimal gt"),
        pytest.param("price", "gte", "90.95", "price >= 90.95", id="decimal gte"),
        pytest.param("price", "between", [10, 20.5], "price between 10 and 20.5", id="decimal between"),
        pytest.param("price", "eq", 90.95, "price = 90.95", id="decimal eq"),
        pytest.param("sku_code", "is_null", True, "sku_code is null", id="is null"),
        pytest.param("sku_code", "is_null", False, "sku_code is not null", id="is not null"),
        pytest.param("sku_code", "ne", "TRY-GRY-1", "sku_code is distinct from 'TRY-GRY-1'", id="ne"),
        pytest.param("stock_on_hand", "lt", 5, "stock_on_hand < 5", id="integer lt"),
        pytest.param("stock_on_hand", "lte", -1, "stock_on_hand <= -1", id="integer lte"),
        pytest.param("stock_on_hand", "in", [1, 2, "3"], "stock_on_hand in (1, 2, 3)", id="integer in"),
        pytest.param("name", "contains", "%", "strpos(name, '%') > 0", id="contains a wildcard"),
        pytest.param("name", "contains", "oak", "name like '%oak%'", id="contains"),
        pytest.param("name", "starts_with", "Small ", "name like 'Small %'", id="starts_with"),
        pytest.param("identifier", "lte", "P-000100", "identifier <= 'P-000100'", id="text lte"),
        pytest.param("unlimited_stock", "eq", True, "unlimited_stock", id="boolean eq"),
        pytest.param(
            "created_at", "gte", "2025-01-01T00:00:00+01:00", "created_at >= '2024-12-31 23:00:00+00'", id="time gte"
        ),
    ],
)
def test_a_filter_finds_what_the_database_finds(
    seeded: Exporter, column: str, name: str, value: Any, condition: str
) -> None:
    """Every operator, on the types it is for."""
    condition = condition.replace("%", "%%")
    wanted = seeded.query(f"select identifier from products where webshop_uuid = :webshop and {condition} order by 1")

    found = seeded.column("products", "identifier", **filtered(column, name, value))

    assert found == [row[0] for row in wanted]


def test_filters_are_combined_by_and_and_or(seeded: Exporter) -> None:
    """All filters of the list must hold; `any` and `all` group within it."""
    filters = [
        {"column": "status", "operator": "eq", "value": "enabled"},
        {
            "any": [
                {"column": "stock_on_hand", "operator": "lt", "value": 5},
                {"all": [
                    {"column": "price", "operator": "gt", "value": 100},
                    {"column": "price", "operator": "lt", "value": 110},
                ]},
            ]
        },
    ]  # fmt: skip
    wanted = seeded.query(
        "select identifier from products where webshop_uuid = :webshop and status = 'enabled'"
        " and (stock_on_hand < 5 or (price > 100 and price < 110)) order by 1"
    )

    assert wanted
    assert seeded.column("products", "identifier", filters=filters) == [row[0] for row in wanted]


def test_an_in_of_ten_thousand_values_is_quick(seeded: Exporter) -> None:
    """They are hashed, so that a list from another system can be looked up at once."""
    values = [f"P-{number:06d}" for number in range(1, 10_001)]

    found = seeded.column("products", "identifier", **filtered("identifier", "in", values))

    assert len(found) == 2_000


PYTHON: dict[str, Any] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "in": operator.eq,
    "between": operator.eq,
    "contains": operator.contains,
    "starts_with": str.startswith,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "is_null": lambda *_: False,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strings, st.sampled_from([name.value for name in SOURCES["products"].columns[1].operators]))
def test_a_filter_is_data_whatever_stands_in_it(seeded: Exporter, value: str, name: str) -> None:
    """SQL in a filter's value is compared like any other text, or refused for a NUL."""
    given_value: Any = {"in": [value, value], "between": [value, value], "is_null": True}.get(name, value)
    request = {"columns": ["identifier"], **filtered("name", name, given_value)}
    if "\0" in value and name != "is_null":
        with pytest.raises(Problem, match="NUL"):
            seeded.file("products", **request)
        return

    found = {row[0] for row in seeded.table("products", **request)}

    names = seeded.query("select identifier, name from products where webshop_uuid = :webshop")
    collation = seeded.query("select datcollate from pg_database where datname = current_database()")[0][0]
    if name in ("gt", "gte", "lt", "lte") and not collation.startswith("C"):
        return
    assert found == {identifier for identifier, stored in names if PYTHON[name](stored, value)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strings, st.integers(0, 8))
def test_sql_in_any_place_is_refused_or_is_data(seeded: Exporter, sql: str, place: int) -> None:
    """Wherever a string can stand: names are found in a table or refused; nothing else ever happens."""
    body: dict[str, Any] = {"source": "products", "file_name": "x", "file_type": "CSV", "columns": ["identifier"]}
    filtering = {"column": "name", "operator": "eq", "value": "x"}
    changes: list[dict[str, Any]] = [
        {"source": sql}, {"file_type": sql}, {"columns": [sql]}, {"file_name": sql}, {"delimiter": sql},
        {"sorts": [{"column": sql}]}, {"filters": [{**filtering, "column": sql}]},
        {"filters": [{**filtering, "operator": sql}]}, {"parents": {sql: "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}},
    ]  # fmt: skip
    body |= changes[place]

    with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError, Problem):
        request = msgspec.json.decode(msgspec.json.encode(body), type=CreateExport)
        seeded.render(request, io.BytesIO())

    assert seeded.query("select count(*) from products where webshop_uuid = :webshop") == [(2_000,)]


def test_nothing_that_was_typed_stands_in_the_query(seeded: Exporter) -> None:
    """The values are settings of the transaction: the statement's text is made of names of ours alone."""
    filters = [Filter("name", "in", ["typed", "by people"])]
    selection = checked(CreateExport("products", "x", "CSV", filters=filters))
    values = Values()

    query = rows_of(selection, seeded.webshop_uuid, values, [column.value for column in selection.columns])
    sql = str(query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))

    assert "typed" not in sql
    assert list(values.by_setting.values()) == [str(seeded.webshop_uuid), '["typed","by people"]']


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_column_can_be_exported_sorted_and_filtered(seeded: Exporter, source: str) -> None:
    """The contract over all sources: what the table of columns offers works, and the order is total."""
    total = len(seeded.table(source))
    assert total, "the seed leaves no source empty"
    examples = {
        "text": "a", "code": "1", "integer": 1, "decimal": 1.5, "boolean": True, "date": "2026-01-01",
        "timestamp": "2026-01-01T00:00:00Z", "uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001",
    }  # fmt: skip
    for column in SOURCES[source].columns:
        for direction in ("asc", "desc"):
            assert (
                len(seeded.column(source, column.key, sorts=[{"column": column.key, "direction": direction}])) == total
            )
        for name in column.operators:
            value: Any = examples[column.type.name]
            value = {Operator.IN: [value], Operator.BETWEEN: [value, value], Operator.IS_NULL: True}.get(name, value)
            seeded.column(source, column.key, **filtered(column.key, name, value))


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_another_webshop_is_never_in_it(databases: Databases, seeded: Exporter, source: str) -> None:
    """Each source of one webshop and of another have no row in common, and both have rows."""
    other = type(seeded)(seeded.engine, databases.tenants.other_webshop_uuid)
    keys = [column.key for column in SOURCES[source].columns if column.type.name == "uuid"] or [
        "order_number",
        "line_number",
    ]

    mine, theirs = ({tuple(row) for row in one.table(source, columns=keys)} for one in (seeded, other))

    assert mine
    assert theirs
    assert source == "buy_orders" or not mine & theirs


@pytest.mark.parametrize(
    ("source", "parent"), [(source.key, parent) for source in SOURCES.values() for parent in source.parents]
)
def test_a_parent_narrows_to_its_own(seeded: Exporter, source: str, parent: str) -> None:
    """Each parent of each source: all rows belong to it, and together they are all rows."""
    total = len(seeded.table(source))
    table = f"{parent.removesuffix('_uuid')}s"
    uuids = [row[0] for row in seeded.query(f"select uuid from {table} where webshop_uuid = :webshop order by 1")]
    if parent == "product_uuid":
        first = uuids[:40]
        some = sum(len(seeded.table(source, parents={parent: str(uuid)})) for uuid in first)
        assert some < total
        return

    assert sum(len(seeded.table(source, parents={parent: str(uuid)})) for uuid in uuids) == total


def test_rows_without_a_value_come_last_either_way(seeded: Exporter) -> None:
    """Nobody sorts by a column to see the rows that have nothing in it."""
    for direction in ("asc", "desc"):
        values = seeded.column("products", "cost_price", sorts=[{"column": "cost_price", "direction": direction}])

        known = [Decimal(value) for value in values if value]
        assert 0 < len(known) < len(values)
        assert not any(values[len(known) :])
        assert known == sorted(known, reverse=direction == "desc")


def test_sorts_follow_each_other_and_end_in_a_total_order(seeded: Exporter) -> None:
    """Equal rows of one sort are sorted by the next, and what is equal in all of them by the key: never by chance."""
    sorts = [{"column": "status", "direction": "desc"}, {"column": "stock_on_hand"}]
    wanted = seeded.query(
        "select identifier from products where webshop_uuid = :webshop order by status desc, stock_on_hand, identifier"
    )

    assert seeded.column("products", "identifier", sorts=sorts) == [row[0] for row in wanted]


def test_undelivered_products_are_lines_of_open_orders(own: Exporter) -> None:
    """Delivered lines, cancelled and deleted orders hold nothing that is still to come."""
    own.change("update buy_orders set deleted_at = now() where webshop_uuid = :webshop and number = 'BO-10001'")
    wanted = own.query(
        "select sum(quantity - delivered_quantity) from buy_order_lines l"
        " join buy_orders o on o.uuid = l.buy_order_uuid"
        " where l.webshop_uuid = :webshop and o.status in ('OPEN', 'PARTIALLY_DELIVERED') and o.deleted_at is null"
        " and l.quantity > l.delivered_quantity"
    )[0][0]

    rows = own.table("undelivered_products", columns=["order_number", "undelivered_quantity"])

    assert sum(int(row[1]) for row in rows) == wanted
    assert "BO-10001" not in {row[0] for row in rows}
    assert "BO-10001" not in own.column("buy_orders", "order_number")


def test_an_export_is_of_one_moment(own: Exporter) -> None:
    """What is changed while rows are on their way is in none of them."""
    seen: list[int] = []

    class Changing(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() and not seen:
                own.change("update products set name = 'changed' where webshop_uuid = :webshop")
                seen.append(1)
            return super().write(data)

    sink = Changing()
    rows = own.render(CreateExport("products", "x", "CSV", columns=["name"]), sink)

    assert (rows, seen) == (2_000, [1])
    assert b"changed" not in sink.getvalue()


@pytest.mark.parametrize("file_type", [FileType.CSV, FileType.XLSX])
def test_progress_is_reported_and_can_end_it(
    own: Exporter, file_type: FileType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who lost the lease, or whose export was deleted, stops in the middle."""
    monkeypatch.setattr(queries, "PROGRESS_SECONDS", 0.0)
    reports: list[int] = []

    class Enough(Exception):
        pass

    def report(rows: int) -> None:
        reports.append(rows)
        if rows > 1_000:
            raise Enough

    request = CreateExport("products", "x", file_type)
    with pytest.raises(Enough):
        own.render(request, io.BytesIO(), report)

    assert reports == sorted(reports)
    assert 1_000 < reports[-1] < 2_000
    assert own.query("select 1") == [(1,)]


def test_progress_is_reported_seldom() -> None:
    """A report costs a write to a database: not one a row."""
    reports: list[int] = []
    progress = Progress(reports.append)

    for _ in range(1_000):
        progress.add(1)

    assert (progress.rows, reports) == (1_000, [])


def test_a_database_that_goes_away_is_said_to_be_gone(own: Exporter) -> None:
    """So that the client hears 503 and the attempt is made again, rather than 500."""

    class Killing(io.BytesIO):
        def write(self, data: Any) -> int:
            copying = "select pid from pg_stat_activity where query like 'copy%%' and pid <> pg_backend_pid()"
            own.query(f"select pg_terminate_backend(pid) from ({copying}) backends")
            return super().write(data)

    own.change(
        "insert into products (webshop_uuid, identifier, name) select :webshop, 'Z' || n, repeat('x', 200)"
        " from generate_series(1, 100000) n"
    )
    with pytest.raises(DBAPIError) as raised:
        own.render(CreateExport("products", "x", "CSV"), Killing())

    assert raised.value.connection_invalidated


def test_days_can_be_compared(seeded: Exporter) -> None:
    """A promotion that runs today."""
    today = date.today().isoformat()  # noqa: DTZ011  # the seed counts from the server's day
    filters = [
        {"column": "starts_on", "operator": "lte", "value": today},
        {"column": "ends_on", "operator": "gte", "value": today},
    ]

    wanted = seeded.query(
        "select name from promotions where webshop_uuid = :webshop and :today between starts_on and ends_on"
        " order by starts_on, name",
        today=date.fromisoformat(today),
    )

    assert seeded.column("promotions", "name", filters=filters) == [row[0] for row in wanted]
