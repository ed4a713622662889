"""The query of an export, and how its rows are read from the database.

Rows are read with COPY … TO STDOUT: PostgreSQL prints them in the format of the file, and Python does no work per row.
COPY takes no bound parameters, and a value that a user typed must never be part of a statement's text. So values are
bound to settings of the transaction (`set_config`), and the query reads them from there (`current_setting`). They can
never be read as SQL, the planner still sees their values, and the cost is too small to measure.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import JSON, Text, Uuid, and_, cast, func, or_, select, text, true
from sqlalchemy.dialects import postgresql

from functions.exports.requests import Condition, Conditions, Selection
from functions.exports.source import FileType, Operator
from shared.clients.copying import copy_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from sqlalchemy import ColumnElement, Connection, Row, Select
    from sqlalchemy.types import TypeEngine

PROGRESS_SECONDS = 1.0  # between two reports: often enough to watch and to keep a lease, too seldom to cost anything

# Compiles queries that contain constants of sources and writers. Named parameters, so that percent signs stay single.
DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

T = TypeVar("T")


@dataclass
class Progress:
    """Counts rows and reports the count about every PROGRESS_SECONDS."""

    report: Callable[[int], None]
    rows: int = 0
    _reported_at: float = field(default_factory=time.monotonic)

    def add(self, rows: int) -> None:
        """Adds `rows` to the count. Raises what `report` raises."""
        self.rows += rows
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS:
            self.report(self.rows)
            self._reported_at = time.monotonic()


@dataclass
class BoundValues:
    """The values of a query that come from users, by the name of the transaction's setting that holds each."""

    by_setting: dict[str, str] = field(default_factory=dict)

    def bind(self, value: str, sql_type: TypeEngine[T]) -> ColumnElement[T]:
        """Adds `value`, which is in PostgreSQL's notation, and returns an expression that reads it."""
        setting = f"export.value_{len(self.by_setting)}"
        self.by_setting[setting] = value
        return cast(func.current_setting(setting, type_=Text), sql_type)

    def store(self, conn: Connection) -> None:
        """Stores all values for the rest of the transaction, in one round trip."""
        statement = text("select set_config(key, value, true) from json_each_text(cast(:values as json))")
        conn.execute(statement, {"values": msgspec.json.encode(self.by_setting).decode()})


@dataclass(frozen=True)
class Rows:
    """The rows of one export, read in one snapshot."""

    conn: Connection
    webshop_uuid: UUID
    selection: Selection

    def copy(
        self, expressions: Sequence[ColumnElement[Any]], options: str, receive: Callable[[list[bytes]], None]
    ) -> None:
        """Passes every row to `receive`, many per call, as COPY prints `expressions` with `options`.

        Raises DBAPIError when the database fails, and what `receive` raises. Discard the connection after either.
        """
        query = self._prepare_query(expressions)
        sql = str(query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))
        copy_out(self.conn, f"copy ({sql}) to stdout with (encoding 'UTF8', {options})", receive)

    def fetch(self, expressions: Sequence[ColumnElement[Any]], limit: int) -> Sequence[Row[Any]]:
        """Returns the first `limit` rows as Python values, for a writer that has to look at them."""
        return self.conn.execute(self._prepare_query(expressions).limit(limit)).all()

    def _prepare_query(self, expressions: Sequence[ColumnElement[Any]]) -> Select[Any]:
        values = BoundValues()
        query = build_query(self.selection, self.webshop_uuid, values, expressions)
        values.store(self.conn)
        return query


def begin_snapshot(conn: Connection) -> None:
    """Begins the transaction of an export: it reads everything as of one moment, without a time limit."""
    conn.execute(text("set transaction isolation level repeatable read, read only"))
    conn.execute(text("set local statement_timeout = 0"))


def build_query(
    selection: Selection, webshop_uuid: UUID, values: BoundValues, expressions: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """Returns the query of `selection`. Values that come from users are added to `values`, not to the query."""
    source = selection.source
    return (
        select(*expressions)
        .select_from(source.table)
        .where(
            source.webshop_uuid == values.bind(str(webshop_uuid), Uuid()),
            *source.conditions,
            *(source.parents[name] == values.bind(str(uuid), Uuid()) for name, uuid in selection.parents.items()),
            build_condition(selection.conditions, values),
        )
        .order_by(*build_order(selection))
    )


def build_order(selection: Selection) -> Iterator[ColumnElement[Any]]:
    """Returns a total order, so that two exports of the same rows give the same file."""
    source = selection.source
    if selection.file_type is FileType.PDF and source.document:
        yield from (source.document.number, source.document.key)
    yield from (
        sort.column.value.desc().nulls_last() if sort.descending else sort.column.value.asc().nulls_last()
        for sort in selection.sorts
    )
    if not selection.sorts:
        yield from source.order
    if not any(sort.column.value is source.unique for sort in selection.sorts):
        yield source.unique


def build_condition(condition: Condition | Conditions, values: BoundValues) -> ColumnElement[bool]:
    """Returns the SQL of one condition, or of several."""
    if isinstance(condition, Conditions):
        members = (build_condition(member, values) for member in condition.members)
        return or_(*members) if condition.one_is_enough else and_(true(), *members)
    column, sql_type = condition.column.value, condition.column.type.sql_type
    if condition.operator is Operator.IS_NULL:
        return column.is_(None) if condition.values == ("true",) else column.is_not(None)
    if condition.operator is Operator.IN:
        # As a table of values: PostgreSQL hashes it, and 10,000 values cost as little as one.
        json_list = values.bind(msgspec.json.encode(condition.values).decode(), JSON())
        items = func.json_array_elements_text(json_list).column_valued("items")
        return column.in_(select(cast(items, sql_type)))
    return COMPARISONS[condition.operator](column, *(values.bind(value, sql_type) for value in condition.values))


COMPARISONS: dict[Operator, Callable[..., ColumnElement[bool]]] = {
    Operator.EQ: lambda column, value: column == value,
    Operator.NE: lambda column, value: column.is_distinct_from(value),
    Operator.GT: lambda column, value: column > value,
    Operator.GTE: lambda column, value: column >= value,
    Operator.LT: lambda column, value: column < value,
    Operator.LTE: lambda column, value: column <= value,
    Operator.BETWEEN: lambda column, least, greatest: column.between(least, greatest),
    Operator.CONTAINS: lambda column, value: func.strpos(column, value) > 0,
    Operator.STARTS_WITH: func.starts_with,
}
