"""The gate of an import: a row in the product database that every batch passes and every early end closes.

A batch holds the row FOR SHARE while it is applied, and closing takes it FOR UPDATE. Once the gate is closed, no batch
is being applied and none will be, so a state that is written after that stays true.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, select
from sqlalchemy.dialects.postgresql import Insert, insert

from shared.errors import NothingToDo
from shared.leases import now
from shared.messages import ImportBatch
from shared.tables.product import import_gates


def open_gate(conn: Connection, import_uuid: UUID, run: int) -> str | None:
    """Lets the batches of `run` pass, unless the gate was closed for it: then returns the reason.

    Raises NothingToDo when a higher run has opened the gate.
    """
    statement = insert(import_gates).values(import_uuid=import_uuid, run=run, closed=False, reason="")
    write_gate(conn, statement, import_gates.c.run < run)
    gate = find_gate(conn, import_uuid, run)
    return gate.reason if gate.closed else None


def pass_gate(conn: Connection, batch: ImportBatch) -> None:
    """Keeps the gate from being closed until the transaction ends.

    Raises NothingToDo unless it is open for the batch's run.
    """
    statement = select(import_gates).where(import_gates.c.import_uuid == batch.import_uuid)
    gate = conn.execute(statement.with_for_update(read=True)).one_or_none()
    if gate is None or gate.closed or gate.run != batch.run:
        raise NothingToDo(f"the gate of import {batch.import_uuid} is not open for run {batch.run}")


def close_gate(conn: Connection, import_uuid: UUID, run: int, reason: str) -> str:
    """Waits for the batches that are passing, stops all others, and returns the first reason given for this run.

    Raises NothingToDo when a higher run has opened the gate.
    """
    statement = insert(import_gates).values(import_uuid=import_uuid, run=run, closed=True, reason=reason)
    is_open = (import_gates.c.run == run) & ~import_gates.c.closed
    write_gate(conn, statement, (import_gates.c.run < run) | is_open)
    return str(find_gate(conn, import_uuid, run).reason)


def write_gate(conn: Connection, statement: Insert, condition: ColumnElement[bool]) -> None:
    """Inserts the gate, or updates it where `condition` holds."""
    values = {column: statement.excluded[column] for column in ("run", "closed", "reason")}
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[import_gates.c.import_uuid], set_={**values, "changed_at": now()}, where=condition
        )
    )


def find_gate(conn: Connection, import_uuid: UUID, run: int) -> Row[Any]:
    """The gate's row. Raises NothingToDo when it is of a higher run."""
    gate = conn.execute(select(import_gates).where(import_gates.c.import_uuid == import_uuid)).one()
    if gate.run != run:
        raise NothingToDo(f"run {gate.run} of import {import_uuid} has started; this is run {run}")
    return gate
