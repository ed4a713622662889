"""What an export source consists of: its columns, their types, and how its rows are found.

To add a source, write one module with a `Source` in `sources/` and add one line to the table there. The API's list of
sources, the validation of requests, the query and every writer use it from then on.
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
    """The format of an export's file."""

    CSV = "CSV"
    XLSX = "XLSX"
    PDF = "PDF"


class Operator(StrEnum):
    """How a filter compares a column with the filter's value."""

    EQ = "eq"
    NE = "ne"  # the opposite of eq: it also matches rows without a value
    IN = "in"  # value: a list
    CONTAINS = "contains"  # case-sensitive and without wildcards, like starts_with
    STARTS_WITH = "starts_with"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"  # value: [least, greatest], both included
    IS_NULL = "is_null"  # value: true or false


EQUALITY_OPERATORS = (Operator.EQ, Operator.NE, Operator.IN, Operator.IS_NULL)
ORDER_OPERATORS = (
    *EQUALITY_OPERATORS,
    Operator.GT,
    Operator.GTE,
    Operator.LT,
    Operator.LTE,
    Operator.BETWEEN,
)
TEXT_OPERATORS = (*ORDER_OPERATORS, Operator.CONTAINS, Operator.STARTS_WITH)

# Far more digits than any column holds, and far fewer than PostgreSQL accepts.
DECIMAL_PATTERN = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
LARGEST_INTEGER = 2**63 - 1  # of PostgreSQL's bigint


# Each of these functions parses one value of a filter, returns it as text in PostgreSQL's notation, and raises
# ValueError with a description of the allowed values, such as "a date, such as 2026-05-31".


def parse_text(value: object) -> str:
    """Accepts any string that PostgreSQL can store."""
    if not isinstance(value, str):
        raise ValueError("text")
    if "\0" in value:
        raise ValueError("text without NUL characters")
    return value


def parse_decimal(value: object) -> str:
    """Accepts a number, or a string that contains one: 12.5 or "12.50"."""
    if isinstance(value, float) and abs(value) < LARGEST_INTEGER:
        value = format(Decimal(repr(value)), "f")
    text = str(value)
    if isinstance(value, bool) or not DECIMAL_PATTERN.fullmatch(text):
        raise ValueError("a number, such as 12.5")
    return text


def parse_integer(value: object) -> str:
    """Accepts a whole number, or a string that contains one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or abs(int(text)) > LARGEST_INTEGER:
        raise ValueError("a whole number, such as 12")
    return text


def parse_boolean(value: object) -> str:
    """Accepts true and false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return str(value).lower()


def parse_date(value: object) -> str:
    """Accepts a string with an ISO 8601 date."""
    try:
        if isinstance(value, str) and len(value) == len("2026-05-31"):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError("a date, such as 2026-05-31")


def parse_timestamp(value: object) -> str:
    """Accepts a string with an ISO 8601 timestamp. It must have an offset: without one its meaning would be a guess."""
    try:
        timestamp = datetime.fromisoformat(value) if isinstance(value, str) else None
        if timestamp and timestamp.tzinfo:
            return timestamp.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise ValueError("a timestamp with an offset, such as 2026-05-31T12:00:00Z")


def parse_uuid(value: object) -> str:
    """Accepts a string with a UUID."""
    try:
        if isinstance(value, str):
            return str(uuid.UUID(value))
    except ValueError:
        pass
    raise ValueError("a UUID")


@dataclass(frozen=True)
class ColumnType:
    """The type of a column: which operators its filters may use, and how their values are parsed.

    Writers choose the format of a cell by the type.
    """

    name: str  # in the API
    operators: tuple[Operator, ...]
    sql_type: TypeEngine[Any]  # the type to which a filter's value is cast
    parse: Callable[[object], str]  # one of the parse functions above
    comparison_key: Callable[[str], Any] | None = None  # None for text: only the server knows its order


