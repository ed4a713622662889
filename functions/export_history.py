"""export_history: keeps the Export History Table.

Every message holds the whole record and its version, so that any order, and any number of times, ends the same.
"""

from shared import clients
from shared.delivery import kafka_function
from shared.exporting import history
from shared.messages import ExportHistory


@kafka_function(ExportHistory)
def export_history(record: ExportHistory) -> None:
    """Called for `webshop.export.history`."""
    with clients.service_database().begin() as service:
        history.store(service, record)
