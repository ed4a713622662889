"""Applies one batch to the product database: one set-based statement and its outcome, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from shared.clients.databases import constraint_name, sqlstate
from shared.columns import BY_KEY, IDENTIFIER
from shared.imports import gate
from shared.messages import BatchApplied, CellError, ImportBatch, Message, ProductsUpdated, RefusedRow
from shared.tables.product import PRIMARY_KEY_OF_OUTCOMES

# Rules on values that need not stand in the file: an SQL condition on the row as it would be, and what breaks it.
NOT_FOUND = "not_found"
MAXIMUM_BELOW_MINIMUM = "maximum_below_minimum"
STOCK_LEVELS = ("minimum_stock", "maximum_stock")

# PostgreSQL's classes "data exception" and "integrity constraint violation": the rows are at fault, not the server.
REFUSED_ROW_CLASSES = ("22", "23")

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of one batch."""

    updated: tuple[str, ...]  # identifiers of the products that changed
    unchanged: int  # rows that were equal already
    refused: tuple[RefusedRow, ...]


def apply(product: Connection, batch: ImportBatch) -> Outcome:
    """Applies `batch` in the transaction of `product` and returns what became of each of its rows.

    A batch that was applied before is not applied again: its recorded outcome is returned.
    Raises Fenced when the import was closed or run again: this delivery is too late to matter.
    """
    if recorded := outcome_of(product, batch):
        return recorded
    gate.pass_gate(product, batch)
    try:
        with product.begin_nested():
            outcome = update_products(product, batch)
            record(product, batch, outcome)
    except IntegrityError as error:
        if constraint_name(error) != PRIMARY_KEY_OF_OUTCOMES:
            raise
        # A twin of this delivery was quicker: what it recorded is what became of the rows.
        recorded = outcome_of(product, batch)
        assert recorded, "an outcome that conflicts is there to be read"  # noqa: S101  # the key says so
        return recorded
    return outcome


def update_products(product: Connection, batch: ImportBatch) -> Outcome:
    """Updates all rows by one statement; where the database refuses that, one by one, so one never spoils 500."""
    try:
        with product.begin_nested():
            return update_rows(product, batch, batch.row_numbers, batch.rows)
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
    each = [update_row(product, batch, number, row) for number, row in zip(batch.row_numbers, batch.rows, strict=True)]
    return Outcome(
        updated=tuple(identifier for one in each for identifier in one.updated),
        unchanged=sum(one.unchanged for one in each),
        refused=tuple(row for one in each for row in one.refused),
    )


def update_row(product: Connection, batch: ImportBatch, row_number: int, row: Row) -> Outcome:
    """Updates one row under a savepoint; what the database refuses is a refused row."""
    try:
        with product.begin_nested():
            return update_rows(product, batch, (row_number,), (row,))
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
        rule = constraint_name(error) or sqlstate(error)
        problem = CellError("", "", "refused_by_database", f"The product database refused this row (rule {rule}).")
        return Outcome((), 0, (RefusedRow(row_number, (problem,)),))


def update_rows(
    product: Connection, batch: ImportBatch, row_numbers: tuple[int, ...], rows: tuple[Row, ...]
) -> Outcome:
    """Sends the rows as one JSON text: the server takes it apart, which costs a sixth of encoding Python lists."""
    statement = update_statement(batch.columns)
    found = product.execute(statement, parameters(batch.webshop_uuid, row_numbers, rows)).one()
    refused = refused_rows(found.refused)
    updated = tuple(found.updated or ())
    return Outcome(updated, len(rows) - len(updated) - len(refused), refused)


def refusals(product: Connection, batch: ImportBatch) -> tuple[RefusedRow, ...]:
    """Which rows would be refused for what is stored, without changing or locking anything."""
    values = parameters(batch.webshop_uuid, batch.row_numbers, batch.rows)
    return refused_rows(product.execute(check_statement(batch.columns), values).scalar_one())


def parameters(webshop_uuid: UUID, row_numbers: tuple[int, ...], rows: tuple[Row, ...]) -> dict[str, Any]:
    """The rows as JSON: [[row number, value, …], …]."""
    numbered = [(number, *row) for number, row in zip(row_numbers, rows, strict=True)]
    return {"webshop_uuid": webshop_uuid, "rows": msgspec.json.encode(numbered).decode()}


def refused_rows(found: list[list[Any]] | None) -> tuple[RefusedRow, ...]:
    """The statement's [[row number, code, identifier, minimum, maximum], …] as sentences."""
    return tuple(
        RefusedRow(row_number, (problem(code, identifier, minimum, maximum),))
        for row_number, code, identifier, minimum, maximum in sorted(found or ())
    )


def problem(code: str, identifier: str, minimum: int | None, maximum: int | None) -> CellError:
    """What a person needs to know of a rule that the stored product breaks."""
    if code == NOT_FOUND:
        value = identifier[: CellError.VALUE_LENGTH]
        return CellError(IDENTIFIER.key, value, code, f'This webshop has no product with the identifier "{value}".')
    sentence = f"With this row the maximum stock would be {maximum}, below the minimum stock of {minimum}."
    return CellError("maximum_stock", str(maximum), code, sentence)


