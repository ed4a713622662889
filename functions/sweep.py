"""sweep: forgets nothing. Called every minute, it finds what a lost event, message or process left behind.

Each part only sends again what its function takes as often as it comes, so a sweep may be killed or run twice. A part
that fails does not keep the others from their work.
"""

import logging

from shared import clients
from shared.delivery import scheduled_function
from shared.imports import sweeping

log = logging.getLogger(__name__)


def send_lost_uploads() -> None:
    """Uploads whose event never came."""
    clients.kafka().send(*sweeping.lost_uploads(clients.service_database(), clients.storage()))


def wake_imports() -> None:
    """Imports that nobody works on."""
    with clients.service_database().begin() as service:
        triggers = sweeping.sleeping_imports(service)
    clients.kafka().send(*triggers)


def mirror_what_was_missed() -> None:
    """Outcomes whose mirror message was lost."""
    with clients.product_database().connect() as product:
        updated = sweeping.unmirrored_outcomes(product)
    clients.kafka().send(*updated)


def forget_what_is_over() -> None:
    """Outcomes and gates of imports that are long over."""
    with clients.product_database().begin() as product:
        sweeping.forget_old_outcomes(product)


PARTS = (wake_imports, send_lost_uploads, mirror_what_was_missed, forget_what_is_over)


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
