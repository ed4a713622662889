"""import_upload: records an uploaded file as an import and sends it on its way.

An event that comes again finds the import recorded and only sends the trigger again: the sender may have been killed
between commit and send.
"""

import logging

from shared import clients
from shared.delivery import FinalizedObject, storage_function
from shared.imports import uploads

log = logging.getLogger(__name__)


@storage_function
def import_upload(stored: FinalizedObject) -> None:
    """Called by Cloud Storage for every object that is finalized in the bucket."""
    upload = uploads.upload_of(stored.name, stored.generation, stored.size, stored.metadata)
    if upload is None:
        log.info("Not an import, ignored: %s", stored.name)
        return
    with clients.service_database().begin() as service:
        trigger = uploads.record(service, upload)
    if trigger:
        clients.kafka().send(trigger)
