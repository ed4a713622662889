"""The request for an export, and its validation.

The request is stored as it was sent and validated again when it is rendered: the source may have changed in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal
from uuid import UUID

import msgspec

from functions.exports.identifiers import DEFAULT_IDENTIFIERS
from functions.exports.source import Column, FileType, Operator, Source
from functions.exports.sources import SOURCES
from shared.problems import invalid_input

MAX_CONDITIONS = 1_000  # groups included; each is evaluated for every row: more would take the database minutes
MAX_DEPTH = 10  # of nested filters; only a faulty program nests deeper
MAX_VALUES = 10_000  # of one `in`; they are hashed once, so they cost little
MAX_QUOTED_LENGTH = 60  # of a value quoted in a message

Scalar = str | int | float | bool | None


class SortBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column to sort by. Rows without a value come last in both directions."""

    column: str
    direction: Literal["asc", "desc"] = "asc"


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A condition {column, operator, value}, or a group: {any: […]}, where one is enough, or {all: […]}."""

    column: str | None = None
    operator: str | None = None
    value: Scalar | list[Scalar] | msgspec.UnsetType = msgspec.UNSET
    any: list[Filter] | None = None
    all: list[Filter] | None = None


class CreateExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /webshops/{w}/exports`."""

    source: str
    file_name: str
    file_type: str  # a FileType in upper or lower case
    columns: list[str] | None = None  # in the order of the file; None: the default ones of the source
    sorts: list[SortBy] = []
    filters: list[Filter] = []  # all of them must hold
    parents: dict[str, UUID] = {}  # narrow the export, for example to one supplier_uuid
    delimiter: Literal[",", ";"] = ","  # of a CSV file


@dataclass(frozen=True)
class Condition:
    """One condition, with its values in PostgreSQL's notation."""

    column: Column
    operator: Operator
    values: tuple[str, ...]  # one; two for `between`; any number for `in`


@dataclass(frozen=True)
class Conditions:
    """Several conditions, of which at least one or all must hold."""

    one_is_enough: bool
    members: tuple[Condition | Conditions, ...]


@dataclass(frozen=True)
class Sort:
    """One column to sort by."""

    column: Column
    descending: bool


@dataclass(frozen=True)
class Selection:
    """A validated request: every name is resolved, every value is parsed."""

    source: Source
    file_type: FileType
    columns: tuple[Column, ...]
    conditions: Conditions
    sorts: tuple[Sort, ...]
    parents: Mapping[str, UUID]
    delimiter: str


def validate(request: CreateExport, identifiers: tuple[str, ...] = DEFAULT_IDENTIFIERS) -> Selection:
    """Returns what `request` selects. `identifiers` are those that a buy order shows if the request names no columns.

    Raises Problem 422, which names the invalid field and what is allowed there.
    """
    source = SOURCES.get(request.source)
    if source is None:
        raise invalid_input("source", describe_unknown("source", request.source, SOURCES))
    file_type = parse_file_type(source, request.file_type)
    columns = find_columns(source, request.columns) or source.find_default_columns(file_type, identifiers)
    return Selection(
        source=source,
        file_type=file_type,
        columns=columns,
        conditions=Conditions(one_is_enough=False, members=tuple(parse_filters(source, request.filters))),
        sorts=tuple(parse_sorts(source, request.sorts)),
        parents=check_parents(source, request.parents),
        delimiter=request.delimiter,
    )


def describe_unknown(kind: str, name: str, known_names: Iterable[str]) -> str:
    """Returns the message for an unknown name. `kind` is the kind of thing that it should name, such as "column"."""
    known_names = list(known_names)
    matches = get_close_matches(name[:100], known_names, n=1)
    hint = f' Did you mean "{matches[0]}"?' if matches else ""
    return f'There is no {kind} "{shorten(name)}".{hint} Known {kind}s: {", ".join(known_names)}.'


def shorten(value: object) -> str:
    """Returns `value` as a message quotes it."""
    text = str(value)
    return text if len(text) <= MAX_QUOTED_LENGTH else text[:MAX_QUOTED_LENGTH] + "…"


def parse_file_type(source: Source, name: str) -> FileType:
    """Returns the file type with this name, in upper or lower case."""
    if name.upper() not in FileType.__members__:
        raise invalid_input("file_type", describe_unknown("file type", name, source.file_types))
    file_type = FileType(name.upper())
    if file_type not in source.file_types:
        allowed = ", ".join(source.file_types)
        raise invalid_input("file_type", f"{source.heading} cannot be exported as {file_type}. Allowed: {allowed}.")
    return file_type


def find_columns(source: Source, keys: list[str] | None) -> tuple[Column, ...]:
    """Returns the columns with these keys, in the same order; an empty tuple if `keys` is None."""
    if keys is None:
        return ()
    if not keys:
        raise invalid_input("columns", "Name at least one column, or leave the field out to export the default ones.")
    columns: dict[str, Column] = {}
    for position, key in enumerate(keys):
        field = f"columns[{position}]"
        if key in columns:
            raise invalid_input(field, f'The column "{key}" is named twice. Name each column once.')
        columns[key] = find_column(source, key, field)
    return tuple(columns.values())


def find_column(source: Source, key: str, field: str) -> Column:
    """Returns the column with this key. `field` is the request's field that names it."""
    column = source.find_column(key)
    if column is None:
        raise invalid_input(field, describe_unknown("column", key, (column.key for column in source.columns)))
    return column


