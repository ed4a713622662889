"""The gate of an import: a row in the product database that every batch passes and every early end closes.

A batch holds the row FOR SHARE while it is applied, and closing takes it FOR UPDATE. Once the gate is closed, no batch
is being applied and none will be, so a state that is written after that stays true.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, text

from shared.errors import NothingToDo
from shared.messages import ImportBatch
from shared.tables.product import import_gates

OPEN = text("""
    insert into import_gates (import_uuid, run, closed) values (:import_uuid, :run, false)
    on conflict (import_uuid) do update
    set run = excluded.run, closed = false, reason = '', changed_at = clock_timestamp()
    where import_gates.run < excluded.run
""")
CLOSE = text("""
    insert into import_gates (import_uuid, run, closed, reason) values (:import_uuid, :run, true, :reason)
    on conflict (import_uuid) do update
    set run = excluded.run, closed = true, reason = excluded.reason, changed_at = clock_timestamp()
    where import_gates.run < excluded.run or (import_gates.run = excluded.run and not import_gates.closed)
""")


def open_gate(conn: Connection, import_uuid: UUID, run: int) -> str | None:
    """Lets the batches of `run` pass, unless the gate was closed for it: then returns the reason.

    Raises NothingToDo when a higher run has opened the gate.
    """
    conn.execute(OPEN, {"import_uuid": import_uuid, "run": run})
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
    conn.execute(CLOSE, {"import_uuid": import_uuid, "run": run, "reason": reason})
    return str(find_gate(conn, import_uuid, run).reason)


def find_gate(conn: Connection, import_uuid: UUID, run: int) -> Row[Any]:
    """The gate's row. Raises NothingToDo when it is of a higher run."""
    gate = conn.execute(select(import_gates).where(import_gates.c.import_uuid == import_uuid)).one()
    if gate.run != run:
        raise NothingToDo(f"run {gate.run} of import {import_uuid} has started; this is run {run}")
    return gate
