"""What a merchant can do with exports: ask for, find, list, download, delete. HTTP and every other API call these."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from operator import eq, ge, lt
from typing import TYPE_CHECKING, Annotated
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, select, tuple_

from functions.exports import jobs
from functions.exports.export_history import announce
from functions.exports.export_render import Attempt
from functions.exports.jobs import Claim, NewExport
from functions.exports.recovery import remove_all_but
from functions.exports.rendering import ending
from functions.exports.requests import CreateExport, validate
from functions.exports.states import Status
from shared.errors import NothingToDo, PermanentError
from shared.file_names import safe_file_name_of_type
from shared.idempotency import checked_key, key_reused
from shared.messages import ExportHistory, ExportRequest
from shared.paging import MAX_PAGE, Position
from shared.problems import Problem, not_found
from shared.tables.service import export_history, exports

if TYPE_CHECKING:
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)


class Export(msgspec.Struct, frozen=True):
    """An export as its merchant sees it: the record of the history, and what else its row knows."""

    uuid: UUID
    name: str  # of the file
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status: Status
    webshop_uuid: UUID
    user_uuid: UUID
    source: str
    file_uri: str | None  # None: there is no file, not yet or not any more
    file_type: str
    rows: int | None  # without the heading; None until it is completed
    size_bytes: int | None
    progress_rows: int  # written so far
    download_url: str | None  # a path of this API
    error: str  # why there is no file; "" unless it failed


class ExportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which exports to list."""

    status: Status | None = None
    source: str | None = None
    user_uuid: UUID | None = None
    created_from: datetime | None = None  # that moment included
    created_before: datetime | None = None  # that moment excluded
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50
    cursor: str = ""  # next_cursor of the page before


class ExportPage(msgspec.Struct, frozen=True):
    """A page of exports, newest first."""

    items: tuple[Export, ...]
    next_cursor: str | None  # None: this is the last page


@dataclass(frozen=True)
class File:
    """The file of a completed export."""

    path: str
    name: str
    file_type: str


@dataclass(frozen=True)
class Exporting:
    """The operations that change something, and what they need of the outside."""

    service: Engine
    product: Engine
    storage: Storage
    kafka: Kafka

    def request(self, webshop_uuid: UUID, user_uuid: UUID, wanted: CreateExport, idempotency_key: str | None) -> Export:
        """Adds an export for export_render to make, or finds the one of that key. Raises Problem 422."""
        new = new_export(webshop_uuid, user_uuid, wanted, idempotency_key)
        with self.service.begin() as service:
            record = jobs.add(service, new)
        if record is None:
            return self.found_by_key(new, wanted)
        announce(self.kafka, record, ExportRequest(webshop_uuid, new.uuid))
        return self.found(webshop_uuid, new.uuid)

    def make(self, webshop_uuid: UUID, user_uuid: UUID, wanted: CreateExport, idempotency_key: str | None) -> Export:
        """Adds an export and makes it, or finds the one of that key, which may be unfinished.

        Raises Problem 422, also for what shows only while it is made, and 503 when a system that we depend on failed:
        the export is FAILED then.
        """
        new = new_export(webshop_uuid, user_uuid, wanted, idempotency_key)
        claimed = self.added_and_claimed(new)
        if claimed is None:
            return self.found_by_key(new, wanted)
        held, record = claimed
        about = {"export_uuid": str(new.uuid)}
        try:
            Attempt(self.service, self.product, self.storage, self.kafka).make(held, record, give_up_after=1)
        except NothingToDo as late:
            log.info("%s; answering with what became of it", late)
        except PermanentError as error:
            raise Problem(422, "export-failed", str(error), more=about) from error
        except Exception as error:
            sentence = "The export could not be made: a system that we depend on failed. Ask for it again in a moment."
            raise Problem(503, "export-failed", sentence, headers={"Retry-After": "5"}, more=about) from error
        return self.found(webshop_uuid, new.uuid)

    def added_and_claimed(self, new: NewExport) -> tuple[Claim, ExportHistory] | None:
        """Adds an export that nobody else can claim first; None when there is one of its key already."""
        with self.service.begin() as service:
            return jobs.claim(service, new.uuid) if jobs.add(service, new) else None

    def delete(self, webshop_uuid: UUID, export_uuid: UUID) -> None:
        """Deletes an export and its files; its record stays in the history. Raises Problem 404."""
        with self.service.begin() as service:
            record = jobs.delete(service, webshop_uuid, export_uuid)
        if record is None:
            raise not_found("export")
        try:
            remove_all_but(self.storage, jobs.folder(webshop_uuid, export_uuid), needed=None)
        except Exception:
            log.exception("The files of export %s were not removed; sweep will", export_uuid)
        announce(self.kafka, record)

    def found(self, webshop_uuid: UUID, export_uuid: UUID) -> Export:
        """The export as it is now. Raises Problem 404."""
        with self.service.connect() as service:
            return find_one(service, webshop_uuid, export_uuid)

    def found_by_key(self, new: NewExport, wanted: CreateExport) -> Export:
        """The export that has the key of `new`, deleted or not. Raises Problem 422 when it is not the one `wanted`."""
        same_key = (
            exports.c.webshop_uuid == new.webshop_uuid,
            exports.c.user_uuid == new.user_uuid,
            exports.c.idempotency_key == new.idempotency_key,
        )
        with self.service.connect() as service:
            row = service.execute(select(exports).where(*same_key)).mappings().one()
        if msgspec.json.decode(row["request"], type=CreateExport) != wanted:
            raise key_reused("export")
        return view(row)


