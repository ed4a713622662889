"""import_progress: adds a batch's result to the ledger of its import, and ends the import with the last one."""

from functions.imports import ledger
from functions.imports.jobs import lock_import
from shared import clients
from shared.delivery import kafka_function
from shared.errors import NothingToDo
from shared.messages import BatchApplied


@kafka_function(BatchApplied)
def import_progress(result: BatchApplied) -> None:
    """Handles `webshop.products.import.result`. A duplicate, or a result of a run that is over, changes nothing."""
    with clients.service_database().begin() as conn:
        row = lock_import(conn, result.import_uuid, result.run)
        if not ledger.store_result(conn, result):
            raise NothingToDo(f"the result of the batch from row {result.first_row} on is stored already")
        ledger.settle(conn, result.import_uuid, result.run, row.total_rows)
