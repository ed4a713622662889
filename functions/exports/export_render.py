"""export_render: renders the file of an export.

All rows are read in one snapshot. The file becomes visible only when it is complete. If another worker has the lease,
this one has nothing to do: if that worker dies, sweep sends the request again.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from functions.exports.identifiers import find_identifiers
from functions.exports.jobs import (
    EXPORTS,
    ExportClaim,
    claim_export,
    complete_export,
    fail_export,
    renew_lease,
)
from functions.exports.rendering import content_type, render
from functions.exports.requests import CreateExport
from functions.exports.states import MAX_ATTEMPTS
from shared import clients
from shared.delivery import kafka_function, send_or_leave_to_sweep
from shared.errors import NothingToDo, PermanentError
from shared.leases import LeaseKeeper
from shared.messages import ExportRequest
from shared.problems import Problem

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage
    from shared.messages import ExportHistory

log = logging.getLogger(__name__)


@kafka_function(ExportRequest)
def export_render(request: ExportRequest) -> None:
    """Handles `webshop.export.request`."""
    service_db = clients.service_database()
    with service_db.begin() as conn:
        claim, record = claim_export(conn, request.export_uuid)
    renderer = ExportRenderer(claim, service_db, clients.product_database(), clients.storage(), clients.kafka())
    renderer.run(record, max_attempts=MAX_ATTEMPTS)


@dataclass(frozen=True)
class ExportRenderer:
    """One attempt at a claimed export."""

    claim: ExportClaim
    service_db: Engine
    product_db: Engine
    storage: Storage
    kafka: Kafka

    def run(self, record: ExportHistory, max_attempts: int) -> None:
        """Renders the file and completes the export. `record` is the history record of the claim, to be sent.

        After a failure in attempt number `max_attempts` the export is FAILED; after an earlier one the next attempt may
        start soon. The exception is raised in both cases. Raises NothingToDo when the lease was lost or the export was
        deleted, and PermanentError, with a sentence for the merchant, when no attempt can succeed.
        """
        try:
            self.render_and_complete(record)
        except NothingToDo:
            raise
        except (PermanentError, Problem, msgspec.MsgspecError) as error:
            reason = error.detail if isinstance(error, Problem) else str(error)
            self.fail(reason)
            raise PermanentError(reason) from error
        except Exception:
            if self.claim.attempts < max_attempts:
                EXPORTS.back_off_if_possible(self.service_db, self.claim)
                raise
            reference = uuid.uuid4()
            log.exception("Export %s failed in its last attempt, reference %s", self.claim.uuid, reference)
            self.fail(f"Something went wrong on our side. Request the export again. Reference: {reference}")
            raise

    def render_and_complete(self, record: ExportHistory) -> None:
        """Renders and publishes the file, then completes the export: a completed export always has its file.

        The lease is renewed just before the file is published, so a worker that has lost it publishes nothing.
        """
        claim = self.claim
        with LeaseKeeper(self.service_db, lambda conn, rows: renew_lease(conn, claim, rows)) as lease:
            send_or_leave_to_sweep(self.kafka, record)
            with self.storage.open_writer(claim.path, content_type(claim.file_type)) as sink:
                rows = self.render_rows(sink, lease)
                size_bytes = sink.tell()
                lease.report(rows)
                lease.renew()
        try:
            with self.service_db.begin() as conn:
                record = complete_export(conn, claim, rows, size_bytes, self.storage.uri(claim.path))
        except NothingToDo:
            self.storage.remove(claim.path)
            raise
        send_or_leave_to_sweep(self.kafka, record)

    def render_rows(self, sink: BinaryIO, lease: LeaseKeeper) -> int:
        """Renders into `sink` and returns the number of rows.

        After an exception the connection is closed: it may be in the middle of a COPY.
        """
        request = msgspec.json.decode(self.claim.request, type=CreateExport)
        with self.service_db.connect() as conn:
            identifiers = find_identifiers(conn, self.claim.webshop_uuid)
        with self.product_db.connect() as conn:
            try:
                return render(conn, self.claim.webshop_uuid, request, identifiers, sink, lease.report)
            except BaseException:
                conn.invalidate()
                raise

    def fail(self, reason: str) -> None:
        """Ends the export as FAILED. If the database does not respond, sweep requeues the export later.

        Raises NothingToDo when the export is already final, as after a commit whose confirmation was lost.
        """
        try:
            with self.service_db.begin() as conn:
                record = fail_export(conn, self.claim, reason)
        except SQLAlchemyError:
            log.exception("Export %s could not be marked as FAILED; sweep will requeue it", self.claim.uuid)
            return
        send_or_leave_to_sweep(self.kafka, record)
