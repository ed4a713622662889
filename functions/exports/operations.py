"""What a merchant can do with exports: request, find, list, download, delete. All APIs call these operations."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from operator import eq, ge, lt
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, select

from functions.exports.export_render import ExportRenderer
from functions.exports.jobs import (
    ExportClaim,
    NewExport,
    claim_export,
    delete_export,
    file_path,
    folder_path,
    insert_export,
)
from functions.exports.rendering import ending
from functions.exports.requests import CreateExport, validate
from functions.exports.states import Status
from shared.delivery import send_or_leave_to_sweep
from shared.errors import NothingToDo, PermanentError, Unavailable
from shared.file_names import safe_file_name_of_type
from shared.idempotency import check_key, key_reused
from shared.job_files import delete_files_except
from shared.messages import ExportHistory, ExportRequest
from shared.pagination import PageQuery, fetch_page
from shared.problems import Problem, not_found
from shared.tables.service import export_history, exports

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)


class Export(msgspec.Struct, frozen=True):
    """An export as its merchant sees it: the fields of its history record, and more fields of its row."""

    uuid: UUID
    name: str  # of the file
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status: Status
    webshop_uuid: UUID
    user_uuid: UUID
    source: str
    file_uri: str | None  # None while there is no file, and after it was deleted
    file_type: str
    rows: int | None  # without the heading; None until the export is completed
    size_bytes: int | None
    progress_rows: int  # written so far
    download_url: str | None  # a path of this API
    error: str  # why there is no file; "" unless the export failed


class ExportQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which exports to list."""

    status: Status | None = None
    source: str | None = None
    user_uuid: UUID | None = None
    created_from: datetime | None = None  # inclusive
    created_before: datetime | None = None  # exclusive


class ExportPage(msgspec.Struct, frozen=True):
    """A page of exports, newest first."""

    items: tuple[Export, ...]
    next_cursor: str | None  # None: this is the last page


@dataclass(frozen=True)
class ExportFile:
    """The file of a completed export."""

    path: str
    name: str
    file_type: str


@dataclass(frozen=True)
class ExportOperations:
    """The operations that change something. They use the clients of the process."""

    service_db: Engine
    product_db: Engine
    storage: Storage
    kafka: Kafka

    def request(
        self, webshop_uuid: UUID, user_uuid: UUID, request: CreateExport, idempotency_key: str | None
    ) -> Export:
        """Inserts an export, which export_render will render. Returns the existing export if its key was used before.

        Raises Problem 422 naming what is not allowed.
        """
        export = new_export(webshop_uuid, user_uuid, request, idempotency_key)
        with self.service_db.begin() as conn:
            record = insert_export(conn, export)
        if record is None:
            return self.find_by_key(export, request)
        send_or_leave_to_sweep(self.kafka, record, ExportRequest(webshop_uuid, export.uuid))
        return self.find(webshop_uuid, export.uuid)

    def render(self, webshop_uuid: UUID, user_uuid: UUID, request: CreateExport, idempotency_key: str | None) -> Export:
        """Inserts and renders an export. If its key was used before, returns that export, which may be unfinished.

        Raises Problem 422, also for mistakes that only rendering finds, and Problem 503 when a system that we depend
        on failed. The export is FAILED then.
        """
        export = new_export(webshop_uuid, user_uuid, request, idempotency_key)
        claim_and_record = self.insert_and_claim(export)
        if claim_and_record is None:
            return self.find_by_key(export, request)
        claim, record = claim_and_record
        more = {"export_uuid": str(export.uuid)}
        renderer = ExportRenderer(claim, self.service_db, self.product_db, self.storage, self.kafka)
        try:
            renderer.run(record, max_attempts=1)
        except NothingToDo as late:
            log.info("%s; the response is the export as it is now", late)
        except PermanentError as error:
            raise Problem(422, "export-failed", str(error), extensions=more) from error
        except Exception as error:
            detail = "The export could not be made: a system that we depend on failed. Request it again in a moment."
            raise Problem(503, "export-failed", detail, headers={"Retry-After": "5"}, extensions=more) from error
        return self.find(webshop_uuid, export.uuid)

    def insert_and_claim(self, export: NewExport) -> tuple[ExportClaim, ExportHistory] | None:
        """Inserts an export and claims it in one transaction, so that no other worker can claim it first.

        Returns None if an export with its idempotency key exists.
        """
        with self.service_db.begin() as conn:
            return claim_export(conn, export.uuid) if insert_export(conn, export) else None

    def delete(self, webshop_uuid: UUID, export_uuid: UUID) -> None:
        """Deletes an export and its files. Its record stays in the history. Raises Problem 404."""
        with self.service_db.begin() as conn:
            record = delete_export(conn, webshop_uuid, export_uuid)
        if record is None:
            raise not_found("export")
        try:
            delete_files_except(self.storage, folder_path(webshop_uuid, export_uuid), needed_uris=())
        except Unavailable:
            log.warning("The files of export %s were not deleted; sweep will delete them", export_uuid, exc_info=True)
        send_or_leave_to_sweep(self.kafka, record)

    def find(self, webshop_uuid: UUID, export_uuid: UUID) -> Export:
        """Returns the export as it is now. Raises Problem 404."""
        with self.service_db.connect() as conn:
            return find_export(conn, webshop_uuid, export_uuid)

    def find_by_key(self, export: NewExport, request: CreateExport) -> Export:
        """Returns the export with the idempotency key of `export`, also if it was deleted.

        Raises Problem 422 if its request differs from `request`.
        """
        same_key = (
            exports.c.webshop_uuid == export.webshop_uuid,
            exports.c.user_uuid == export.user_uuid,
            exports.c.idempotency_key == export.idempotency_key,
        )
        with self.service_db.connect() as conn:
            row = conn.execute(select(exports).where(*same_key)).mappings().one()
        if msgspec.json.decode(row["request"], type=CreateExport) != request:
            raise key_reused("export")
        return to_export(row)


