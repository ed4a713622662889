"""import_upload: records an uploaded file as an import and sends it on its way.

An event that comes again finds the import recorded and only sends the trigger again: the sender may have been killed
between commit and send.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from uuid import UUID

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from functions.imports.file.cells import make_printable
from functions.imports.jobs import now
from functions.imports.states import ACTIVE, OnError, Operation, Status
from shared import clients
from shared.delivery import FinalizedObject, storage_function
from shared.messages import ImportTrigger
from shared.tables.service import imports

log = logging.getLogger(__name__)


log = logging.getLogger(__name__)

PREFIX = "imports/"
UUID_PATTERN = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PATH = re.compile(rf"{PREFIX}(?P<webshop>{UUID_PATTERN})/(?P<import_>{UUID_PATTERN})/(?P<file_name>[^/\x00-\x1f\x7f]+)")

# The keys of an object's metadata, set by imports_api when it opens the upload, or by a program that puts a file.
USER_KEY, OPERATION_KEY, ON_ERROR_KEY = "user-uuid", "operation", "on-error"

# Sweep sends the trigger again after this: twice what a trigger takes through a busy Kafka and Pub/Sub.
WAKE_AFTER_SECONDS = 10


@storage_function
def import_upload(stored: FinalizedObject) -> None:
    """Called by Cloud Storage for every object that is finalized in the bucket."""
    upload = upload_of(stored.name, stored.generation, stored.size, stored.metadata)
    if upload is None:
        log.info("Not an import, ignored: %s", stored.name)
        return
    with clients.service_database().begin() as service:
        trigger = record(service, upload)
    if trigger:
        clients.kafka().send(trigger)


@dataclass(frozen=True)
class Upload:
    """An object of the bucket whose path is an import's."""

    webshop_uuid: UUID
    import_uuid: UUID
    file_name: str
    path: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]


def upload_of(path: str, generation: int, size_bytes: int, metadata: Mapping[str, str]) -> Upload | None:
    """The upload at `path`, or None when the path is not an import's."""
    match = PATH.fullmatch(path)
    if match is None:
        return None
    return Upload(
        UUID(match["webshop"]), UUID(match["import_"]), match["file_name"], path, generation, size_bytes, metadata
    )


def path_of(webshop_uuid: UUID, import_uuid: UUID, file_name: str) -> str:
    """Where the file of an import lies."""
    return f"{PREFIX}{webshop_uuid}/{import_uuid}/{file_name}"


def record(service: Connection, upload: Upload) -> ImportTrigger | None:
    """Records the upload as an import, once, and returns the trigger to send: None when there is nothing to do.

    The same event again finds the row: an import that is still active is triggered again.
    """
    trigger = ImportTrigger(upload.webshop_uuid, upload.import_uuid, run=1)
    status, reason, values = judged(upload)
    if status == Status.IN_QUEUE:
        if inserted(service, upload, status, reason, values):
            return trigger
        if active := active_import(service, upload.webshop_uuid, other_than=upload.import_uuid):
            status, reason = Status.FAILED_UNEXPECTEDLY, f"{another_is_active(active)} Retry this one when it is done."
    if status != Status.IN_QUEUE and inserted(service, upload, status, reason, values):
        return None
    row = service.execute(select(imports).where(imports.c.uuid == upload.import_uuid)).one()
    if row.generation != upload.generation:
        log.warning("Import %s has generation %s; ignored: %s", row.uuid, row.generation, upload.generation)
        return None
    return ImportTrigger(row.webshop_uuid, row.uuid, row.run) if row.status in ACTIVE else None


def judged(upload: Upload) -> tuple[Status, str, dict[str, object]]:
    """What the upload's metadata makes of it: the state to record it in, a reason, and the columns it gives."""
    faults = []
    user, operation, on_error = (
        make_printable(upload.metadata.get(key, "")) for key in (USER_KEY, OPERATION_KEY, ON_ERROR_KEY)
    )
    if not re.fullmatch(UUID_PATTERN, user.lower()):
        faults.append(f'The file was uploaded without a valid "{USER_KEY}" in its metadata (found: "{user[:50]}").')
    if on_error.lower() not in ("", *OnError):
        allowed = " or ".join(OnError)
        faults.append(f'"{ON_ERROR_KEY}" in its metadata must be {allowed} (found: "{on_error[:50]}").')
    values: dict[str, object] = {
        "user_uuid": None if faults else UUID(user),
        "operation": (operation or Operation.UPDATE).upper()[:50],
        # Nobody knows what was meant by a word we do not know: if it is retried, the careful way.
        "on_error": OnError.ABORT if faults else on_error.lower() or OnError.PARTIAL,
    }
    if faults:
        return Status.FAILED_UNEXPECTEDLY, " ".join(faults), values
    return Status.IN_QUEUE, "", values


def inserted(service: Connection, upload: Upload, status: Status, reason: str, values: dict[str, object]) -> bool:
    """Inserts the import's row; False when it is there already, or another one is active."""
    statement = insert(imports).values(
        uuid=upload.import_uuid,
        webshop_uuid=upload.webshop_uuid,
        file_name=upload.file_name,
        object_path=upload.path,
        generation=upload.generation,
        size_bytes=upload.size_bytes,
        status=status,
        reason=reason,
        wake_at=now(WAKE_AFTER_SECONDS),
        finished_at=None if status in ACTIVE else func.clock_timestamp(),
        **values,
    )
    return service.execute(statement.on_conflict_do_nothing()).rowcount == 1


@dataclass(frozen=True)
class ActiveImport:
    """The one import of a webshop that is not over."""

    uuid: UUID
    file_name: str
    since: str  # time of day, UTC


def active_import(service: Connection, webshop_uuid: UUID, other_than: UUID | None = None) -> ActiveImport | None:
    """The webshop's active import, if there is one."""
    statement = select(imports.c.uuid, imports.c.file_name, imports.c.created_at).where(
        imports.c.webshop_uuid == webshop_uuid, imports.c.status.in_(ACTIVE)
    )
    if other_than:
        statement = statement.where(imports.c.uuid != other_than)
    row = service.execute(statement).one_or_none()
    return ActiveImport(row.uuid, row.file_name, f"{row.created_at.astimezone(UTC):%H:%M} UTC") if row else None


def another_is_active(active: ActiveImport) -> str:
    """The sentence for a merchant whose import cannot start."""
    return f"Another import is running ({active.file_name}, started {active.since}, {active.uuid})."
