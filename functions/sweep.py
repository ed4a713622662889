"""sweep: recovers what a lost event, message or process left behind. Cloud Scheduler calls it every minute.

Each part only sends messages that their functions accept any number of times, so a sweep may be killed or run twice. A
part that fails does not keep the others from running.
"""

import logging
from collections.abc import Callable, Sequence

from functions.buy_orders import recovery as buy_orders
from functions.exports import recovery as exports
from functions.imports import recovery as imports
from shared import clients
from shared.delivery import scheduled_function
from shared.messages import Message
from shared.settings import settings

log = logging.getLogger(__name__)

# What each part recovers or deletes, and how; it returns the messages to send.
PARTS: dict[str, Callable[[], Sequence[Message] | None]] = {
    "stalled imports": lambda: imports.requeue_stalled_imports(clients.service_database()),
    "lost uploads": lambda: imports.record_lost_uploads(clients.service_database(), clients.storage()),
    "unmirrored results": lambda: imports.requeue_unmirrored_results(clients.product_database()),
    "expired results": lambda: imports.delete_expired_results(clients.product_database()),
    "stalled exports": lambda: exports.requeue_stalled_exports(clients.service_database()),
    "expired exports": lambda: exports.expire_exports(clients.service_database(), settings().export_retention_days),
    "late export history": lambda: exports.requeue_late_history(clients.service_database()),
    "orphaned export files": lambda: exports.delete_orphaned_export_files(
        clients.service_database(), clients.storage()
    ),
    "stalled email deliveries": lambda: buy_orders.requeue_stalled_deliveries(clients.service_database()),
    "expired email files": lambda: buy_orders.expire_delivery_files(
        clients.service_database(), settings().export_retention_days
    ),
    "orphaned email files": lambda: buy_orders.delete_orphaned_delivery_files(
        clients.service_database(), clients.storage()
    ),
}


@scheduled_function
def sweep() -> None:
    """Runs every part, then raises an ExceptionGroup of the errors of those that failed."""
    errors = []
    for name, recover in PARTS.items():
        try:
            clients.kafka().send(*(recover() or ()))
        except Exception as error:
            log.exception("A part of sweep failed: %s", name)
            errors.append(error)
    if errors:
        raise ExceptionGroup("parts of sweep failed", errors)
