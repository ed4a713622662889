"""What a merchant can do with imports: start, find, list, retry. Every API calls these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, func, select, update
from sqlalchemy.exc import IntegrityError

from functions.imports import ledger
from functions.imports.import_upload import (
    ON_ERROR_KEY,
    OPERATION_KEY,
    USER_KEY,
    ActiveImport,
    find_active_import,
    upload_path,
)
from functions.imports.states import (
    ACTIVE,
    MAX_FILE_BYTES,
    OnError,
    Operation,
    Status,
    Step,
    explain_file_too_large,
)
from shared.file_names import safe_file_name
from shared.leases import REQUEUE_AFTER_SECONDS, now
from shared.messages import ImportTrigger
from shared.pagination import PageQuery, fetch_page
from shared.problems import Problem, invalid_input, not_found
from shared.tables.service import imports

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage

ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?")  # https://www.rfc-editor.org/rfc/rfc6454#section-7


class StartImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to import and how."""

    file_name: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    operation: Operation = Operation.UPDATE  # the others are accepted here; the import then fails
    on_error: OnError = OnError.PARTIAL
    size_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None  # if known: a file that is too large is refused now


class StartedImport(msgspec.Struct, frozen=True):
    """Where to send the file's bytes. The import exists once they have arrived."""

    uuid: UUID
    upload_url: str
    upload_method: str
    upload_headers: Mapping[str, str]


class Import(msgspec.Struct, frozen=True):
    """An import as the merchant sees it."""

    uuid: UUID
    webshop_uuid: UUID
    user_uuid: UUID | None
    file_name: str
    operation: str
    on_error: str
    status: Status
    reason: str  # why it ended as it did; "" until then
    run: int  # 1 at first; every retry adds 1
    skipped_columns: tuple[str, ...]  # known headings whose columns are not imported, as written in the file
    total_rows: int  # 0 until the file is validated
    updated_rows: int
    unchanged_rows: int
    failed_rows: int
    progress_percent: int  # 100 in every final state, and only there
    processing_step: Step
    processing_offset: int  # how many data rows were refused by the validation or sent to be applied
    encoding: str  # of the file; "" until it is known
    delimiter: str  # likewise
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ImportQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """Which imports to list."""

    status: Status | None = None


class ImportPage(msgspec.Struct, frozen=True):
    """A page of imports, newest first."""

    items: tuple[Import, ...]
    next_cursor: str | None  # None: this is the last page


def start_import(
    conn: Connection, storage: Storage, webshop_uuid: UUID, user_uuid: UUID, request: StartImport, *, origin: str
) -> StartedImport:
    """Opens the upload of a new import. Nothing is stored: the import exists once its file has arrived.

    A browser may send the file only from a page of `origin` (scheme, host and port), which is "" if the client is not
    a browser. Raises Problem 409 with the uuid of an active import, and 422 for a file that is too large.
    """
    if request.size_bytes is not None and request.size_bytes > MAX_FILE_BYTES:
        raise invalid_input("size_bytes", explain_file_too_large(request.size_bytes))
    if active := find_active_import(conn, webshop_uuid):
        raise import_active(active)
    import_uuid = uuid4()
    path = upload_path(webshop_uuid, import_uuid, safe_file_name(request.file_name, "products.csv"))
    metadata = {
        USER_KEY: str(user_uuid),
        OPERATION_KEY: request.operation.value,
        ON_ERROR_KEY: request.on_error.value,
    }
    url = storage.open_upload(path, metadata, request.size_bytes, origin if ORIGIN.fullmatch(origin) else "")
    return StartedImport(import_uuid, url, "PUT", {"Content-Type": "text/csv"})


def find_import(conn: Connection, webshop_uuid: UUID, import_uuid: UUID) -> Import:
    """One import. Raises Problem 404 when the webshop has no import with that uuid."""
    return to_import(find_row(conn, webshop_uuid, import_uuid))


def list_imports(conn: Connection, webshop_uuid: UUID, query: ImportQuery) -> ImportPage:
    """A page of the webshop's imports, newest first."""
    statement = select(imports).where(imports.c.webshop_uuid == webshop_uuid)
    if query.status:
        statement = statement.where(imports.c.status == query.status)
    rows, next_cursor = fetch_page(conn, statement, imports, query)
    return ImportPage(tuple(map(to_import, rows)), next_cursor)


def retry_import(service_db: Engine, webshop_uuid: UUID, user_uuid: UUID, import_uuid: UUID) -> ImportTrigger:
    """Queues a final import for its next run, with an empty ledger, and returns the trigger to send.

    If the import has no user, the one who retries it becomes its user. Raises Problem 404, and 409 when the import is
    not final or is COMPLETED, or when another import of the webshop is active.
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
            wake_at=now(REQUEUE_AFTER_SECONDS),
            processing_step=Step.VALIDATE,
            processing_offset=0,
            encoding="",
            delimiter="",
            skipped_columns=[],
            total_rows=0,
            updated_rows=0,
            unchanged_rows=0,
            failed_rows=0,
            updated_at=now(),
            finished_at=None,
        )
        .returning(imports.c.run)
    )
    try:
        with service_db.begin() as conn:
            if run := conn.execute(statement).scalar_one_or_none():
                ledger.delete_ledger(conn, import_uuid)
                return ImportTrigger(webshop_uuid, import_uuid, run)
            status = find_row(conn, webshop_uuid, import_uuid)["status"]
            detail = f"This import is {status}. Only an import that failed or has refused rows can be retried."
            raise Problem(409, "not-retryable", detail)
    except IntegrityError as error:
        with service_db.connect() as conn:
            active = find_active_import(conn, webshop_uuid, other_than=import_uuid)
        if active is None:
            raise Problem(409, "import-active", "Another import was running. Retry now.") from error
        raise import_active(active) from error


def import_active(active: ActiveImport) -> Problem:
    """The problem that the webshop has an active import already: it may have only one."""
    detail = f"{active.describe()} Wait until it is done."
    return Problem(409, "import-active", detail, extensions={"active_import_uuid": str(active.uuid)})


def find_row(conn: Connection, webshop_uuid: UUID, import_uuid: UUID) -> RowMapping:
    """The import's row. Raises Problem 404 when the webshop has no import with that uuid."""
    statement = select(imports).where(imports.c.uuid == import_uuid, imports.c.webshop_uuid == webshop_uuid)
    row = conn.execute(statement).mappings().one_or_none()
    if row is None:
        raise not_found("import")
    return row


def to_import(row: RowMapping) -> Import:
    """A row as the merchant sees it."""
    values = {str(name): value for name, value in row.items()}  # SQLAlchemy's names are of a subclass of str
    return msgspec.convert({**values, "progress_percent": progress_percent(row)}, Import)


def progress_percent(row: RowMapping) -> int:
    """The percentage of rows with a known outcome: 100 in a final state, at most 99 before."""
    if row["status"] not in ACTIVE:
        return 100
    known_rows = row["updated_rows"] + row["unchanged_rows"] + row["failed_rows"]
    return min(99, 100 * known_rows // row["total_rows"]) if row["total_rows"] else 0
