"""What a merchant can do with imports: start, find, list, retry. HTTP and every other API call these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from functions.imports import import_upload, jobs, ledger
from functions.imports.states import ACTIVE, MAX_FILE_BYTES, OnError, Operation, Status, Step
from shared.file_names import safe_file_name
from shared.messages import ImportTrigger
from shared.paging import MAX_PAGE, Position
from shared.problems import Problem, not_found, refused
from shared.tables.service import imports

if TYPE_CHECKING:  # at run time they come with whoever makes the clients
    from shared.clients.bucket import Storage

# https://www.rfc-editor.org/rfc/rfc6454#section-7 , of the web alone
ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")


class StartImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to import and how."""

    file_name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    operation: Operation = Operation.UPDATE  # the others are taken, and refused by the import itself
    on_error: OnError = OnError.PARTIAL
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None  # where the client knows it: refused early


class StartedImport(msgspec.Struct, frozen=True):
    """Where to send the file's bytes. The import exists once they are there."""

    uuid: UUID
    upload_url: str
    upload_method: str
    upload_headers: Mapping[str, str]


class Import(msgspec.Struct, frozen=True):
    """An import as its merchant sees it."""

    uuid: UUID
    webshop_uuid: UUID
    user_uuid: UUID | None
    file_name: str
    operation: str
    on_error: str
    status: Status
    reason: str  # why it ended as it did; "" while it has not
    run: int  # 1, and one more with every retry
    skipped_columns: tuple[str, ...]  # headings that are known and not imported
    total_rows: int  # 0 until the file is validated
    updated_rows: int
    unchanged_rows: int
    failed_rows: int
    progress_percent: int  # 100 when it is over, not before
    processing_step: Step
    processing_offset: int  # data rows dealt with
    encoding: str  # that the file was read with; "" until then
    delimiter: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ImportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which imports to list."""

    status: Status | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50
    cursor: str = ""  # next_cursor of the page before


class ImportPage(msgspec.Struct, frozen=True):
    """A page of imports, newest first."""

    items: tuple[Import, ...]
    next_cursor: str | None  # None: this is the last page


def start(
    service: Connection, storage: Storage, webshop_uuid: UUID, user_uuid: UUID, wanted: StartImport, *, origin: str
) -> StartedImport:
    """Opens the upload of a new import. Nothing is recorded: the import exists when its file does.

    A browser may send the file only from a page of `origin`; "" where no browser is asking.

    Raises Problem 409 with the uuid of the active import, 422 for a file that is too large.
    """
    if wanted.size_bytes is not None and wanted.size_bytes > MAX_FILE_BYTES:
        sentence = f"The file has {wanted.size_bytes:,} bytes. Allowed are {MAX_FILE_BYTES:,} (5 MB): split it."
        raise refused("size_bytes", sentence)
    if active := import_upload.active_import(service, webshop_uuid):
        raise conflict(active)
    import_uuid = uuid4()
    path = import_upload.path_of(webshop_uuid, import_uuid, safe_file_name(wanted.file_name, "products.csv"))
    metadata = {
        import_upload.USER_KEY: str(user_uuid),
        import_upload.OPERATION_KEY: wanted.operation.value,
        import_upload.ON_ERROR_KEY: wanted.on_error.value,
    }
    url = storage.open_upload(path, metadata, wanted.size_bytes, origin if ORIGIN.fullmatch(origin) else "")
    return StartedImport(import_uuid, url, "PUT", {"Content-Type": "text/csv"})


def find_one(service: Connection, webshop_uuid: UUID, import_uuid: UUID) -> Import:
    """One import. Raises Problem 404 when the webshop has none of that uuid."""
    return view(row_of(service, webshop_uuid, import_uuid))


def find_all(service: Connection, webshop_uuid: UUID, query: ImportQuery) -> ImportPage:
    """A page of the webshop's imports, newest first, by keyset: new ones never shift it."""
    conditions: list[ColumnElement[bool]] = [imports.c.webshop_uuid == webshop_uuid]
    if query.status:
        conditions.append(imports.c.status == query.status)
    if query.cursor:
        last = Position.of(query.cursor)
        conditions.append(tuple_(imports.c.created_at, imports.c.uuid) < (last.created_at, last.uuid))
    newest_first = (imports.c.created_at.desc(), imports.c.uuid.desc())
    statement = select(imports).where(*conditions).order_by(*newest_first).limit(query.limit + 1)
    found = [view(row) for row in service.execute(statement).mappings()]
    items = tuple(found[: query.limit])
    more = len(found) > query.limit
    return ImportPage(items, Position(items[-1].created_at, items[-1].uuid).cursor() if more else None)


