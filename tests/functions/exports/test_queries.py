"""Filters, sorts, parents and limits of exports, each compared with a plain query."""

from __future__ import annotations

import contextlib
import io
import operator
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from functions.exports import queries
from functions.exports.queries import DIALECT, BoundValues, Progress, build_query
from functions.exports.requests import CreateExport, Filter, validate
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
typed_texts = st.one_of(st.sampled_from(INJECTIONS), st.text(max_size=30))


def filter_by(column: str, operator_name: str, value: Any) -> dict[str, Any]:
    """Returns the fields of a request with one filter."""
    return {"filters": [{"column": column, "operator": operator_name, "value": value}]}


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
def test_a_filter_finds_the_same_rows_as_its_sql(
    seeded: Exporter, column: str, name: str, value: Any, condition: str
) -> None:
    """Every operator works on the types that have it."""
    condition = condition.replace("%", "%%")
    expected = seeded.query(f"select identifier from products where webshop_uuid = :webshop and {condition} order by 1")

    found = seeded.export_column("products", "identifier", **filter_by(column, name, value))

    assert found == [row[0] for row in expected]


def test_filters_are_combined_with_and_and_or(seeded: Exporter) -> None:
    """All filters of the list must hold; `any` and `all` form groups in it."""
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
    expected = seeded.query(
        "select identifier from products where webshop_uuid = :webshop and status = 'enabled'"
        " and (stock_on_hand < 5 or (price > 100 and price < 110)) order by 1"
    )

    found = seeded.export_column("products", "identifier", filters=filters)

    assert expected
    assert found == [row[0] for row in expected]


def test_in_takes_ten_thousand_values(seeded: Exporter) -> None:
    """A list from another system can be looked up in one export; PostgreSQL hashes the values."""
    values = [f"P-{number:06d}" for number in range(1, 10_001)]

    found = seeded.export_column("products", "identifier", **filter_by("identifier", "in", values))

    assert len(found) == 2_000


