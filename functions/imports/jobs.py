"""An import as a job: its claim, its writes under the lease, and its final states.

Two numbers separate attempts. The run rises only by the merchant's retry and is part of every message and key. The
fencing token rises with each claim and guards the import's row alone: two workers on one run send the same batches.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Row, select, update

from functions.imports.states import ACTIVE, Status, Step
from shared.errors import NothingToDo
from shared.leases import LeasedTable, now
from shared.messages import ImportTrigger
from shared.tables.service import imports

# No max_attempts: the worker itself gives up after MAX_CLAIMS, because it must close the gate first.
IMPORTS = LeasedTable(
    imports,
    claimable=ACTIVE,
    unfinished=ACTIVE,
    working=Status.IMPORTING,
    token="token",  # noqa: S106  # the name of a column
    attempts="claims",
    fence=("run",),
    on_write={"updated_at": now()},
)


class ImportClaim(msgspec.Struct, frozen=True):
    """An import as it was when this worker claimed it."""

    uuid: UUID
    webshop_uuid: UUID
    object_path: str
    generation: int
    size_bytes: int
    operation: str
    on_error: str
    run: int
    token: int
    claims: int  # in a row without progress, this one included
    processing_step: Step

    @property
    def attempts_so_far(self) -> int:
        """See shared.leases.Claim."""
        return self.claims

    @property
    def reference(self) -> str:
        """What a merchant can quote to us; the log has it next to every failure of the run."""
        return f"{self.uuid}/{self.run}"


CLAIM_COLUMNS = tuple(imports.c[name] for name in ImportClaim.__struct_fields__)


def claim_import(conn: Connection, trigger: ImportTrigger) -> ImportClaim:
    """Claims the import that `trigger` names. Raises NothingToDo when that is not possible, or its run is over."""
    row = IMPORTS.claim(conn, trigger.import_uuid, imports.c.run == trigger.run, returning=CLAIM_COLUMNS)
    return msgspec.convert(row, ImportClaim, from_attributes=True)


def lock_import(conn: Connection, import_uuid: UUID, run: int) -> Row[Any]:
    """Locks the import's row until the transaction ends and returns it.

    Raises NothingToDo when the import is final or of another run.
    """
    row = conn.execute(select(imports).where(imports.c.uuid == import_uuid).with_for_update()).one_or_none()
    if row is None or row.status not in ACTIVE or row.run != run:
        raise NothingToDo(f"run {run} of import {import_uuid} is over")
    return row


def finish_import(conn: Connection, import_uuid: UUID, run: int, status: Status, reason: str, **values: Any) -> None:
    """Writes a final state. The caller holds the row's lock, by `lock_import` or by a write of its claim.

    Raises NothingToDo when the import is final or of another run.
    """
    final = {**IMPORTS.final_values(status), "reason": reason, "updated_at": now(), **values}
    active_run = (imports.c.uuid == import_uuid, imports.c.run == run, imports.c.status.in_(ACTIVE))
    if conn.execute(update(imports).where(*active_run).values(final)).rowcount == 0:
        raise NothingToDo(f"run {run} of import {import_uuid} is over")
