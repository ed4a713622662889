"""import_upload: records an uploaded file as an import and sends its trigger.

A duplicate event finds the import recorded and only sends the trigger again: the sender may have been killed between
commit and send.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from functions.imports.file.cells import make_printable
from functions.imports.states import ACTIVE, OnError, Operation, Status
from shared import clients
from shared.delivery import FinalizedObject, storage_function
from shared.leases import REQUEUE_AFTER_SECONDS, now
from shared.messages import ImportTrigger
from shared.tables.service import imports

log = logging.getLogger(__name__)

PREFIX = "imports/"
UUID_PATTERN = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
PATH = re.compile(
    rf"{PREFIX}(?P<webshop>{UUID_PATTERN})/(?P<import_uuid>{UUID_PATTERN})/(?P<file_name>[^/\x00-\x1f\x7f]+)"
)

# The keys of an object's metadata. imports_api sets them when it opens the upload; so does a program that puts a file.
USER_KEY, OPERATION_KEY, ON_ERROR_KEY = "user-uuid", "operation", "on-error"
SHOWN_LENGTH = 50  # characters of a metadata value that a reason repeats


@storage_function
def import_upload(stored: FinalizedObject) -> None:
    """Handles the event that Cloud Storage sends for every object finalized in the bucket."""
    upload = parse_upload(stored.name, stored.generation, stored.size, stored.metadata)
    if upload is None:
        log.info("Not an import, ignored: %s", stored.name)
        return
    with clients.service_database().begin() as conn:
        trigger = record_upload(conn, upload)
    if trigger:
        clients.kafka().send(trigger)


@dataclass(frozen=True)
class Upload:
    """An object of the bucket whose path is that of an import."""

    webshop_uuid: UUID
    import_uuid: UUID
    file_name: str
    path: str
    generation: int
    size_bytes: int
    metadata: Mapping[str, str]


def parse_upload(path: str, generation: int, size_bytes: int, metadata: Mapping[str, str]) -> Upload | None:
    """The upload at `path`, or None when the path is not that of an import."""
    match = PATH.fullmatch(path)
    if match is None:
        return None
    webshop_uuid, import_uuid = UUID(match["webshop"]), UUID(match["import_uuid"])
    return Upload(webshop_uuid, import_uuid, match["file_name"], path, generation, size_bytes, metadata)


def upload_path(webshop_uuid: UUID, import_uuid: UUID, file_name: str) -> str:
    """The path of an import's file in the bucket."""
    return f"{PREFIX}{webshop_uuid}/{import_uuid}/{file_name}"


def record_upload(conn: Connection, upload: Upload) -> ImportTrigger | None:
    """Records the upload as an import, once, and returns the trigger to send; None: there is nothing to do.

    A duplicate event finds the import's row and returns its trigger again while the import is active.
    """
    status, reason, values = check_metadata(upload)
    if status == Status.IN_QUEUE:
        if insert_import(conn, upload, status, reason, values):
            return ImportTrigger(upload.webshop_uuid, upload.import_uuid, run=1)
        if active := find_active_import(conn, upload.webshop_uuid, other_than=upload.import_uuid):
            status, reason = Status.FAILED_UNEXPECTEDLY, f"{active.describe()} Retry this import when that one is done."
    if status != Status.IN_QUEUE and insert_import(conn, upload, status, reason, values):
        return None
    row = conn.execute(select(imports).where(imports.c.uuid == upload.import_uuid)).one()
    if row.generation != upload.generation:
        log.warning("Import %s has generation %s; ignored: %s", row.uuid, row.generation, upload.generation)
        return None
    return ImportTrigger(row.webshop_uuid, row.uuid, row.run) if row.status in ACTIVE else None


def check_metadata(upload: Upload) -> tuple[Status, str, dict[str, object]]:
    """The state to record the upload in, the reason for it, and the columns that its metadata gives."""
    user, operation, on_error = (
        make_printable(upload.metadata.get(key, "")) for key in (USER_KEY, OPERATION_KEY, ON_ERROR_KEY)
    )
    faults = []
    if not re.fullmatch(UUID_PATTERN, user.lower()):
        found = f'(found: "{user[:SHOWN_LENGTH]}")'
        faults.append(f'The file was uploaded without a valid "{USER_KEY}" in its metadata {found}.')
    if on_error.lower() not in ("", *OnError):
        allowed = " or ".join(OnError)
        found = f'(found: "{on_error[:SHOWN_LENGTH]}")'
        faults.append(f'"{ON_ERROR_KEY}" in its metadata must be {allowed} {found}.')
    values: dict[str, object] = {
        "user_uuid": None if faults else UUID(user),
        "operation": (operation or Operation.UPDATE).upper()[:SHOWN_LENGTH],
        # The meaning of an unknown word is unknown: a retry of the import is the careful one.
        "on_error": OnError.ABORT if faults else on_error.lower() or OnError.PARTIAL,
    }
    if faults:
        return Status.FAILED_UNEXPECTEDLY, " ".join(faults), values
    return Status.IN_QUEUE, "", values


def insert_import(conn: Connection, upload: Upload, status: Status, reason: str, values: dict[str, object]) -> bool:
    """Inserts the import's row. False: the import is recorded already, or another one is active."""
    statement = insert(imports).values(
        uuid=upload.import_uuid,
        webshop_uuid=upload.webshop_uuid,
        file_name=upload.file_name,
        object_path=upload.path,
        generation=upload.generation,
        size_bytes=upload.size_bytes,
        status=status,
        reason=reason,
        wake_at=now(REQUEUE_AFTER_SECONDS),
        finished_at=None if status in ACTIVE else now(),
        **values,
    )
    return conn.execute(statement.on_conflict_do_nothing()).rowcount == 1


@dataclass(frozen=True)
class ActiveImport:
    """The one import of a webshop that is not final."""

    uuid: UUID
    file_name: str
    started_at: str  # time of day, UTC

    def describe(self) -> str:
        """The sentence for a merchant whose import cannot start."""
        return f"Another import is running ({self.file_name}, started {self.started_at}, {self.uuid})."


def find_active_import(conn: Connection, webshop_uuid: UUID, other_than: UUID | None = None) -> ActiveImport | None:
    """The webshop's active import, if there is one besides `other_than`."""
    statement = select(imports.c.uuid, imports.c.file_name, imports.c.created_at).where(
        imports.c.webshop_uuid == webshop_uuid, imports.c.status.in_(ACTIVE)
    )
    if other_than:
        statement = statement.where(imports.c.uuid != other_than)
    row = conn.execute(statement).one_or_none()
    return ActiveImport(row.uuid, row.file_name, f"{row.created_at.astimezone(UTC):%H:%M} UTC") if row else None
