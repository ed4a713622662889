"""What an export is asked for with, and the check that it can be given.

The request is kept as it was sent and checked again when it is rendered: a source may have changed in between.
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
from shared.problems import refused

MAX_CONDITIONS = 1_000  # each is tried on every row: more would keep the database busy for minutes
MAX_DEPTH = 10  # of filters within filters; deeper ones are written by programs by mistake
MAX_VALUES = 10_000  # of one `in`: hashed once, so they cost little

Scalar = str | int | float | bool | None


class SortBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column to sort by. Rows without a value come last, in either direction."""

    column: str
    direction: Literal["asc", "desc"] = "asc"


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A condition {column, operator, value}, or several: {any: […]} where one must hold, {all: […]} where all must."""

    column: str | None = None
    operator: str | None = None
    value: Scalar | list[Scalar] | msgspec.UnsetType = msgspec.UNSET
    any: list[Filter] | None = None
    all: list[Filter] | None = None


class CreateExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /webshops/{w}/exports`."""

    source: str
    file_name: str
    file_type: str  # of FileType, in any case
    columns: list[str] | None = None  # in the order of the file; None: all
    sorts: list[SortBy] = []
    filters: list[Filter] = []  # all of them must hold
    parents: dict[str, UUID] = {}  # what to narrow it to, such as supplier_uuid
    delimiter: Literal[",", ";"] = ","  # of a CSV


@dataclass(frozen=True)
class Condition:
    """One condition, with its values in the server's notation."""

    column: Column
    operator: Operator
    values: tuple[str, ...]  # one; two for `between`; any number for `in`


@dataclass(frozen=True)
class Conditions:
    """Several conditions, of which one or all must hold."""

    one_is_enough: bool
    members: tuple[Condition | Conditions, ...]


@dataclass(frozen=True)
class Sort:
    """One column to sort by."""

    column: Column
    descending: bool


@dataclass(frozen=True)
class Selection:
    """A request that can be given: every name in it found, every value read."""

    source: Source
    file_type: FileType
    columns: tuple[Column, ...]
    conditions: Conditions
    sorts: tuple[Sort, ...]
    parents: Mapping[str, UUID]
    delimiter: str


