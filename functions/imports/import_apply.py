"""import_apply: applies one batch of an import to the product database, exactly once in effect.

A redelivered batch finds its result recorded in the same transaction as the rows it changed, and only sends that result
again: the sender may have been killed between commit and send.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, TextClause, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from functions.imports import gate
from functions.imports.states import MIRROR_AGAIN_SECONDS
from shared import clients
from shared.clients.databases import constraint_name, sqlstate
from shared.columns import BY_KEY, IDENTIFIER
from shared.delivery import kafka_function
from shared.leases import now
from shared.messages import BatchApplied, CellError, ImportBatch, Message, ProductsUpdated, RefusedRow
from shared.tables.product import PRIMARY_KEY_OF_OUTCOMES
from shared.tables.product import import_outcomes as batch_results

# Codes of the rules on stored values, which the statement tests.
NOT_FOUND = "not_found"
MAXIMUM_BELOW_MINIMUM = "maximum_below_minimum"

# Of one delivery while others write the same products. The next attempt sees what they wrote, or a duplicate's result.
MAX_ATTEMPTS = 5

# PostgreSQL's classes "data exception", "integrity constraint violation", "with check option violation" and PL/pgSQL
# errors (triggers): the rows are at fault, not the server.
REFUSED_ROW_CLASSES = ("22", "23", "44", "P0")

Row = tuple[str | None, ...]


class ConcurrentChange(Exception):
    """Another transaction wrote the same products at the same moment, often a duplicate of this delivery: try again."""


@dataclass(frozen=True)
class BatchResult:
    """What became of the rows of one batch."""

    updated: tuple[str, ...]  # identifiers of the products that changed
    unchanged: int  # rows whose values the products had already
    refused: tuple[RefusedRow, ...]


@kafka_function(ImportBatch)
def import_apply(batch: ImportBatch) -> None:
    """Handles `webshop.products.import`."""
    with clients.product_database().begin() as conn:
        result = apply_batch(conn, batch)
    clients.kafka().send(*messages_for(batch, result))


def apply_batch(conn: Connection, batch: ImportBatch) -> BatchResult:
    """Applies `batch` in the caller's transaction and returns what became of each of its rows.

    A batch that was applied before is not applied again: its recorded result is returned. Raises NothingToDo when the
    import was closed or run again: this delivery is too late to matter.
    """
    for _ in range(MAX_ATTEMPTS):
        if recorded := find_result(conn, batch):
            return recorded
        gate.pass_gate(conn, batch)
        try:
            with conn.begin_nested():
                result = update_products(conn, batch)
                record_result(conn, batch, result)
                return result
        except ConcurrentChange:
            continue
        except IntegrityError as error:
            if constraint_name(error) != PRIMARY_KEY_OF_OUTCOMES:
                raise
    raise ConcurrentChange(f"others keep changing the products of the batch from row {batch.first_row} on")


def update_products(conn: Connection, batch: ImportBatch) -> BatchResult:
    """Updates all rows by one statement; if the database refuses that, one by one, so one row never spoils 500."""
    try:
        with conn.begin_nested():
            return update_rows(conn, batch, batch.row_numbers, batch.rows)
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
    results = [update_row(conn, batch, number, row) for number, row in zip(batch.row_numbers, batch.rows, strict=True)]
    return BatchResult(
        updated=tuple(identifier for result in results for identifier in result.updated),
        unchanged=sum(result.unchanged for result in results),
        refused=tuple(row for result in results for row in result.refused),
    )


def update_row(conn: Connection, batch: ImportBatch, row_number: int, row: Row) -> BatchResult:
    """Updates one row under a savepoint. A row that the database refuses is a refused row."""
    try:
        with conn.begin_nested():
            return update_rows(conn, batch, (row_number,), (row,))
    except DBAPIError as error:
        if not sqlstate(error).startswith(REFUSED_ROW_CLASSES):
            raise
        rule = constraint_name(error) or sqlstate(error)
        cell_error = CellError("", "", "refused_by_database", f"The product database refused this row (rule {rule}).")
        return BatchResult((), 0, (RefusedRow(row_number, (cell_error,)),))


def update_rows(
    conn: Connection, batch: ImportBatch, row_numbers: tuple[int, ...], rows: tuple[Row, ...]
) -> BatchResult:
    """Updates `rows` by one statement. They are sent as one JSON text: a sixth of the cost of encoding Python lists.

    Raises ConcurrentChange when another transaction wrote one of the products while the statement ran: that row was not
    updated, and the reason is unknown.
    """
    found = conn.execute(update_statement(batch.columns), statement_parameters(batch, row_numbers, rows)).one()
    # A deferred constraint would otherwise refuse the whole transaction, at its end.
    conn.execute(text("set constraints all immediate"))
    if found.overtaken:
        raise ConcurrentChange(f"{found.overtaken} products were changed by others at the same moment")
    refused = refused_rows(found.refused)
    updated = tuple(found.updated or ())
    return BatchResult(updated, len(rows) - len(updated) - len(refused), refused)


def find_refused_rows(conn: Connection, batch: ImportBatch) -> tuple[RefusedRow, ...]:
    """The rows that the stored products would refuse. Changes and locks nothing."""
    values = statement_parameters(batch, batch.row_numbers, batch.rows)
    return refused_rows(conn.execute(check_statement(batch.columns), values).scalar_one())


def statement_parameters(batch: ImportBatch, row_numbers: tuple[int, ...], rows: tuple[Row, ...]) -> dict[str, Any]:
    """The rows as JSON, [[row number, value, …], …], sorted by identifier, the order in which products are locked."""
    identifier = batch.columns.index(IDENTIFIER.key) + 1
    numbered_rows = ((number, *row) for number, row in zip(row_numbers, rows, strict=True))
    rows_json = msgspec.json.encode(sorted(numbered_rows, key=itemgetter(identifier))).decode()
    return {"webshop_uuid": batch.webshop_uuid, "rows": rows_json}


def refused_rows(found: list[list[Any]] | None) -> tuple[RefusedRow, ...]:
    """The statement's [[row number, code, identifier, minimum, maximum], …] as errors for the merchant."""
    return tuple(
        RefusedRow(row_number, (describe_broken_rule(code, identifier, minimum, maximum),))
        for row_number, code, identifier, minimum, maximum in sorted(found or ())
    )


