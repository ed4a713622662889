"""import_batches: validates the file of an import and sends its good rows in batches.

It works in two steps under the import's lease, VALIDATE and PUBLISH; then results arrive (APPLY). What a step has
committed is never done again: a later claim continues from there. A delivery that meets another worker's live lease has
nothing to do; if that worker dies, sweep sends the trigger again.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, func

from functions.imports import gate, import_apply, ledger
from functions.imports.closing import close_import
from functions.imports.file import validation
from functions.imports.file.validation import ImportFile, Piece, RefusedFile
from functions.imports.jobs import IMPORTS, ImportClaim, claim_import, finish_import, lock_import
from functions.imports.states import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_CLAIMS,
    MAX_FILE_BYTES,
    OnError,
    Operation,
    Status,
    Step,
    explain_file_too_large,
)
from shared import clients
from shared.delivery import kafka_function
from shared.errors import NothingToDo, PermanentError
from shared.leases import LEASE_SECONDS, now
from shared.messages import ImportBatch, ImportTrigger, RefusedRow
from shared.tables.service import imports
from shared.wording import format_count, was_or_were

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)

BATCHES_PER_SEND = 10  # the offset is saved and the lease renewed after each send, which takes milliseconds
RENEW_AFTER_SECONDS = LEASE_SECONDS / 3


@kafka_function(ImportTrigger)
def import_batches(trigger: ImportTrigger) -> None:
    """Handles `webshop.product.import.trigger`."""
    service_db, product_db = clients.service_database(), clients.product_database()
    with service_db.begin() as conn:
        claim = claim_import(conn, trigger)
    try:
        BatchSender(claim, service_db, product_db, clients.storage(), clients.kafka()).run()
    except NothingToDo:
        raise
    except PermanentError as error:
        close_import(service_db, product_db, claim, str(error))
        raise
    except Exception:
        log.warning("A claim of an import failed, reference %s", claim.reference)
        IMPORTS.back_off_if_possible(service_db, claim)
        raise


@dataclass
class ValidatedFile:
    """The rows of a file: the good ones, cut into batches, and the row numbers of the refused ones."""

    batches: list[ImportBatch] = field(default_factory=list)
    refused_row_numbers: list[int] = field(default_factory=list)

    @property
    def total_rows(self) -> int:
        """Data rows of the file."""
        return sum(len(batch.rows) for batch in self.batches) + len(self.refused_row_numbers)

    def offsets(self) -> dict[int, int]:
        """For the first row of each batch: how many data rows, refused ones included, are done once it is sent."""
        good_rows = accumulate(len(batch.rows) for batch in self.batches)
        return {
            batch.first_row: rows + bisect_right(self.refused_row_numbers, batch.row_numbers[-1])
            for batch, rows in zip(self.batches, good_rows, strict=True)
        }


@dataclass(frozen=True)
class BatchSender:
    """Brings a claimed import to the point where only results are missing."""

    claim: ImportClaim
    service_db: Engine
    product_db: Engine
    storage: Storage
    kafka: Kafka

    def run(self) -> None:
        """Validates the file unless an earlier claim did, and sends every batch that has no result.

        Raises PermanentError when the import cannot continue, and NothingToDo when the lease was lost.
        """
        if self.claim.claims > MAX_CLAIMS:
            reason = f"We gave up after {MAX_CLAIMS} attempts without progress."
            raise PermanentError(f"{reason} {advise_retry(self.claim)}")
        file = self.validate() if self.claim.processing_step == Step.VALIDATE else self.read_validated_file()
        if file:
            self.publish(file)

    def validate(self) -> ValidatedFile | None:
        """Checks the operation, the file and its rows, and commits the outcome. None: the import has ended."""
        claim = self.claim
        if claim.operation != Operation.UPDATE:
            reason = f'The operation "{claim.operation}" is not supported. Allowed: {Operation.UPDATE}.'
            self.finish(Status.INVALID_OPERATION_TYPE, reason)
            return None
        if claim.size_bytes > MAX_FILE_BYTES:
            self.finish(Status.FAILED_WITH_VALIDATION_ERRORS, explain_file_too_large(claim.size_bytes))
            return None
        content = self.storage.read(claim.object_path, claim.generation)
        try:
            file = validation.open_file(content)
        except RefusedFile as refusal:
            read_as = {"encoding": refusal.encoding, "delimiter": refusal.delimiter}
            self.finish(Status(refusal.status), refusal.reason, **read_as)
            return None
        with self.service_db.begin() as conn:
            return self.validate_rows(conn, file)

    def validate_rows(self, conn: Connection, file: ImportFile) -> ValidatedFile | None:
        """Stores refused rows, the list of batches and the total in one transaction. None: the import has ended."""
        claim = self.claim
        validated = ValidatedFile()
        renewed_at = time.monotonic()
        for piece in file.validate():
            ledger.store_refused_rows(conn, claim.uuid, claim.run, piece.refused)
            validated.refused_row_numbers += [row.row_number for row in piece.refused]
            validated.batches += cut_into_batches(claim, file.columns, piece)
            if time.monotonic() - renewed_at > RENEW_AFTER_SECONDS:
                self.renew()
                renewed_at = time.monotonic()
        ledger.store_batches(conn, validated.batches)
        IMPORTS.renew(
            conn,
            claim,
            claims=0,
            processing_step=Step.PUBLISH,
            encoding=file.encoding,
            delimiter=file.delimiter,
            skipped_columns=list(file.skipped_columns),
            total_rows=validated.total_rows,
            failed_rows=len(validated.refused_row_numbers),
        )
        if not validated.total_rows:
            reason = "The file has a heading but no rows: there is nothing to import."
            finish_import(conn, claim.uuid, claim.run, Status.FAILED_WITH_VALIDATION_ERRORS, reason)
            return None
        if claim.on_error == OnError.ABORT and self.has_refused_rows(conn, validated):
            self.abort(conn, validated.total_rows)
            return None
        if not validated.batches:
            ledger.settle(conn, claim.uuid, claim.run, validated.total_rows)
            return None
        return validated

    def has_refused_rows(self, conn: Connection, file: ValidatedFile) -> bool:
        """Returns whether any row is refused, by the file alone or by the product database, where nothing is changed.

        The product database knows which identifiers exist, and the stored values that some rules compare with. The rows
        that it refuses are stored.
        """
        refused: list[RefusedRow] = []
        with self.product_db.connect() as product_conn:
            for batch in file.batches:
                refused += import_apply.find_refused_rows(product_conn, batch)
        ledger.store_refused_rows(conn, self.claim.uuid, self.claim.run, refused)
        return bool(refused or file.refused_row_numbers)

    def abort(self, conn: Connection, total_rows: int) -> None:
        """Ends an import that was to be applied as a whole or not at all, before any row is applied."""
        import_uuid, run = self.claim.uuid, self.claim.run
        message = "Nothing is wrong with this row, but other rows were refused (on_error=abort)."
        ledger.refuse_unreached_rows(conn, import_uuid, run, message)
        refused_rows = ledger.count_refused_rows(conn, import_uuid, run)
        reason = (
            f"{refused_rows:,} of {format_count(total_rows, 'row')} {was_or_were(refused_rows)} refused,"
            " so nothing was applied (on_error=abort)."
            " Download the error report, correct the rows in it and upload it again."
        )
        counts = {"failed_rows": total_rows, "processing_offset": total_rows}
        finish_import(conn, import_uuid, run, Status.FAILED_WITH_VALIDATION_ERRORS, reason, **counts)

    def read_validated_file(self) -> ValidatedFile:
        """Reads a file again that an earlier claim validated, to cut the same batches.

        Nothing is stored: the refused rows are committed already, and the product database is not queried again.
        """
        file = validation.open_file(self.storage.read(self.claim.object_path, self.claim.generation))
        validated = ValidatedFile()
        for piece in file.validate():
            validated.refused_row_numbers += [row.row_number for row in piece.refused]
            validated.batches += cut_into_batches(self.claim, file.columns, piece)
        return validated

    def publish(self, file: ValidatedFile) -> None:
        """Opens the gate and sends every batch without a result.

        Raises PermanentError when the gate was closed for this run, or when the file gives other batches than before.
        """
        claim = self.claim
        with self.product_db.begin() as product_conn:
            reason = gate.open_gate(product_conn, claim.uuid, claim.run)
        if reason is not None:
            raise PermanentError(reason)
        with self.service_db.begin() as conn:
            missing_results = ledger.find_batches_without_result(conn, claim.uuid, claim.run)
        unsent = [batch for batch in file.batches if batch.first_row in missing_results]
        if {batch.first_row: ledger.format_multirange(batch.row_numbers) for batch in unsent} != missing_results:
            reason = "The rows of the file are not the same as when it was validated."
            raise PermanentError(f"{reason} {advise_retry(claim)}")
        offsets = file.offsets()
        for start in range(0, len(unsent), BATCHES_PER_SEND):
            batches = unsent[start : start + BATCHES_PER_SEND]
            self.kafka.send(*batches)
            self.renew(processing_offset=at_least(offsets[batches[-1].first_row]))
        # Batches may wait in a long queue, so sweep waits longer with each claim that brought no result.
        self.renew(
            processing_offset=at_least(file.total_rows),
            processing_step=Step.APPLY,
            lease_until=now(LEASE_SECONDS * claim.claims),
        )
        if not unsent:
            with self.service_db.begin() as conn:
                lock_import(conn, claim.uuid, claim.run)
                ledger.settle(conn, claim.uuid, claim.run, file.total_rows)

    def renew(self, **values: Any) -> None:
        """Renews the lease and writes `values` in a transaction of its own."""
        with self.service_db.begin() as conn:
            IMPORTS.renew(conn, self.claim, **values)

    def finish(self, status: Status, reason: str, **values: Any) -> None:
        """Ends an import of which no row was read."""
        with self.service_db.begin() as conn:
            IMPORTS.finish(conn, self.claim, status, reason=reason, **values)


def at_least(offset: int) -> ColumnElement[int]:
    """`offset`, or the stored one if an earlier worker got further: batches that are sent again do not lower it."""
    return func.greatest(imports.c.processing_offset, offset)


def advise_retry(claim: ImportClaim) -> str:
    """What a merchant can do about a fault of ours."""
    return f"Retry the import. If it fails again, quote this reference to support: {claim.reference}."


def cut_into_batches(claim: ImportClaim, columns: tuple[str, ...], piece: Piece) -> list[ImportBatch]:
    """Cuts the good rows of a piece into batches. The same file always gives the same batches."""
    batches = []
    start = 0
    while start < len(piece.rows):
        size = MAX_BATCH_ROWS
        while size > 1 and len(msgspec.json.encode(piece.rows[start : start + size])) > MAX_BATCH_BYTES:
            size //= 2
        numbers, rows = piece.row_numbers[start : start + size], piece.rows[start : start + size]
        batches.append(ImportBatch(claim.webshop_uuid, claim.uuid, claim.run, tuple(numbers), columns, tuple(rows)))
        start += size
    return batches