def outcome_of(product: Connection, batch: ImportBatch) -> Outcome | None:
    """The recorded outcome of `batch`, or None when it was not applied yet."""
    statement = text(
        "select updated, unchanged, refused, identifiers from import_outcomes"
        " where import_uuid = :import_uuid and run = :run and first_row = :first_row"
    )
    key = {"import_uuid": batch.import_uuid, "run": batch.run, "first_row": batch.first_row}
    recorded = product.execute(statement, key).one_or_none()
    if recorded is None:
        return None
    refused = msgspec.convert(recorded.refused, tuple[RefusedRow, ...])
    return Outcome(tuple(recorded.identifiers), recorded.unchanged, refused)


def messages(batch: ImportBatch, outcome: Outcome) -> tuple[Message, ...]:
    """What the others need to know of an outcome: the ledger always, the mirror where something changed."""
    key = (batch.webshop_uuid, batch.import_uuid, batch.run, batch.first_row)
    applied = BatchApplied(*key, len(outcome.updated), outcome.unchanged, outcome.refused)
    return (applied, ProductsUpdated(*key, outcome.updated)) if outcome.updated else (applied,)


def results_of_run(product: Connection, import_uuid: UUID, run: int) -> list[BatchApplied]:
    """What became of every batch of a run that was applied."""
    statement = text(
        "select webshop_uuid, import_uuid, run, first_row, updated, unchanged, refused"
        " from import_outcomes where import_uuid = :import_uuid and run = :run"
    )
    rows = product.execute(statement, {"import_uuid": import_uuid, "run": run}).mappings()
    return [msgspec.convert(dict(row), BatchApplied) for row in rows]


def record(product: Connection, batch: ImportBatch, outcome: Outcome) -> None:
    """Writes the outcome beside the rows it changed. What changed nothing needs no mirroring."""
    statement = text("""
        insert into import_outcomes
            (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused, identifiers, mirrored_at)
        values (:import_uuid, :run, :first_row, :webshop_uuid, :updated, :unchanged,
                cast(:refused as jsonb), cast(:identifiers as jsonb),
                case when :updated = 0 then clock_timestamp() end)
    """)
    values = {
        "import_uuid": batch.import_uuid,
        "run": batch.run,
        "first_row": batch.first_row,
        "webshop_uuid": batch.webshop_uuid,
        "updated": len(outcome.updated),
        "unchanged": outcome.unchanged,
        "refused": msgspec.json.encode(outcome.refused).decode(),
        "identifiers": msgspec.json.encode(outcome.updated).decode(),
    }
    product.execute(statement, values)


@cache
def update_statement(columns: tuple[str, ...]) -> TextClause:
    """Locks the products of a batch in identifier order, judges each row, and updates what differs.

    The order keeps two batches with the same products from deadlocking. Every name in the text comes from the column
    table: a column that is not in it raises KeyError.
    """
    changed = [BY_KEY[key].key for key in columns if key != IDENTIFIER.key]
    now, wanted = (", ".join(f"{row}.{key}" for key in changed) for row in ("p", "j"))
    return text(f"""
        {judged(columns, lock="for update of p")},
        changed as (
            update products p
            set {", ".join(f"{key} = j.{key}" for key in changed)}, updated_at = now()
            from judged j
            where p.webshop_uuid = :webshop_uuid and p.identifier = j.identifier and j.code is null
              and ({now}) is distinct from ({wanted})
            returning p.identifier
        )
        select (select json_agg(identifier) from changed) as updated, {REFUSED} as refused
    """)


@cache
def check_statement(columns: tuple[str, ...]) -> TextClause:
    """What update_statement would refuse, and nothing else of it."""
    return text(f"{judged(columns, lock='')} select {REFUSED}")


REFUSED = """(select json_agg(json_build_array(row_number, code, identifier, minimum_stock, maximum_stock))
         from judged where code is not null)"""


def judged(columns: tuple[str, ...], lock: str) -> str:
    """The rows of a batch as they would stand in the database, each with the code of the rule it breaks."""
    concerned = tuple(dict.fromkeys([key for key in columns if key != IDENTIFIER.key] + list(STOCK_LEVELS)))
    incoming = ", ".join(f"value->>{position} as {BY_KEY[key].key}" for position, key in enumerate(columns, start=1))
    wanted = ", ".join(
        f"case when i.{key} = '' then s.{key} else cast(i.{key} as {BY_KEY[key].kind.sql_type}) end as {key}"
        if key in columns
        else f"s.{key}"
        for key in concerned
    )
    return f"""
        with incoming as (
            select cast(value->>0 as integer) as row_number, {incoming}
            from json_array_elements(cast(:rows as json))
        ),
        stored as materialized (
            select p.identifier, {", ".join(f"p.{key}" for key in concerned)}
            from products p
            where p.webshop_uuid = :webshop_uuid and p.identifier in (select identifier from incoming)
            order by p.identifier {lock}
        ),
        wanted as (
            select i.row_number, i.identifier, s.identifier is not null as found, {wanted}
            from incoming i left join stored s on s.identifier = i.identifier
        ),
        judged as materialized (
            select *, case when not found then '{NOT_FOUND}'
                           when maximum_stock < minimum_stock then '{MAXIMUM_BELOW_MINIMUM}' end as code
            from wanted
        )"""
