"""The gate of an import: one row in the product database that every batch passes, and that a final state closes.

A batch holds the row FOR SHARE while it is applied and closing takes it FOR UPDATE, so once the gate is closed, nothing
is being applied and nothing will be: a state written after that cannot be overtaken.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from shared.errors import NothingToDo
from shared.messages import ImportBatch

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
STATE = "select run, closed, reason from import_gates where import_uuid = :import_uuid"


def open_gate(product: Connection, import_uuid: UUID, run: int) -> str | None:
    """Lets the batches of `run` pass, unless it was closed already: then returns why it was.

    Raises NothingToDo when a higher run has opened it.
    """
    product.execute(OPEN, {"import_uuid": import_uuid, "run": run})
    gate = product.execute(text(STATE), {"import_uuid": import_uuid}).one()
    if gate.run != run:
        raise NothingToDo(f"run {gate.run} of import {import_uuid} has begun, this is run {run}")
    return gate.reason if gate.closed else None


def pass_gate(product: Connection, batch: ImportBatch) -> None:
    """Holds the gate open until the transaction ends. Raises NothingToDo unless it is open for this batch's run."""
    gate = product.execute(text(f"{STATE} for share"), {"import_uuid": batch.import_uuid}).one_or_none()
    if gate is None or gate.closed or gate.run != batch.run:
        raise NothingToDo(f"the gate of import {batch.import_uuid} is not open for run {batch.run}")


def close_gate(product: Connection, import_uuid: UUID, run: int, reason: str) -> str:
    """Waits for the batches that are passing, lets none through after them, and returns the reason that stands.

    That is the first one given for this run. Raises NothingToDo when a higher run has opened the gate.
    """
    product.execute(CLOSE, {"import_uuid": import_uuid, "run": run, "reason": reason})
    gate = product.execute(text(STATE), {"import_uuid": import_uuid}).one()
    if gate.run != run:
        raise NothingToDo(f"run {gate.run} of import {import_uuid} has begun, this is run {run}")
    return str(gate.reason)