def describe_broken_rule(code: str, identifier: str, minimum: int | None, maximum: int | None) -> CellError:
    """The error for the merchant of a rule that the stored product breaks."""
    if code == NOT_FOUND:
        value = identifier[: CellError.VALUE_LENGTH]
        return CellError(IDENTIFIER.key, value, code, f'This webshop has no product with the identifier "{value}".')
    message = f"With this row the maximum stock would be {maximum}, below the minimum stock of {minimum}."
    return CellError("maximum_stock", str(maximum), code, message)


def find_result(conn: Connection, batch: ImportBatch) -> BatchResult | None:
    """The recorded result of `batch`, or None when it was not applied yet."""
    columns = batch_results.c
    statement = select(columns.unchanged, columns.refused, columns.identifiers).where(
        columns.import_uuid == batch.import_uuid, columns.run == batch.run, columns.first_row == batch.first_row
    )
    recorded = conn.execute(statement).one_or_none()
    if recorded is None:
        return None
    refused = msgspec.convert(recorded.refused, tuple[RefusedRow, ...])
    return BatchResult(tuple(recorded.identifiers), recorded.unchanged, refused)


def find_results_of_run(conn: Connection, import_uuid: UUID, run: int) -> list[BatchApplied]:
    """The recorded results of every batch of a run."""
    columns = [batch_results.c[name] for name in BatchApplied.__struct_fields__]
    statement = select(*columns).where(batch_results.c.import_uuid == import_uuid, batch_results.c.run == run)
    return [msgspec.convert(row, BatchApplied, from_attributes=True) for row in conn.execute(statement)]


def record_result(conn: Connection, batch: ImportBatch, result: BatchResult) -> None:
    """Records the result in the transaction that changes the rows. A batch that changed nothing needs no mirroring."""
    statement = insert(batch_results).values(
        import_uuid=batch.import_uuid,
        run=batch.run,
        first_row=batch.first_row,
        webshop_uuid=batch.webshop_uuid,
        updated=len(result.updated),
        unchanged=result.unchanged,
        refused=msgspec.to_builtins(result.refused),
        identifiers=result.updated,
        mirrored_at=None if result.updated else now(),
        mirror_due_at=now(MIRROR_AGAIN_SECONDS),
    )
    conn.execute(statement)