PYTHON_OPERATORS: dict[str, Any] = {
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


@settings(max_examples=60)
@given(typed_texts, st.sampled_from([name.value for name in SOURCES["products"].columns[1].operators]))
def test_a_filter_value_is_never_read_as_sql(seeded: Exporter, value: str, name: str) -> None:
    """SQL in a filter's value is compared like any other text. Only NUL is refused."""
    filter_value: Any = {"in": [value, value], "between": [value, value], "is_null": True}.get(name, value)
    request = {"columns": ["identifier"], **filter_by("name", name, filter_value)}
    if "\0" in value and name != "is_null":
        with pytest.raises(Problem, match="NUL"):
            seeded.export("products", **request)
        return

    found = {row[0] for row in seeded.export_rows("products", **request)}

    names = seeded.query("select identifier, name from products where webshop_uuid = :webshop")
    collation = seeded.query("select datcollate from pg_database where datname = current_database()")[0][0]
    if name in ("gt", "gte", "lt", "lte") and not collation.startswith("C"):
        return
    assert found == {identifier for identifier, stored in names if PYTHON_OPERATORS[name](stored, value)}


@settings(max_examples=150)
@given(typed_texts, st.integers(0, 8))
def test_sql_in_any_field_is_refused_or_compared_as_data(seeded: Exporter, sql: str, place: int) -> None:
    """Every string in a request is looked up by name, refused, or compared as data."""
    body: dict[str, Any] = {"source": "products", "file_name": "x", "file_type": "CSV", "columns": ["identifier"]}
    name_filter = {"column": "name", "operator": "eq", "value": "x"}
    changes: list[dict[str, Any]] = [
        {"source": sql}, {"file_type": sql}, {"columns": [sql]}, {"file_name": sql}, {"delimiter": sql},
        {"sorts": [{"column": sql}]}, {"filters": [{**name_filter, "column": sql}]},
        {"filters": [{**name_filter, "operator": sql}]}, {"parents": {sql: "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}},
    ]  # fmt: skip
    body |= changes[place]

    with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError, Problem):
        request = msgspec.json.decode(msgspec.json.encode(body), type=CreateExport)
        seeded.render(request, io.BytesIO())

    assert seeded.query("select count(*) from products where webshop_uuid = :webshop") == [(2_000,)]


def test_the_query_contains_no_value_from_users(seeded: Exporter) -> None:
    """Values are settings of the transaction: the statement's text contains only our own names."""
    filters = [Filter("name", "in", ["typed", "by users"])]
    selection = validate(CreateExport("products", "x", "CSV", filters=filters))
    values = BoundValues()

    query = build_query(selection, seeded.webshop_uuid, values, [column.value for column in selection.columns])
    sql = str(query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))

    assert "typed" not in sql
    assert list(values.by_setting.values()) == [str(seeded.webshop_uuid), '["typed","by users"]']


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_every_column_can_be_exported_sorted_and_filtered(seeded: Exporter, source: str) -> None:
    """This is the contract of all sources: everything that the catalog lists works, and the order is total."""
    total = len(seeded.export_rows(source))
    assert total, "the seed has rows for every source"
    examples = {
        "text": "a", "code": "1", "integer": 1, "decimal": 1.5, "boolean": True, "date": "2026-01-01",
        "timestamp": "2026-01-01T00:00:00Z", "uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001",
    }  # fmt: skip
    for column in SOURCES[source].columns:
        for direction in ("asc", "desc"):
            sorts = [{"column": column.key, "direction": direction}]
            assert len(seeded.export_column(source, column.key, sorts=sorts)) == total
        for name in column.operators:
            value: Any = examples[column.type.name]
            value = {Operator.IN: [value], Operator.BETWEEN: [value, value], Operator.IS_NULL: True}.get(name, value)
            seeded.export_column(source, column.key, **filter_by(column.key, name, value))


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_an_export_never_contains_another_webshop(databases: Databases, seeded: Exporter, source: str) -> None:
    """The exports of two webshops both have rows, and have no row in common, in every source."""
    other = type(seeded)(seeded.engine, databases.tenants.other_webshop_uuid)
    uuid_columns = [column.key for column in SOURCES[source].columns if column.type.name == "uuid"]
    columns = uuid_columns or ["order_number", "line_number"]

    first_rows = {tuple(row) for row in seeded.export_rows(source, columns=columns)}
    second_rows = {tuple(row) for row in other.export_rows(source, columns=columns)}

    assert first_rows
    assert second_rows
    assert source == "buy_orders" or not first_rows & second_rows


@pytest.mark.parametrize(
    ("source", "parent"), [(source.key, parent) for source in SOURCES.values() for parent in source.parents]
)
def test_a_parent_narrows_an_export_to_its_rows(seeded: Exporter, source: str, parent: str) -> None:
    """The exports of all parents together have as many rows as the whole, for each parent of each source."""
    total = len(seeded.export_rows(source))
    table = f"{parent.removesuffix('_uuid')}s"
    uuids = [row[0] for row in seeded.query(f"select uuid from {table} where webshop_uuid = :webshop order by 1")]
    if parent == "product_uuid":
        some_rows = sum(len(seeded.export_rows(source, parents={parent: str(uuid)})) for uuid in uuids[:40])
        assert some_rows < total
        return

    assert sum(len(seeded.export_rows(source, parents={parent: str(uuid)})) for uuid in uuids) == total


def test_rows_without_a_value_come_last_in_both_directions(seeded: Exporter) -> None:
    """A user who sorts by a column wants to see its values first."""
    for direction in ("asc", "desc"):
        values = seeded.export_column(
            "products", "cost_price", sorts=[{"column": "cost_price", "direction": direction}]
        )

        prices = [Decimal(value) for value in values if value]
        assert 0 < len(prices) < len(values)
        assert not any(values[len(prices) :])
        assert prices == sorted(prices, reverse=direction == "desc")


def test_sorts_follow_each_other_and_end_in_a_total_order(seeded: Exporter) -> None:
    """Rows that are equal in one sort are ordered by the next, and at last by the unique key: never at random."""
    sorts = [{"column": "status", "direction": "desc"}, {"column": "stock_on_hand"}]
    expected = seeded.query(
        "select identifier from products where webshop_uuid = :webshop order by status desc, stock_on_hand, identifier"
    )

    found = seeded.export_column("products", "identifier", sorts=sorts)

    assert found == [row[0] for row in expected]


def test_undelivered_products_are_lines_of_open_orders(own: Exporter) -> None:
    """Lines that were delivered, and orders that were cancelled or deleted, are not in the export."""
    own.change("update buy_orders set deleted_at = now() where webshop_uuid = :webshop and number = 'BO-10001'")
    expected = own.query(
        "select sum(quantity - delivered_quantity) from buy_order_lines l"
        " join buy_orders o on o.uuid = l.buy_order_uuid"
        " where l.webshop_uuid = :webshop and o.status in ('OPEN', 'PARTIALLY_DELIVERED') and o.deleted_at is null"
        " and l.quantity > l.delivered_quantity"
    )[0][0]

    rows = own.export_rows("undelivered_products", columns=["order_number", "undelivered_quantity"])

    assert sum(int(row[1]) for row in rows) == expected
    assert "BO-10001" not in {row[0] for row in rows}
    assert "BO-10001" not in own.export_column("buy_orders", "order_number")


def test_an_export_is_one_snapshot(own: Exporter) -> None:
    """No row of the file contains a change that was made while the file was written."""
    changes: list[str] = []

    class ChangingSink(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() and not changes:
                own.change("update products set name = 'changed' where webshop_uuid = :webshop")
                changes.append("name")
            return super().write(data)

    sink = ChangingSink()

    rows = own.render(CreateExport("products", "x", "CSV", columns=["name"]), sink)

    assert (rows, changes) == (2_000, ["name"])
    assert b"changed" not in sink.getvalue()


@pytest.mark.parametrize("file_type", [FileType.CSV, FileType.XLSX])
def test_progress_is_reported_and_can_end_the_render(
    own: Exporter, file_type: FileType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A render stops in the middle when its lease was lost or its export was deleted."""
    monkeypatch.setattr(queries, "PROGRESS_SECONDS", 0.0)
    reports: list[int] = []

    class Stopped(Exception):
        pass

    def report(rows: int) -> None:
        reports.append(rows)
        if rows > 1_000:
            raise Stopped

    request = CreateExport("products", "x", file_type)

    with pytest.raises(Stopped):
        own.render(request, io.BytesIO(), report)

    assert reports == sorted(reports)
    assert 1_000 < reports[-1] < 2_000
    assert own.query("select 1") == [(1,)]


def test_progress_is_not_reported_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report costs a write to a database."""
    monkeypatch.setattr(queries, "PROGRESS_SECONDS", 600.0)
    reports: list[int] = []
    progress = Progress(reports.append)

    for _ in range(1_000):
        progress.add(1)

    assert (progress.rows, reports) == (1_000, [])


def test_a_lost_connection_is_reported_as_lost(own: Exporter) -> None:
    """The API then answers 503 instead of 500, and the export is attempted again."""

    class TerminatingSink(io.BytesIO):
        def write(self, data: Any) -> int:
            copying = "select pid from pg_stat_activity where query like 'copy%%' and datname = current_database()"
            own.query(f"select pg_terminate_backend(pid) from ({copying}) backends")
            return super().write(data)

    own.change(
        "insert into products (webshop_uuid, identifier, name) select :webshop, 'Z' || n, repeat('x', 200)"
        " from generate_series(1, 100000) n"
    )

    with pytest.raises(DBAPIError) as raised:
        own.render(CreateExport("products", "x", "CSV"), TerminatingSink())

    assert raised.value.connection_invalidated


def test_dates_can_be_compared(seeded: Exporter) -> None:
    """Two filters find the promotions that run today."""
    today = date.today().isoformat()  # noqa: DTZ011  # the seed uses the server's date
    filters = [
        {"column": "starts_on", "operator": "lte", "value": today},
        {"column": "ends_on", "operator": "gte", "value": today},
    ]
    expected = seeded.query(
        "select name from promotions where webshop_uuid = :webshop and :today between starts_on and ends_on"
        " order by starts_on, name",
        today=date.fromisoformat(today),
    )

    found = seeded.export_column("promotions", "name", filters=filters)

    assert found == [row[0] for row in expected]
