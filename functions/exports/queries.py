"""The query of an export, and its rows on their way from the server.

Rows are copied (COPY … TO STDOUT): the server prints them in the form of the file, and nothing is done a row here. COPY
takes no bound parameters, and no value that somebody typed may stand in a statement's text; so values are bound to
settings of the transaction (`set_config`), and the query reads them from there (`current_setting`). What they contain
can then never be read as SQL, the planner still knows them, and it costs nothing that can be measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import JSON, Text, Uuid, and_, cast, func, literal_column, or_, select, text, true
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

# Prints the constants of sources and writers into a query. Named parameters, so that no percent sign is doubled.
DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

T = TypeVar("T")


@dataclass
class Progress:
    """Counts rows, and reports them about once in PROGRESS_SECONDS."""

    report: Callable[[int], None]
    rows: int = 0
    _reported: float = field(default_factory=time.monotonic)

    def add(self, rows: int) -> None:
        """Counts `rows` more. Raises what the report raises."""
        self.rows += rows
        if time.monotonic() - self._reported >= PROGRESS_SECONDS:
            self.report(self.rows)
            self._reported = time.monotonic()


@dataclass
class Values:
    """What people typed, on its way into a query: bound to settings of the transaction, by name."""

    by_setting: dict[str, str] = field(default_factory=dict)

    def bound(self, value: str, sql_type: TypeEngine[T]) -> ColumnElement[T]:
        """An expression for `value`, which is in the server's notation."""
        setting = f"export.value_{len(self.by_setting)}"
        self.by_setting[setting] = value
        return cast(func.current_setting(setting, type_=Text), sql_type)

    def bind(self, product: Connection) -> None:
        """Sets them for the rest of the transaction, all in one round trip."""
        statement = text("select set_config(key, value, true) from json_each_text(cast(:values as json))")
        product.execute(statement, {"values": msgspec.json.encode(self.by_setting).decode()})


@dataclass(frozen=True)
class Rows:
    """The rows of one export, read in one snapshot."""

    product: Connection
    webshop_uuid: UUID
    selection: Selection

    def copy(self, printed: Sequence[ColumnElement[Any]], options: str, receive: Callable[[list[bytes]], None]) -> None:
        """Hands every row to `receive`, as COPY with `options` prints the expressions `printed`, many at once.

        Raises DBAPIError where the database fails, and what `receive` raises. The connection is to be thrown away then.
        """
        query = self._query(printed)
        sql = str(query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))
        copy_out(self.product, f"copy ({sql}) to stdout with (encoding 'UTF8', {options})", receive)

    def fetch(self, values: Sequence[ColumnElement[Any]], limit: int) -> Sequence[Row[Any]]:
        """The first `limit` rows as values of Python, for a writer that has to look at them."""
        return self.product.execute(self._query(values).limit(limit)).all()

    def _query(self, printed: Sequence[ColumnElement[Any]]) -> Select[Any]:
        values = Values()
        query = rows_of(self.selection, self.webshop_uuid, values, printed)
        values.bind(self.product)
        return query


def written(sql: str) -> ColumnElement[Any]:
    """SQL of ours as it stands, where a literal of SQLAlchemy's would double its backslashes."""
    return literal_column(sql)


def begin_snapshot(product: Connection) -> None:
    """Begins the transaction of an export: everything in it is read as of one moment, however long that takes."""
    product.execute(text("set transaction isolation level repeatable read, read only"))
    product.execute(text("set local statement_timeout = 0"))


def rows_of(
    selection: Selection, webshop_uuid: UUID, values: Values, printed: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """The query of `selection`. What was typed by people ends up in `values`, not in it."""
    source = selection.source
    return (
        select(*printed)
        .select_from(source.table)
        .where(
            source.webshop_uuid == values.bound(str(webshop_uuid), Uuid()),
            *source.only,
            *(source.parents[name] == values.bound(str(uuid), Uuid()) for name, uuid in selection.parents.items()),
            satisfied(selection.conditions, values),
        )
        .order_by(*order(selection))
    )


def order(selection: Selection) -> Iterator[ColumnElement[Any]]:
    """What rows are ordered by: a total order, so that two exports of the same rows are the same file."""
    source = selection.source
    by_number: tuple[ColumnElement[Any], ...] = ()
    if selection.file_type is FileType.PDF and source.document:
        by_number = (source.document.number, source.document.key)
    yield from by_number
    yield from (
        sort.column.value.desc().nulls_last() if sort.descending else sort.column.value.asc().nulls_last()
        for sort in selection.sorts
    )
    if not selection.sorts:
        yield from source.order
    if not any(sort.column.value is source.unique for sort in selection.sorts):
        yield source.unique


def satisfied(wanted: Condition | Conditions, values: Values) -> ColumnElement[bool]:
    """The condition of a filter, or of several."""
    if isinstance(wanted, Conditions):
        members = (satisfied(member, values) for member in wanted.members)
        return or_(*members) if wanted.one_is_enough else and_(true(), *members)
    column, kind = wanted.column.value, wanted.column.type.sql_type
    if wanted.operator is Operator.IS_NULL:
        return column.is_(None) if wanted.values == ("true",) else column.is_not(None)
    if wanted.operator is Operator.IN:
        # As a table of values: PostgreSQL hashes it, and 10,000 of them cost as little as one.
        listed = values.bound(msgspec.json.encode(wanted.values).decode(), JSON())
        return column.in_(select(cast(func.json_array_elements_text(listed).column_valued("listed"), kind)))
    return COMPARISONS[wanted.operator](column, *(values.bound(value, kind) for value in wanted.values))


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
