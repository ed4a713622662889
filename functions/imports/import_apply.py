"""import_apply: applies one batch of an import to the product database, exactly once in effect.

A batch delivered again finds its outcome recorded beside the rows it changed, in the same transaction, and only sends
that outcome again: the sender may have been killed between commit and send.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from functions.imports import gate
from functions.imports.states import MIRROR_AGAIN_SECONDS
from shared import clients
from shared.clients.databases import constraint_name, sqlstate
from shared.columns import BY_KEY, IDENTIFIER
from shared.delivery import kafka_function
from shared.messages import BatchApplied, CellError, ImportBatch, Message, ProductsUpdated, RefusedRow
from shared.tables.product import PRIMARY_KEY_OF_OUTCOMES

# Rules on values that need not stand in the file: an SQL condition on the row as it would be, and what breaks it.
NOT_FOUND = "not_found"
MAXIMUM_BELOW_MINIMUM = "maximum_below_minimum"

# Of one delivery, when others write the same products: the second sees what they wrote, or the outcome of a twin.
ATTEMPTS = 5

# PostgreSQL's classes "data exception", "integrity constraint violation", "with check option violation" and what a
# trigger raises: the rows are at fault, not the server.
REFUSED_ROW_CLASSES = ("22", "23", "44", "P0")

Row = tuple[str | None, ...]


@kafka_function(ImportBatch)
def import_apply(batch: ImportBatch) -> None:
    """Called for `webshop.products.import`."""
    with clients.product_database().begin() as product:
        outcome = apply(product, batch)
    clients.kafka().send(*messages(batch, outcome))


class Overtaken(Exception):
    """Somebody else wrote the same products at the same moment, often a twin of this delivery: to be tried again."""


@dataclass(frozen=True)
class BatchResult:
    """What became of the rows of one batch."""

    updated: tuple[str, ...]  # identifiers of the products that changed
    unchanged: int  # rows that were equal already
    refused: tuple[RefusedRow, ...]


def apply(product: Connection, batch: ImportBatch) -> BatchResult:
    """Applies `batch` in the transaction of `product` and returns what became of each of its rows.

    A batch that was applied before is not applied again: its recorded outcome is returned.
    Raises NothingToDo when the import was closed or run again: this delivery is too late to matter.
    """
    for _ in range(ATTEMPTS):
        if recorded := outcome_of(product, batch):
            return recorded
        gate.pass_gate(product, batch)
        try:
            with product.begin_nested():
                outcome = update_products(product, batch)
                record(product, batch, outcome)
                return outcome
        except Overtaken:
            continue
        except IntegrityError as error:
            if constraint_name(error) != PRIMARY_KEY_OF_OUTCOMES:
                raise
    raise Overtaken(f"the products of the batch from row {batch.first_row} on are being changed by others all the time")


def update_products(product: Connection, batch: ImportBatch) -> BatchResult:
    """Updates all rows by one statement; where the database refuses that, one by one, so one never spoils 500."""
    try:
        with product.begin_nested():
            return update_rows(product, batch, batch.row_numbers, batch.rows)
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
    each = [update_row(product, batch, number, row) for number, row in zip(batch.row_numbers, batch.rows, strict=True)]
    return BatchResult(
        updated=tuple(identifier for one in each for identifier in one.updated),
        unchanged=sum(one.unchanged for one in each),
        refused=tuple(row for one in each for row in one.refused),
    )


def update_row(product: Connection, batch: ImportBatch, row_number: int, row: Row) -> BatchResult:
    """Updates one row under a savepoint; what the database refuses is a refused row."""
    try:
        with product.begin_nested():
            return update_rows(product, batch, (row_number,), (row,))
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
        rule = constraint_name(error) or sqlstate(error)
        problem = CellError("", "", "refused_by_database", f"The product database refused this row (rule {rule}).")
        return BatchResult((), 0, (RefusedRow(row_number, (problem,)),))


def update_rows(
    product: Connection, batch: ImportBatch, row_numbers: tuple[int, ...], rows: tuple[Row, ...]
) -> BatchResult:
    """Sends the rows as one JSON text: the server takes it apart, which costs a sixth of encoding Python lists.

    Raises Overtaken when somebody else wrote one of the products while the statement ran: that row was not updated,
    and it is not known why.
    """
    found = product.execute(update_statement(batch.columns), parameters(batch, row_numbers, rows)).one()
    # A deferred constraint would refuse the whole transaction, at its end.
    product.execute(text("set constraints all immediate"))
    if found.overtaken:
        raise Overtaken(f"{found.overtaken} products were changed by others at the same moment")
    refused = refused_rows(found.refused)
    updated = tuple(found.updated or ())
    return BatchResult(updated, len(rows) - len(updated) - len(refused), refused)


def refusals(product: Connection, batch: ImportBatch) -> tuple[RefusedRow, ...]:
    """Which rows would be refused for what is stored, without changing or locking anything."""
    values = parameters(batch, batch.row_numbers, batch.rows)
    return refused_rows(product.execute(check_statement(batch.columns), values).scalar_one())


def parameters(batch: ImportBatch, row_numbers: tuple[int, ...], rows: tuple[Row, ...]) -> dict[str, Any]:
    """The rows as JSON, [[row number, value, …], …], in the order that every batch locks products in."""
    identifier = batch.columns.index(IDENTIFIER.key) + 1
    numbered = sorted(
        ((number, *row) for number, row in zip(row_numbers, rows, strict=True)), key=itemgetter(identifier)
    )
    return {"webshop_uuid": batch.webshop_uuid, "rows": msgspec.json.encode(numbered).decode()}


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


def outcome_of(product: Connection, batch: ImportBatch) -> BatchResult | None:
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
    return BatchResult(tuple(recorded.identifiers), recorded.unchanged, refused)


def messages(batch: ImportBatch, outcome: BatchResult) -> tuple[Message, ...]:
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


def record(product: Connection, batch: ImportBatch, outcome: BatchResult) -> None:
    """Writes the outcome beside the rows it changed. What changed nothing needs no mirroring."""
    statement = text("""
        insert into import_outcomes
            (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused, identifiers,
             mirrored_at, mirror_due_at)
        values (:import_uuid, :run, :first_row, :webshop_uuid, :updated, :unchanged,
                cast(:refused as jsonb), cast(:identifiers as jsonb),
                case when :updated = 0 then clock_timestamp() end,
                clock_timestamp() + make_interval(secs => :mirror_seconds))
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
        "mirror_seconds": MIRROR_AGAIN_SECONDS,
    }
    product.execute(statement, values)


