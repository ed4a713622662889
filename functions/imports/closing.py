"""Ends an import before all its results are in, so that nothing is applied after its final state."""

from __future__ import annotations

from sqlalchemy import Engine

from functions.imports import gate, import_apply, ledger
from functions.imports.jobs import ImportClaim, finish_import, lock_import
from functions.imports.states import Status, Step
from shared.errors import NothingToDo
from shared.wording import format_count, was_or_were


def close_import(service_db: Engine, product_db: Engine, claim: ImportClaim, reason: str) -> None:
    """Closes the gate, stores the results recorded until then, and writes the final state.

    If the results cover every row, the state follows the ledger; otherwise the rows that were never reached count as
    failed. If this worker dies in between, the next one finds the gate closed and continues from there. The import's
    row stays locked throughout, so that no worker can claim it between the check of the token and the closed gate.
    Raises NothingToDo when another worker has claimed the import.
    """
    with service_db.begin() as service_conn:
        row = lock_import(service_conn, claim.uuid, claim.run)
        if row.token != claim.token:
            raise NothingToDo(f"another worker has claimed run {claim.run} of import {claim.uuid}")
        with product_db.begin() as product_conn:
            reason = gate.close_gate(product_conn, claim.uuid, claim.run, reason)
            results = import_apply.find_results_of_run(product_conn, claim.uuid, claim.run)
        for result in results:
            ledger.store_result(service_conn, result)
        if row.processing_step == Step.VALIDATE:
            finish_import(service_conn, claim.uuid, claim.run, Status.FAILED_UNEXPECTEDLY, reason)
            return
        counts = ledger.sum_counts(service_conn, claim.uuid, claim.run, row.total_rows)
        if not counts.batches_without_result:
            ledger.settle(service_conn, claim.uuid, claim.run, row.total_rows)
            return
        ledger.refuse_unreached_rows(service_conn, claim.uuid, claim.run, f"This row was not reached. {reason}")
        counts = ledger.sum_counts(service_conn, claim.uuid, claim.run, row.total_rows)
        applied = f"{counts.applied_rows:,} of {format_count(row.total_rows, 'row')}"
        reason = f"{reason} Before that, {applied} {was_or_were(counts.applied_rows)} applied."
        finish_import(service_conn, claim.uuid, claim.run, Status.FAILED_UNEXPECTEDLY, reason, **counts.columns())