def checked(request: CreateExport, identifiers: tuple[str, ...] = DEFAULT_IDENTIFIERS) -> Selection:
    """What `request` asks for; `identifiers` shape the columns of a buy order that names none.

    Raises Problem 422 naming the part at fault and what is allowed there.
    """
    source = SOURCES.get(request.source)
    if source is None:
        raise refused("source", unknown("source", request.source, SOURCES))
    wanted_type = file_type(source, request.file_type)
    return Selection(
        source=source,
        file_type=wanted_type,
        columns=columns(source, request.columns) or source.default_columns(wanted_type, identifiers),
        conditions=Conditions(False, tuple(conditions(source, request.filters))),
        sorts=tuple(sorts(source, request.sorts)),
        parents=parents(source, request.parents),
        delimiter=request.delimiter,
    )


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist."""
    known = list(known)
    close = get_close_matches(name[:100], known, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'There is no {what} "{shortened(name)}".{hint} Known: {", ".join(known)}.'


def shortened(value: object) -> str:
    """`value` as a sentence quotes it."""
    text = str(value)
    return text if len(text) <= 60 else text[:60] + "…"


def file_type(source: Source, name: str) -> FileType:
    """The file type called `name`, in any case."""
    if name.upper() not in FileType.__members__:
        raise refused("file_type", unknown("file type", name, source.file_types))
    chosen = FileType(name.upper())
    if chosen not in source.file_types:
        allowed = ", ".join(source.file_types)
        raise refused("file_type", f"{source.heading} cannot be exported as {chosen}. Allowed: {allowed}.")
    return chosen


def columns(source: Source, keys: list[str] | None) -> tuple[Column, ...]:
    """The columns called `keys`, in that order; none where the request leaves them open."""
    if keys is None:
        return ()
    if not keys:
        raise refused("columns", "Name at least one column, or leave the field out for all of them.")
    found: dict[str, Column] = {}
    for position, key in enumerate(keys):
        at = f"columns[{position}]"
        if key in found:
            raise refused(at, f'The column "{key}" is named twice. Name each column once.')
        found[key] = existing(source, key, at)
    return tuple(found.values())


def existing(source: Source, key: str, at: str) -> Column:
    """The column called `key`."""
    column = source.column(key)
    if column is None:
        raise refused(at, unknown("column", key, (column.key for column in source.columns)))
    return column


def sorts(source: Source, wanted: list[SortBy]) -> Iterator[Sort]:
    """What to sort by; each column once, since a second time would change nothing."""
    seen = set()
    for position, sort in enumerate(wanted):
        at = f"sorts[{position}].column"
        column = existing(source, sort.column, at)
        if not column.sortable:
            known = ", ".join(column.key for column in source.columns if column.sortable)
            raise refused(at, f'"{column.key}" cannot be sorted by. Allowed: {known}.')
        if column.key in seen:
            raise refused(at, f'"{column.key}" is sorted by twice. Name each column once.')
        seen.add(column.key)
        yield Sort(column, sort.direction == "desc")


def parents(source: Source, wanted: Mapping[str, UUID]) -> Mapping[str, UUID]:
    """What to narrow the source to."""
    for name in wanted:
        if name not in source.parents:
            allowed = f"Allowed: {', '.join(source.parents)}." if source.parents else "It cannot be narrowed."
            at = f"parents.{shortened(name)}"
            raise refused(at, f'{source.heading} cannot be narrowed by "{shortened(name)}". {allowed}')
    return dict(wanted)


def conditions(source: Source, filters: list[Filter]) -> Iterator[Condition | Conditions]:
    """The filters, read."""
    count = 0

    def read(members: list[Filter], at: str, depth: int) -> Iterator[Condition | Conditions]:
        nonlocal count
        if depth > MAX_DEPTH:
            raise refused(at, f"Filters may stand {MAX_DEPTH} deep within each other.")
        for position, member in enumerate(members):
            count += 1
            if count > MAX_CONDITIONS:
                advice = f'To look for many values use the operator "in": it takes {MAX_VALUES:,}.'
                raise refused("filters", f"An export may have {MAX_CONDITIONS:,} filters. {advice}")
            here = f"{at}[{position}]"
            if sum(part is not None for part in (member.column, member.any, member.all)) != 1:
                forms = "{column, operator, value}, {any: […]} or {all: […]}"
                raise refused(here, f"A filter is one of {forms}.")
            several = member.any if member.any is not None else member.all
            if several is None:
                yield condition(source, member, here)
                continue
            name = "any" if member.any is not None else "all"
            if not several or member.operator is not None or member.value is not msgspec.UNSET:
                raise refused(f"{here}.{name}", f'"{name}" takes a list of at least one filter, and nothing beside it.')
            yield Conditions(name == "any", tuple(read(several, f"{here}.{name}", depth + 1)))

    yield from read(filters, "filters", 1)


def condition(source: Source, wanted: Filter, at: str) -> Condition:
    """One filter, read."""
    column = existing(source, wanted.column or "", f"{at}.column")
    if not column.filterable:
        known = ", ".join(column.key for column in source.columns if column.filterable)
        raise refused(f"{at}.column", f'"{column.key}" cannot be filtered by. Allowed: {known}.')
    name = wanted.operator or ""
    if name not in column.operators:
        allowed = ", ".join(column.operators)
        sentence = f'"{column.key}" ({column.type.name}) has no operator "{shortened(name)}". Allowed: {allowed}.'
        raise refused(f"{at}.operator", sentence)
    operator = Operator(name)
    return Condition(column, operator, values(column, operator, wanted.value, f"{at}.value"))


def values(column: Column, operator: Operator, value: object, at: str) -> tuple[str, ...]:
    """The values of one filter, in the server's notation."""

    def read(one: object, at: str) -> str:
        try:
            return column.type.read(one)
        except ValueError as error:
            shown = "nothing" if one in (None, msgspec.UNSET) else f'"{shortened(one)}"'
            sentence = f'"{column.key}" {operator} takes {error}, not {shown}.'
            raise refused(at, f'{sentence} For empty cells use the operator "is_null".') from error

    if operator is Operator.IS_NULL:
        if not isinstance(value, bool):
            raise refused(at, f'"{column.key}" is_null takes true or false.')
        return (str(value).lower(),)
    if operator not in (Operator.IN, Operator.BETWEEN):
        return (read(value, at),)
    if not isinstance(value, list):
        example = "[least, greatest]" if operator is Operator.BETWEEN else "a list"
        raise refused(at, f'"{column.key}" {operator} takes {example}.')
    if len(value) > MAX_VALUES:
        raise refused(at, f'"{column.key}" {operator} takes at most {MAX_VALUES:,} values.')
    found = tuple(read(one, f"{at}[{position}]") for position, one in enumerate(value))
    if operator is Operator.BETWEEN:
        in_order(column, found, at)
    elif not found:
        raise refused(at, f'"{column.key}" in takes a list of at least one value.')
    return found


def in_order(column: Column, found: tuple[str, ...], at: str) -> None:
    """Refuses a `between` that no value can be in."""
    if len(found) != 2:
        raise refused(at, f'"{column.key}" between takes two values: [least, greatest].')
    least, greatest = found
    comparable = column.type.in_order
    if comparable and comparable(least) > comparable(greatest):
        sentence = f'"{column.key}" between {least} and {greatest} holds nothing: the smaller value stands first.'
        raise refused(at, sentence)