def messages_for(batch: ImportBatch, result: BatchResult) -> tuple[Message, ...]:
    """The messages that a result gives rise to: for the ledger always, for the mirror where a product changed."""
    key = (batch.webshop_uuid, batch.import_uuid, batch.run, batch.first_row)
    applied = BatchApplied(*key, len(result.updated), result.unchanged, result.refused)
    return (applied, ProductsUpdated(*key, result.updated)) if result.updated else (applied,)


@cache
def update_statement(columns: tuple[str, ...]) -> TextClause:
    """Updates the products that differ and break no rule, and returns why the other rows were left out.

    The products are looked up, and so locked, in the order of the rows wherever the server uses the index, as it does
    for any table of some size: two batches with the same products do not deadlock then. (Otherwise one of them fails
    and is delivered again.) A row that was left out although it differs and breaks no rule was changed by another
    transaction since the statement began: `overtaken` counts those. Every name in the text comes from the column table:
    a column that is not in it raises KeyError.
    """
    changed = [BY_KEY[key].key for key in columns if key != IDENTIFIER.key]
    assignments = ", ".join(f"{key} = {new_value_sql(key, columns)}" for key in changed)
    return text(f"""
        with {rows_sql(columns)},
        changed as (
            update products p
            set {assignments}, updated_at = now()
            from incoming i
            where p.webshop_uuid = :webshop_uuid and p.identifier = i.identifier
              and ({broken_rule_sql(columns)}) is null and {differs_sql(columns)}
            returning p.identifier
        ),
        left_out as (
            {checked_rows_sql(columns)}
            where i.identifier not in (select identifier from changed)
        )
        select (select json_agg(identifier) from changed) as updated,
               (select {REFUSED_SQL} from left_out where code is not null) as refused,
               (select count(*) from left_out where code is null and differs) as overtaken
    """)


@cache
def check_statement(columns: tuple[str, ...]) -> TextClause:
    """Returns the rows that update_statement would refuse, and changes nothing."""
    return text(
        f"with {rows_sql(columns)}, left_out as ({checked_rows_sql(columns)})"
        f" select {REFUSED_SQL} from left_out where code is not null"
    )


REFUSED_SQL = "json_agg(json_build_array(row_number, code, identifier, minimum_stock, maximum_stock))"


def rows_sql(columns: tuple[str, ...]) -> str:
    """The rows of a batch as a table of texts, `incoming`."""
    values = ", ".join(f"value->>{position} as {BY_KEY[key].key}" for position, key in enumerate(columns, start=1))
    return f"""incoming as materialized (
            select cast(value->>0 as integer) as row_number, {values} from json_array_elements(cast(:rows as json))
        )"""


def checked_rows_sql(columns: tuple[str, ...]) -> str:
    """Each row of a batch with the code of the rule it breaks, and whether it would change its product."""
    return f"""
            select i.row_number, i.identifier, {new_value_sql("minimum_stock", columns)} as minimum_stock,
                   {new_value_sql("maximum_stock", columns)} as maximum_stock, {broken_rule_sql(columns)} as code,
                   {differs_sql(columns)} as differs
            from incoming i
            left join products p on p.webshop_uuid = :webshop_uuid and p.identifier = i.identifier"""


def new_value_sql(key: str, columns: tuple[str, ...]) -> str:
    """The value that a column of product `p` gets from row `i`: an empty cell leaves it as it is."""
    if key not in columns:
        return f"p.{key}"
    return f"case when i.{key} = '' then p.{key} else cast(i.{key} as {BY_KEY[key].kind.sql_type}) end"


def broken_rule_sql(columns: tuple[str, ...]) -> str:
    """The code of the rule that product `p` breaks with row `i`, or null."""
    return f"""case when p.identifier is null then '{NOT_FOUND}'
                        when {new_value_sql("maximum_stock", columns)} < {new_value_sql("minimum_stock", columns)}
                        then '{MAXIMUM_BELOW_MINIMUM}' end"""


def differs_sql(columns: tuple[str, ...]) -> str:
    """Whether row `i` changes product `p`."""
    keys = [key for key in columns if key != IDENTIFIER.key]
    stored = ", ".join(f"p.{key}" for key in keys)
    return f"({stored}) is distinct from ({', '.join(new_value_sql(key, columns) for key in keys)})"