def retry(service_database: Engine, webshop_uuid: UUID, user_uuid: UUID, import_uuid: UUID) -> ImportTrigger:
    """Queues an import that is over to run anew from its file, with an empty ledger; returns the trigger to send.

    Who retries an import that came without a user is its user from then on. Raises Problem 404, and 409 when it is
    not over, is COMPLETED, or another is active.
    """
    statement = (
        update(imports)
        .where(
            imports.c.uuid == import_uuid,
            imports.c.webshop_uuid == webshop_uuid,
            imports.c.status.not_in((*ACTIVE, Status.COMPLETED)),
        )
        .values(
            user_uuid=func.coalesce(imports.c.user_uuid, user_uuid),
            status=Status.IN_QUEUE,
            reason="",
            run=imports.c.run + 1,
            token=imports.c.token + 1,
            claims=0,
            lease_until=None,
            wake_at=jobs.now(import_upload.WAKE_AFTER_SECONDS),
            processing_step=Step.VALIDATE,
            processing_offset=0,
            encoding="",
            delimiter="",
            skipped_columns=[],
            total_rows=0,
            updated_rows=0,
            unchanged_rows=0,
            failed_rows=0,
            updated_at=jobs.now(),
            finished_at=None,
        )
        .returning(imports.c.run)
    )
    try:
        with service_database.begin() as service:
            if run := service.execute(statement).scalar_one_or_none():
                ledger.forget(service, import_uuid)
                return ImportTrigger(webshop_uuid, import_uuid, run)
            status = row_of(service, webshop_uuid, import_uuid)["status"]
            sentence = f"This import is {status}. What can be retried is an import that failed or has refused rows."
            raise Problem(409, "not-retryable", sentence)
    except IntegrityError as error:
        with service_database.connect() as service:
            active = import_upload.active_import(service, webshop_uuid, other_than=import_uuid)
        if active is None:
            raise Problem(409, "import-active", "Another import was running. Retry now.") from error
        raise conflict(active) from error


def conflict(active: import_upload.ActiveImport) -> Problem:
    """One import a webshop at a time."""
    sentence = f"{import_upload.another_is_active(active)} Wait until it is done."
    return Problem(409, "import-active", sentence, more={"active_import_uuid": str(active.uuid)})


def row_of(service: Connection, webshop_uuid: UUID, import_uuid: UUID) -> RowMapping:
    """The import's row. Raises Problem 404."""
    statement = select(imports).where(imports.c.uuid == import_uuid, imports.c.webshop_uuid == webshop_uuid)
    row = service.execute(statement).mappings().one_or_none()
    if row is None:
        raise not_found("import")
    return row


def view(row: RowMapping) -> Import:
    """A row as its merchant sees it."""
    values = {str(name): value for name, value in row.items()}  # its names are SQLAlchemy's own kind of str
    return msgspec.convert({**values, "progress_percent": progress_percent(row)}, Import)


def progress_percent(row: RowMapping) -> int:
    """Rows whose fate is known, in per cent of all; 100 is for what is over."""
    if row["status"] not in ACTIVE:
        return 100
    done = row["updated_rows"] + row["unchanged_rows"] + row["failed_rows"]
    return min(99, 100 * done // row["total_rows"]) if row["total_rows"] else 0