def find_one(service: Connection, webshop_uuid: UUID, export_uuid: UUID) -> Export:
    """One export, from its own row. Raises Problem 404 when the webshop has none of that uuid, or it was deleted."""
    return view(row_of(service, webshop_uuid, export_uuid))


def find_all(service: Connection, webshop_uuid: UUID, query: ExportQuery) -> ExportPage:
    """A page of the webshop's exports, newest first: the history, and with it what their rows know besides."""
    table = export_history.c
    asked = (
        (table.status, eq, query.status),
        (table.source, eq, query.source),
        (table.user_uuid, eq, query.user_uuid),
        (table.created_at, ge, query.created_from),
        (table.created_at, lt, query.created_before),
    )
    conditions: list[ColumnElement[bool]] = [table.webshop_uuid == webshop_uuid, exports.c.deleted_at.is_(None)]
    conditions += [compare(column, value) for column, compare, value in asked if value is not None]
    if query.cursor:
        last = Position.of(query.cursor)
        conditions.append(tuple_(table.created_at, table.uuid) < (last.created_at, last.uuid))
    besides = [column for column in exports.c if column.name not in table]
    statement = (
        select(*table, *besides)
        .join(exports, exports.c.uuid == table.uuid)
        .where(*conditions)
        .order_by(table.created_at.desc(), table.uuid.desc())
        .limit(query.limit + 1)
    )
    found = [view(row) for row in service.execute(statement).mappings()]
    items = tuple(found[: query.limit])
    more = len(found) > query.limit
    return ExportPage(items, Position(items[-1].created_at, items[-1].uuid).cursor() if more else None)


def file_of(service: Connection, webshop_uuid: UUID, export_uuid: UUID) -> File:
    """The file to download. Raises Problem 404, 410 when it is kept no longer, 409 when there is none (yet)."""
    row = row_of(service, webshop_uuid, export_uuid)
    if row["status"] == Status.EXPIRED:
        raise gone()
    if row["status"] == Status.FAILED:
        raise Problem(409, "export-failed", f"This export has no file. {row['error']}")
    if row["status"] != Status.COMPLETED:
        sentence = f"This export is {row['status']}. Its file can be downloaded when it is COMPLETED."
        raise Problem(409, "export-unfinished", sentence, headers={"Retry-After": "1"})
    path = jobs.path_of(webshop_uuid, export_uuid, row["attempts"], row["name"])
    return File(path, row["name"], row["file_type"])


def gone() -> Problem:
    """The file was there once."""
    return Problem(410, "export-expired", "The file of this export is kept no longer. Ask for the export again.")


def new_export(webshop_uuid: UUID, user_uuid: UUID, wanted: CreateExport, idempotency_key: str | None) -> NewExport:
    """The export to add. Raises Problem 422 that names what is not allowed."""
    file_type = validate(wanted).file_type
    return NewExport(
        uuid=uuid4(),
        webshop_uuid=webshop_uuid,
        user_uuid=user_uuid,
        name=safe_file_name_of_type(wanted.file_name, ending(file_type), default=wanted.source),
        source=wanted.source,
        file_type=file_type,
        request=msgspec.json.encode(wanted).decode(),
        idempotency_key=checked_key(idempotency_key),
    )


def row_of(service: Connection, webshop_uuid: UUID, export_uuid: UUID) -> RowMapping:
    """The export's row. Raises Problem 404, also when it was deleted."""
    of_webshop = (exports.c.uuid == export_uuid, exports.c.webshop_uuid == webshop_uuid)
    row = service.execute(select(exports).where(*of_webshop, exports.c.deleted_at.is_(None))).mappings().one_or_none()
    if row is None:
        raise not_found("export")
    return row


def view(row: RowMapping) -> Export:
    """A row as its merchant sees it."""
    path = f"/webshops/{row['webshop_uuid']}/exports/{row['uuid']}/download"
    known = {name: row[name] for name in Export.__struct_fields__ if name in row}
    return msgspec.convert({**known, "download_url": path if row["file_uri"] else None}, Export)
