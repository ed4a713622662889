"""sweep: forgets nothing. Called every minute, it finds what a lost event, message or process left behind.

Each part only sends again what its function takes as often as it comes, so a sweep may be killed or run twice. A part
that fails does not keep the others from their work.
"""

import logging

from functions.buy_orders import jobs as deliveries
from functions.buy_orders import recovery as deliveries_recovery
from functions.exports import jobs
from functions.exports import recovery as exports_sweeping
from functions.imports import recovery
from shared import clients
from shared.delivery import scheduled_function
from shared.settings import settings

log = logging.getLogger(__name__)


def send_lost_uploads() -> None:
    """Uploads whose event never came."""
    clients.kafka().send(*recovery.lost_uploads(clients.service_database(), clients.storage()))


def wake_imports() -> None:
    """Imports that nobody works on."""
    with clients.service_database().begin() as service:
        triggers = recovery.sleeping_imports(service)
    clients.kafka().send(*triggers)


def mirror_what_was_missed() -> None:
    """Outcomes whose mirror message was lost."""
    with clients.product_database().begin() as product:
        updated = recovery.unmirrored_outcomes(product)
    clients.kafka().send(*updated)


def forget_what_is_over() -> None:
    """Outcomes and gates of imports that are long over."""
    with clients.product_database().begin() as product:
        recovery.forget_old_outcomes(product)


def wake_exports() -> None:
    """Exports that nobody works on; those that were tried often enough are ended."""
    clients.kafka().send(*exports_sweeping.unfinished(clients.service_database()))


def expire_exports() -> None:
    """Exports whose files are kept no longer."""
    with clients.service_database().begin() as service:
        records = jobs.expire(service, settings().export_retention_days)
    clients.kafka().send(*records)


def send_late_history() -> None:
    """Exports whose history is behind their row."""
    with clients.service_database().begin() as service:
        records = jobs.behind_in_history(service)
    clients.kafka().send(*records)


def tidy_exports() -> None:
    """Files that no export needs."""
    exports_sweeping.tidy(clients.service_database(), clients.storage())


def wake_sends() -> None:
    """Mails of buy orders that nobody works on; those that were tried often enough are ended."""
    clients.kafka().send(*deliveries_recovery.unfinished(clients.service_database()))


def expire_sends() -> None:
    """Mails whose files are kept no longer."""
    with clients.service_database().begin() as service:
        deliveries.expire(service, settings().export_retention_days)


def tidy_sends() -> None:
    """Files that no mail needs."""
    deliveries_recovery.tidy(clients.service_database(), clients.storage())


PARTS = (
    wake_imports,
    send_lost_uploads,
    mirror_what_was_missed,
    forget_what_is_over,
    wake_exports,
    expire_exports,
    send_late_history,
    tidy_exports,
    wake_sends,
    expire_sends,
    tidy_sends,
)


@scheduled_function
def sweep() -> None:
    """Called by Cloud Scheduler."""
    failed = []
    for part in PARTS:
        try:
            part()
        except Exception as error:
            log.exception("%s failed", part.__name__)
            failed.append(error)
    if failed:
        raise ExceptionGroup("parts of the sweep failed", failed)
