"""export_render: makes an export's file.

It holds the export's lease while it works. A delivery that meets a live lease has nothing to do: its holder goes on,
and if the holder died, sweep sends the request again.

The rows come out of one snapshot, into a file that appears whole or never.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from functions.exports import jobs
from functions.exports.export_history import announce
from functions.exports.identifiers import find_identifiers
from functions.exports.jobs import Claim
from functions.exports.rendering import content_type, render
from functions.exports.requests import CreateExport
from functions.exports.states import MAX_ATTEMPTS
from shared import clients
from shared.delivery import kafka_function
from shared.errors import NothingToDo, PermanentError
from shared.messages import ExportRequest
from shared.problems import Problem

if TYPE_CHECKING:
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage
    from shared.messages import ExportHistory


log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0  # between two renewals; each says how many rows are written, and somebody may be watching
# Without a row for so long a lease is not renewed: longer than a database may be silent before its socket times out.
STALL_SECONDS = 120


@kafka_function(ExportRequest)
def export_render(request: ExportRequest) -> None:
    """Called for `webshop.export.request`."""
    with clients.service_database().begin() as service:
        held, record = jobs.claim(service, request.export_uuid)
    attempt = Attempt(clients.service_database(), clients.product_database(), clients.storage(), clients.kafka())
    attempt.make(held, record, give_up_after=MAX_ATTEMPTS)


@dataclass(frozen=True)
class Attempt:
    """What an attempt needs of the outside."""

    service: Engine
    product: Engine
    storage: Storage
    kafka: Kafka

    def make(self, held: Claim, claimed: ExportHistory, give_up_after: int) -> None:
        """Makes the file and completes the export, `claimed` being its record since the claim.

        What fails ends the export FAILED when this is attempt number `give_up_after`, and otherwise lets the next one
        in after a while; it is raised either way. Raises NothingToDo when the attempt is over: deleted, or overtaken.
        Raises PermanentError, with a sentence for the merchant, when no attempt can succeed.
        """
        try:
            self.publish(held, claimed)
        except NothingToDo:
            raise
        except (PermanentError, Problem, msgspec.MsgspecError) as error:
            sentence = error.detail if isinstance(error, Problem) else str(error)
            self.fail(held, sentence)
            raise PermanentError(sentence) from error
        except Exception:
            if held.attempts < give_up_after:
                self.back_off(held)
                raise
            reference = uuid.uuid4()
            log.exception("Export %s failed for good, reference %s", held.uuid, reference)
            self.fail(held, f"Something went wrong on our side. Ask for the export again. Reference: {reference}")
            raise

    def publish(self, held: Claim, claimed: ExportHistory) -> None:
        """Renders, publishes the file, and completes the export: in this order, so that a completed one has its file.

        The lease is renewed last before publishing: who lost it meanwhile publishes nothing.
        """
        request = msgspec.json.decode(held.request, type=CreateExport)
        with Lease(self.service, held) as lease:
            announce(self.kafka, claimed)
            with self.storage.writing(held.path, content_type(held.file_type)) as sink:
                rows = self.rendered(held, request, sink, lease)
                size_bytes = sink.tell()
                lease.progress(rows)
                lease.renew()
        try:
            with self.service.begin() as service:
                record = jobs.complete(service, held, rows, size_bytes, self.storage.uri(held.path))
        except NothingToDo:
            self.storage.remove(held.path)
            raise
        announce(self.kafka, record)

    def rendered(self, held: Claim, request: CreateExport, sink: BinaryIO, lease: Lease) -> int:
        """Renders into `sink`; returns the number of rows. A connection left in the middle of a COPY is thrown away."""
        with self.service.connect() as service:
            identifiers = find_identifiers(service, held.webshop_uuid)
        with self.product.connect() as product:
            try:
                return render(product, held.webshop_uuid, request, identifiers, sink, lease.progress)
            except BaseException:
                product.invalidate()
                raise

    def fail(self, held: Claim, sentence: str) -> None:
        """Ends the export FAILED; where the database does not answer, sweep has it made again.

        Raises NothingToDo when the attempt was over already, as it is after a commit whose answer was lost.
        """
        try:
            with self.service.begin() as service:
                record = jobs.fail(service, held, sentence)
        except SQLAlchemyError:
            log.exception("Export %s could not be ended; sweep will have it made again", held.uuid)
            return
        if record is None:
            raise NothingToDo(f"attempt {held.attempts} at export {held.uuid} is over")
        announce(self.kafka, record)

    def back_off(self, held: Claim) -> None:
        """Shortens the lease. If the database does not answer, it just runs out."""
        try:
            with self.service.begin() as service:
                jobs.back_off(service, held)
        except SQLAlchemyError:
            log.exception("The lease of export %s could not be shortened; it runs out", held.uuid)


class Lease:
    """Keeps a claim while the work goes on, in a thread: the first row of a large sort may take a minute."""

    def __init__(self, service: Engine, held: Claim) -> None:
        """Renews `held` from now on."""
        self._service = service
        self._held = held
        self._rows = 0
        self._moved_at = time.monotonic()
        self._lost: NothingToDo | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep,), name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def progress(self, rows: int) -> None:
        """Says how many rows are written. Raises NothingToDo when the lease was lost."""
        if rows != self._rows:
            self._rows, self._moved_at = rows, time.monotonic()
        if self._lost:
            raise self._lost

    def renew(self) -> None:
        """Raises NothingToDo when the claim is somebody else's, or over."""
        with self._service.begin() as service:
            jobs.renew(service, self._held, self._rows)

    def _keep(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            if time.monotonic() - self._moved_at > STALL_SECONDS:
                log.error("Export %s has not moved for %s s; its lease runs out", self._held.uuid, STALL_SECONDS)
                return
            try:
                self.renew()
            except NothingToDo as late:
                self._lost = late
                return
            except SQLAlchemyError:
                log.warning("The lease of export %s was not renewed", self._held.uuid, exc_info=True)