def find_export(conn: Connection, webshop_uuid: UUID, export_uuid: UUID) -> Export:
    """Returns one export, from its own row. Raises Problem 404 if the webshop has no such export or it was deleted."""
    return to_export(find_row(conn, webshop_uuid, export_uuid))


def list_exports(conn: Connection, webshop_uuid: UUID, query: ExportQuery) -> ExportPage:
    """Returns a page of the webshop's exports, newest first: the history, joined with the exports' rows."""
    columns = export_history.c
    filters = (
        (columns.status, eq, query.status),
        (columns.source, eq, query.source),
        (columns.user_uuid, eq, query.user_uuid),
        (columns.created_at, ge, query.created_from),
        (columns.created_at, lt, query.created_before),
    )
    statement = (
        select(*columns, *(column for column in exports.c if column.name not in columns))
        .join(exports, exports.c.uuid == columns.uuid)
        .where(
            columns.webshop_uuid == webshop_uuid,
            exports.c.deleted_at.is_(None),
            *(compare(column, value) for column, compare, value in filters if value is not None),
        )
    )
    rows, next_cursor = fetch_page(conn, statement, export_history, query)
    return ExportPage(tuple(map(to_export, rows)), next_cursor)


def find_file(conn: Connection, webshop_uuid: UUID, export_uuid: UUID) -> ExportFile:
    """Returns the file to download. Raises Problem 404, 410 if the file has expired, 409 if there is no file (yet)."""
    row = find_row(conn, webshop_uuid, export_uuid)
    if row["status"] == Status.EXPIRED:
        raise export_expired()
    if row["status"] == Status.FAILED:
        raise Problem(409, "export-failed", f"This export has no file. {row['error']}")
    if row["status"] != Status.COMPLETED:
        detail = f"This export is {row['status']}. Its file can be downloaded when it is COMPLETED."
        raise Problem(409, "export-unfinished", detail, headers={"Retry-After": "1"})
    path = file_path(webshop_uuid, export_uuid, row["attempts"], row["name"])
    return ExportFile(path, row["name"], row["file_type"])


def export_expired() -> Problem:
    """Returns the problem for a file that was deleted at the end of its retention."""
    return Problem(410, "export-expired", "The file of this export has expired. Request the export again.")


def new_export(webshop_uuid: UUID, user_uuid: UUID, request: CreateExport, idempotency_key: str | None) -> NewExport:
    """Returns the export to insert. Raises Problem 422 naming what is not allowed."""
    file_type = validate(request).file_type
    return NewExport(
        uuid=uuid4(),
        webshop_uuid=webshop_uuid,
        user_uuid=user_uuid,
        name=safe_file_name_of_type(request.file_name, ending(file_type), default=request.source),
        source=request.source,
        file_type=file_type,
        request=msgspec.json.encode(request).decode(),
        idempotency_key=check_key(idempotency_key),
    )


def find_row(conn: Connection, webshop_uuid: UUID, export_uuid: UUID) -> RowMapping:
    """Returns the export's row. Raises Problem 404, also if the export was deleted."""
    of_webshop = (exports.c.uuid == export_uuid, exports.c.webshop_uuid == webshop_uuid)
    row = conn.execute(select(exports).where(*of_webshop, exports.c.deleted_at.is_(None))).mappings().one_or_none()
    if row is None:
        raise not_found("export")
    return row


def to_export(row: RowMapping) -> Export:
    """Returns a row as the merchant sees it."""
    path = f"/webshops/{row['webshop_uuid']}/exports/{row['uuid']}/download"
    values = {name: row[name] for name in Export.__struct_fields__ if name in row}
    return msgspec.convert({**values, "download_url": path if row["file_uri"] else None}, Export)
