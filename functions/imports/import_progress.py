"""import_progress: adds a batch's result to its import's ledger, and ends the import with the last one.

A result that comes again, or for a run that is over, changes nothing.
"""

from functions.imports import jobs, ledger
from shared import clients
from shared.delivery import kafka_function
from shared.errors import NothingToDo
from shared.messages import BatchApplied


@kafka_function(BatchApplied)
def import_progress(applied: BatchApplied) -> None:
    """Called for `webshop.products.import.result`."""
    with clients.service_database().begin() as service:
        row = jobs.lock(service, applied.import_uuid, applied.run)
        if not ledger.store_result(service, applied):
            raise NothingToDo(f"the result of row {applied.first_row} is stored already")
        ledger.settle(service, applied.import_uuid, applied.run, row.total_rows)