def parse_sorts(source: Source, sorts: list[SortBy]) -> Iterator[Sort]:
    """Finds the columns to sort by. Each column may appear once: a second time would have no effect."""
    keys = set()
    for position, sort in enumerate(sorts):
        field = f"sorts[{position}].column"
        column = find_column(source, sort.column, field)
        if not column.sortable:
            allowed = ", ".join(column.key for column in source.columns if column.sortable)
            raise invalid_input(field, f'An export cannot be sorted by "{column.key}". Allowed: {allowed}.')
        if column.key in keys:
            raise invalid_input(field, f'The column "{column.key}" appears twice in the sorts. Name each column once.')
        keys.add(column.key)
        yield Sort(column, sort.direction == "desc")


def check_parents(source: Source, parents: Mapping[str, UUID]) -> Mapping[str, UUID]:
    """Returns a copy of `parents`. Refuses a parent that the source does not have."""
    for name in parents:
        if name not in source.parents:
            allowed = f"Allowed: {', '.join(source.parents)}." if source.parents else "This source has no parents."
            field = f"parents.{shorten(name)}"
            raise invalid_input(field, f'{source.heading} cannot be narrowed by "{shorten(name)}". {allowed}')
    return dict(parents)


def parse_filters(source: Source, filters: list[Filter]) -> Iterator[Condition | Conditions]:
    """Parses the filters, with those inside groups."""
    count = 0

    def parse_members(members: list[Filter], field: str, depth: int) -> Iterator[Condition | Conditions]:
        nonlocal count
        if depth > MAX_DEPTH:
            raise invalid_input(field, f"Filters may be nested at most {MAX_DEPTH} levels deep.")
        for position, member in enumerate(members):
            count += 1
            if count > MAX_CONDITIONS:
                advice = f'To look for many values, use the operator "in": it takes up to {MAX_VALUES:,}.'
                raise invalid_input("filters", f"An export may have at most {MAX_CONDITIONS:,} filters. {advice}")
            member_field = f"{field}[{position}]"
            if sum(part is not None for part in (member.column, member.any, member.all)) != 1:
                forms = "{column, operator, value}, {any: […]} or {all: […]}"
                raise invalid_input(member_field, f"A filter is one of {forms}.")
            group = member.any if member.any is not None else member.all
            if group is None:
                yield parse_filter(source, member, member_field)
                continue
            name = "any" if member.any is not None else "all"
            group_field = f"{member_field}.{name}"
            if not group or member.operator is not None or member.value is not msgspec.UNSET:
                detail = f'"{name}" takes a list of at least one filter, and allows no other field beside it.'
                raise invalid_input(group_field, detail)
            yield Conditions(name == "any", tuple(parse_members(group, group_field, depth + 1)))

    yield from parse_members(filters, "filters", 1)


def parse_filter(source: Source, member: Filter, field: str) -> Condition:
    """Parses one filter that is a condition, not a group."""
    column = find_column(source, member.column or "", f"{field}.column")
    if not column.filterable:
        allowed = ", ".join(column.key for column in source.columns if column.filterable)
        raise invalid_input(f"{field}.column", f'An export cannot be filtered by "{column.key}". Allowed: {allowed}.')
    name = member.operator or ""
    if name not in column.operators:
        allowed = ", ".join(column.operators)
        detail = f'"{column.key}" ({column.type.name}) has no operator "{shorten(name)}". Allowed: {allowed}.'
        raise invalid_input(f"{field}.operator", detail)
    operator = Operator(name)
    return Condition(column, operator, parse_values(column, operator, member.value, f"{field}.value"))


def parse_values(column: Column, operator: Operator, value: object, field: str) -> tuple[str, ...]:
    """Returns the values of one filter in PostgreSQL's notation."""

    def parse(item: object, item_field: str) -> str:
        try:
            return column.type.parse(item)
        except ValueError as error:
            found = "empty" if item in (None, msgspec.UNSET) else f'"{shorten(item)}"'
            detail = f'"{column.key}" {operator} takes {error}, but the value is {found}.'
            raise invalid_input(item_field, f'{detail} To find empty cells, use the operator "is_null".') from error

    if operator is Operator.IS_NULL:
        if not isinstance(value, bool):
            raise invalid_input(field, f'"{column.key}" is_null takes true or false.')
        return (str(value).lower(),)
    if operator not in (Operator.IN, Operator.BETWEEN):
        return (parse(value, field),)
    if not isinstance(value, list):
        example = "[least, greatest]" if operator is Operator.BETWEEN else "a list"
        raise invalid_input(field, f'"{column.key}" {operator} takes {example}.')
    if len(value) > MAX_VALUES:
        raise invalid_input(field, f'"{column.key}" {operator} takes at most {MAX_VALUES:,} values.')
    values = tuple(parse(item, f"{field}[{position}]") for position, item in enumerate(value))
    if operator is Operator.BETWEEN:
        check_bounds(column, values, field)
    elif not values:
        raise invalid_input(field, f'"{column.key}" in takes a list of at least one value.')
    return values


def check_bounds(column: Column, bounds: tuple[str, ...], field: str) -> None:
    """Refuses a `between` that does not have two bounds, or that no value can match."""
    if len(bounds) != 2:
        raise invalid_input(field, f'"{column.key}" between takes two values: [least, greatest].')
    least, greatest = bounds
    key = column.type.comparison_key
    if key and key(least) > key(greatest):
        detail = f'"{column.key}" between {least} and {greatest} matches nothing. Write the smaller value first.'
        raise invalid_input(field, detail)