TEXT = ColumnType("text", TEXT_OPERATORS, Text(), parse_text)
CODE = ColumnType("code", TEXT_OPERATORS, Text(), parse_text)  # digits that a spreadsheet would read as a number
INTEGER = ColumnType("integer", ORDER_OPERATORS, BigInteger(), parse_integer, int)
DECIMAL = ColumnType("decimal", ORDER_OPERATORS, Numeric(), parse_decimal, Decimal)
BOOLEAN = ColumnType("boolean", EQUALITY_OPERATORS, Boolean(), parse_boolean)
DATE = ColumnType("date", ORDER_OPERATORS, Date(), parse_date, date.fromisoformat)
TIMESTAMP = ColumnType("timestamp", ORDER_OPERATORS, DateTime(timezone=True), parse_timestamp, datetime.fromisoformat)
UUID = ColumnType("uuid", EQUALITY_OPERATORS, Uuid(), parse_uuid)


@dataclass(frozen=True, eq=False)
class Column:
    """One column that can be exported, filtered and sorted by."""

    key: str  # in the API
    heading: str  # in the file
    type: ColumnType
    value: ColumnElement[Any]
    sortable: bool = True
    filterable: bool = True
    identifier: str = ""  # the buy order identifier that this column shows: by default only chosen ones are exported

    @property
    def operators(self) -> tuple[Operator, ...]:
        """The operators that a filter on this column may use."""
        return self.type.operators if self.filterable else ()


@dataclass(frozen=True, eq=False)
class Party:
    """A sender or recipient named on a document, with an address."""

    heading: str
    name: ColumnElement[Any]
    fallbacks: tuple[ColumnElement[Any], ...]  # printed instead of a name that our fonts cannot print
    lines: tuple[ColumnElement[Any], ...]  # printed below the name; empty ones are left out


@dataclass(frozen=True, eq=False)
class Document:
    """How rows are grouped into documents: the rows with the same `key` are the lines of one document."""

    title: str
    key: ColumnElement[Any]
    number: ColumnElement[Any]  # printed on the document; documents are ordered by it
    sender: Party
    recipient: Party
    facts: Mapping[str, ColumnElement[Any]]  # texts beside the addresses, by heading; empty ones are left out
    remarks: ColumnElement[Any]
    currency: ColumnElement[Any]  # ISO 4217
    amount: ColumnElement[Any]  # of one line; a document's total is the sum of its lines
    line_fallbacks: tuple[ColumnElement[Any], ...]  # printed instead of a line's text that our fonts cannot print
    columns: frozenset[str]  # keys of a line's columns when none are requested; the others are printed in the head


@dataclass(frozen=True, eq=False)
class Source:
    """One kind of data that can be exported."""

    key: str  # in the API
    heading: str
    table: FromClause  # one table or several joined tables
    webshop_uuid: ColumnElement[Any]  # every query is limited to one webshop by it
    unique: ColumnElement[Any]  # unique within a webshop; the last part of every order, which makes the order total
    columns: tuple[Column, ...]
    order: tuple[ColumnElement[Any], ...] = ()  # of an export without sorts; `unique` follows
    conditions: tuple[ColumnElement[bool], ...] = ()  # every row must meet them
    parents: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)  # by which it can be narrowed, by API name
    document: Document | None = None

    @property
    def file_types(self) -> tuple[FileType, ...]:
        """The file types of its exports."""
        return tuple(FileType) if self.document else (FileType.CSV, FileType.XLSX)

    def find_column(self, key: str) -> Column | None:
        """Returns the column with this key."""
        return next((column for column in self.columns if column.key == key), None)

    def find_default_columns(self, file_type: FileType, identifiers: tuple[str, ...]) -> tuple[Column, ...]:
        """Returns the columns of an export that names none: all of them, but of the identifiers only the given ones."""
        columns = (column for column in self.columns if not column.identifier or column.identifier in identifiers)
        if file_type is FileType.PDF and self.document:
            return tuple(column for column in columns if column.key in self.document.columns)
        return tuple(columns)


def belongs_to(parent: Table, key: TableColumn[Any]) -> ColumnElement[bool]:
    """Returns the condition that joins `parent` to the table of `key`, which holds its uuid; never across webshops."""
    return (parent.c.uuid == key) & (parent.c.webshop_uuid == key.table.c.webshop_uuid)
