"""Ends an import before all results are in, so that nothing is applied behind its final state."""

from __future__ import annotations

from sqlalchemy import Engine

from functions.imports import gate, import_apply, jobs, ledger
from functions.imports.jobs import Claim
from functions.imports.states import Status, Step
from shared.errors import NothingToDo


def close(service_database: Engine, product_database: Engine, held: Claim, reason: str) -> None:
    """Closes the gate, stores what was applied until then, and writes the final state.

    If that covers every row, the state follows the ledger after all; else the rows that were never reached count as
    failed. Killed in between, the next claimant finds the gate closed and goes on from there. The import's row is
    locked all the while, so that nobody claims it between the question who holds it and the closed gate.
    Raises NothingToDo when somebody else holds the import by now.
    """
    with service_database.begin() as service:
        row = jobs.lock(service, held.uuid, held.run)
        if row.token != held.token:
            raise NothingToDo(f"run {held.run} of import {held.uuid} is somebody else's by now")
        with product_database.begin() as product:
            reason = gate.close_gate(product, held.uuid, held.run, reason)
            applied = import_apply.results_of_run(product, held.uuid, held.run)
        for result in applied:
            ledger.store_result(service, result)
        if row.processing_step == Step.VALIDATE:
            jobs.finish(service, held.uuid, held.run, Status.FAILED_UNEXPECTEDLY, reason)
            return
        counts = ledger.counts(service, held.uuid, held.run, row.total_rows)
        if not counts.batches_without_result:
            ledger.settle(service, held.uuid, held.run, row.total_rows)
            return
        ledger.refuse_unreached(service, held.uuid, held.run, f"This row was not reached. {reason}")
        counts = ledger.counts(service, held.uuid, held.run, row.total_rows)
        reason = f"{reason} {counts.applied_rows:,} of {row.total_rows:,} rows were applied before that."
        jobs.finish(service, held.uuid, held.run, Status.FAILED_UNEXPECTEDLY, reason, **counts.columns())