@cache
def update_statement(columns: tuple[str, ...]) -> TextClause:
    """Updates what differs and breaks no rule, and says of the other rows why they were left.

    The products are looked up, and so locked, in the order of the rows, where the server chooses the index, as it does
    for a table that is worth one: two batches with the same products do not deadlock then. (Else one of them fails and
    is delivered again.) A row that was left though it differs and breaks no rule was changed by somebody else since the
    statement began: `overtaken` counts those. Every name in the text comes from the column table: a column that is not
    in it raises KeyError.
    """
    changed = [BY_KEY[key].key for key in columns if key != IDENTIFIER.key]
    return text(f"""
        with {incoming(columns)},
        changed as (
            update products p
            set {", ".join(f"{key} = {wanted(key, columns)}" for key in changed)}, updated_at = now()
            from incoming i
            where p.webshop_uuid = :webshop_uuid and p.identifier = i.identifier
              and ({broken_rule(columns)}) is null and {differs(columns)}
            returning p.identifier
        ),
        left_out as (
            {judged(columns)}
            where i.identifier not in (select identifier from changed)
        )
        select (select json_agg(identifier) from changed) as updated,
               (select {REFUSED} from left_out where code is not null) as refused,
               (select count(*) from left_out where code is null and differs) as overtaken
    """)


@cache
def check_statement(columns: tuple[str, ...]) -> TextClause:
    """What update_statement would refuse, and nothing else of it."""
    return text(
        f"with {incoming(columns)}, left_out as ({judged(columns)})"
        f" select {REFUSED} from left_out where code is not null"
    )


REFUSED = "json_agg(json_build_array(row_number, code, identifier, minimum_stock, maximum_stock))"


def incoming(columns: tuple[str, ...]) -> str:
    """The rows of a batch as a table of texts."""
    values = ", ".join(f"value->>{position} as {BY_KEY[key].key}" for position, key in enumerate(columns, start=1))
    return f"""incoming as materialized (
            select cast(value->>0 as integer) as row_number, {values} from json_array_elements(cast(:rows as json))
        )"""


def judged(columns: tuple[str, ...]) -> str:
    """Each row of a batch with the rule it breaks, and whether it would change its product."""
    return f"""
            select i.row_number, i.identifier, {wanted("minimum_stock", columns)} as minimum_stock,
                   {wanted("maximum_stock", columns)} as maximum_stock, {broken_rule(columns)} as code,
                   {differs(columns)} as differs
            from incoming i
            left join products p on p.webshop_uuid = :webshop_uuid and p.identifier = i.identifier"""


def wanted(key: str, columns: tuple[str, ...]) -> str:
    """The value that a column of product `p` has with row `i`: an empty cell leaves it as it is."""
    if key not in columns:
        return f"p.{key}"
    return f"case when i.{key} = '' then p.{key} else cast(i.{key} as {BY_KEY[key].kind.sql_type}) end"


def broken_rule(columns: tuple[str, ...]) -> str:
    """The code of the rule that product `p` breaks with row `i`, or null."""
    return f"""case when p.identifier is null then '{NOT_FOUND}'
                        when {wanted("maximum_stock", columns)} < {wanted("minimum_stock", columns)}
                        then '{MAXIMUM_BELOW_MINIMUM}' end"""


def differs(columns: tuple[str, ...]) -> str:
    """Whether row `i` changes product `p`."""
    keys = [key for key in columns if key != IDENTIFIER.key]
    now = ", ".join(f"p.{key}" for key in keys)
    return f"({now}) is distinct from ({', '.join(wanted(key, columns) for key in keys)})"
