"""What one export source is made of: its columns, their types, and how its rows are found.

To add a source: one module in `sources/` with a `Source`, and its line in the table there. The API's list, the checks
of a request, the query and every writer know it from then on.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Boolean, Date, DateTime, Numeric, Text, Uuid

if TYPE_CHECKING:
    from sqlalchemy import Column as TableColumn
    from sqlalchemy import ColumnElement, FromClause, Table
    from sqlalchemy.types import TypeEngine


class FileType(StrEnum):
    """What an export can be written as."""

    CSV = "CSV"
    XLSX = "XLSX"
    PDF = "PDF"


class Operator(StrEnum):
    """How a filter compares a column with its value."""

    EQ = "eq"
    NE = "ne"  # the opposite of eq: rows without a value are among them
    IN = "in"  # value: a list
    CONTAINS = "contains"  # to the letter, as starts_with
    STARTS_WITH = "starts_with"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"  # value: [least, greatest], both included
    IS_NULL = "is_null"  # value: true or false


EQUALITY = (Operator.EQ, Operator.NE, Operator.IN, Operator.IS_NULL)
ORDERED = (*EQUALITY, Operator.GT, Operator.GTE, Operator.LT, Operator.LTE, Operator.BETWEEN)
TEXTUAL = (*ORDERED, Operator.CONTAINS, Operator.STARTS_WITH)

NUMBER = re.compile(
    r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?"
)  # far beyond what a column holds, far below what a server takes
LARGEST_INTEGER = 2**63 - 1


def read_text(value: object) -> str:
    """A filter's text. Raises ValueError for what is none, or cannot stand in the database."""
    if not isinstance(value, str):
        raise ValueError("a text")
    if "\0" in value:
        raise ValueError("a text without NUL characters")
    return value


def read_decimal(value: object) -> str:
    """A filter's number, given as one or as text, such as 12.5 or "12.50"."""
    if isinstance(value, float) and abs(value) < LARGEST_INTEGER:
        value = format(Decimal(repr(value)), "f")
    text = str(value)
    if isinstance(value, bool) or not NUMBER.fullmatch(text):
        raise ValueError("a number, such as 12.5")
    return text


def read_integer(value: object) -> str:
    """A filter's whole number, given as one or as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or abs(int(text)) > LARGEST_INTEGER:
        raise ValueError("a whole number, such as 12")
    return text


def read_boolean(value: object) -> str:
    """A filter's yes or no."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return str(value).lower()


def read_date(value: object) -> str:
    """A filter's day."""
    try:
        if isinstance(value, str) and len(value) == len("2026-05-31"):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError("a date, such as 2026-05-31")


def read_timestamp(value: object) -> str:
    """A filter's point in time; without an offset it would be a guess."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment and moment.tzinfo:
            return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time with its offset, such as 2026-05-31T12:00:00Z")


def read_uuid(value: object) -> str:
    """A filter's UUID."""
    try:
        if isinstance(value, str):
            return str(uuid.UUID(value))
    except ValueError:
        pass
    raise ValueError("a UUID")


@dataclass(frozen=True)
class ColumnType:
    """What the values of a column are: what a filter may ask of them; writers know how to print each by its name."""

    name: str  # in the API
    operators: tuple[Operator, ...]
    sql_type: TypeEngine[Any]  # that a filter's value is cast to
    read: Callable[[object], str]  # a filter's value in the server's notation; ValueError says what is allowed
    in_order: Callable[[str], Any] | None = (
        None  # makes two values comparable; of texts only the server knows the order
    )


TEXT = ColumnType("text", TEXTUAL, Text(), read_text)
CODE = ColumnType("code", TEXTUAL, Text(), read_text)  # text of digits that spreadsheets take for a number
INTEGER = ColumnType("integer", ORDERED, BigInteger(), read_integer, int)
DECIMAL = ColumnType("decimal", ORDERED, Numeric(), read_decimal, Decimal)
BOOLEAN = ColumnType("boolean", EQUALITY, Boolean(), read_boolean)
DATE = ColumnType("date", ORDERED, Date(), read_date, date.fromisoformat)
TIMESTAMP = ColumnType("timestamp", ORDERED, DateTime(timezone=True), read_timestamp, datetime.fromisoformat)
UUID = ColumnType("uuid", EQUALITY, Uuid(), read_uuid)


@dataclass(frozen=True, eq=False)
class Column:
    """One column that can be exported, filtered and sorted by."""

    key: str  # in the API
    heading: str  # in the file
    type: ColumnType
    value: ColumnElement[Any]
    sortable: bool = True
    filterable: bool = True
    identifier: str = ""  # the buy-order setting that makes it one of the columns when none are asked for

    @property
    def operators(self) -> tuple[Operator, ...]:
        """What a filter may ask of it."""
        return self.type.operators if self.filterable else ()


@dataclass(frozen=True, eq=False)
class Party:
    """Somebody named on a document, with an address."""

    heading: str
    name: ColumnElement[Any]
    fallbacks: tuple[ColumnElement[Any], ...]  # printed in place of a name that no font of ours can print
    lines: tuple[ColumnElement[Any], ...]  # below the name; empty ones are left out


@dataclass(frozen=True, eq=False)
class Document:
    """How rows become documents to be sent: those with one `key` are the lines of one document."""

    title: str
    key: ColumnElement[Any]
    number: ColumnElement[Any]  # as printed on it; documents follow each other by it
    sender: Party
    recipient: Party
    facts: Mapping[str, ColumnElement[Any]]  # texts beside the addresses, by heading; empty ones are left out
    remarks: ColumnElement[Any]
    currency: ColumnElement[Any]  # ISO 4217
    amount: ColumnElement[Any]  # of one line; a document's total is the sum of them
    line_fallbacks: tuple[ColumnElement[Any], ...]  # printed in place of a line's text that no font of ours can print
    columns: frozenset[str]  # keys of a line's columns when none are asked for; the rest stands above the lines


@dataclass(frozen=True, eq=False)
class Source:
    """One kind of thing that can be exported."""

    key: str  # in the API
    heading: str
    table: FromClause  # a table, or tables joined
    webshop_uuid: ColumnElement[Any]  # every query is bounded by it
    unique: ColumnElement[Any]  # within a webshop; ends every order, so that it is total
    columns: tuple[Column, ...]
    order: tuple[ColumnElement[Any], ...] = ()  # of an export without sorts; then `unique`
    only: tuple[ColumnElement[bool], ...] = ()  # conditions that always hold
    parents: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)  # what it can be narrowed to, by API name
    document: Document | None = None

    @property
    def file_types(self) -> tuple[FileType, ...]:
        """What it can be written as."""
        return tuple(FileType) if self.document else (FileType.CSV, FileType.XLSX)

    def column(self, key: str) -> Column | None:
        """The column called `key`."""
        return next((column for column in self.columns if column.key == key), None)

    def default_columns(self, file_type: FileType, identifiers: tuple[str, ...]) -> tuple[Column, ...]:
        """The columns of an export that names none: all, but of the identifiers only those that are set."""
        offered = (column for column in self.columns if not column.identifier or column.identifier in identifiers)
        if file_type is FileType.PDF and self.document:
            return tuple(column for column in offered if column.key in self.document.columns)
        return tuple(offered)


def belongs_to(parent: Table, key: TableColumn[Any]) -> ColumnElement[bool]:
    """Joins `parent` to the table of `key`, which holds its uuid; never across webshops."""
    return (parent.c.uuid == key) & (parent.c.webshop_uuid == key.table.c.webshop_uuid)
