"""import_batches: validates an import's file and sends its good rows on in batches.

It holds the import's lease while it works. A delivery that meets a live lease has nothing to do: its holder goes on,
and if the holder died, sweep sends the trigger again.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, func

from functions.imports import closing, gate, import_apply, jobs, ledger
from functions.imports.file import validation
from functions.imports.file.validation import ImportFile, Piece, RefusedFile
from functions.imports.jobs import Claim
from functions.imports.states import (
    LEASE_SECONDS,
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_CLAIMS,
    MAX_FILE_BYTES,
    OnError,
    Operation,
    Status,
    Step,
)
from shared import clients
from shared.delivery import kafka_function
from shared.errors import PermanentError
from shared.messages import ImportBatch, ImportTrigger, RefusedRow
from shared.tables.service import imports

if TYPE_CHECKING:  # at run time they come with whoever makes the clients
    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage


# Sent together, then the offset is saved and the lease renewed: 10 take milliseconds.
BATCHES_AT_ONCE = 10
RENEW_AFTER_SECONDS = LEASE_SECONDS / 3


@kafka_function(ImportTrigger)
def import_batches(trigger: ImportTrigger) -> None:
    """Called for `webshop.product.import.trigger`."""
    service, product = clients.service_database(), clients.product_database()
    with jobs.claimed(service, trigger) as held:
        try:
            Batching(service, product, clients.storage(), clients.kafka()).work_on(held)
        except PermanentError as error:
            closing.close(service, product, held, str(error))
            raise


@dataclass
class Validated:
    """A file's rows, judged: the good ones cut into batches, the others by their row numbers."""

    batches: list[ImportBatch] = field(default_factory=list)
    refused_row_numbers: list[int] = field(default_factory=list)

    @property
    def total_rows(self) -> int:
        """Data rows of the file."""
        return sum(len(batch.rows) for batch in self.batches) + len(self.refused_row_numbers)

    def offsets(self) -> dict[int, int]:
        """By each batch's first row: how many data rows are dealt with once it is sent, refused ones included."""
        good = accumulate(len(batch.rows) for batch in self.batches)
        return {
            batch.first_row: rows + bisect_right(self.refused_row_numbers, batch.row_numbers[-1])
            for batch, rows in zip(self.batches, good, strict=True)
        }


@dataclass(frozen=True)
class Batching:
    """Brings a claimed import to where only results are missing."""

    service: Engine
    product: Engine
    storage: Storage
    kafka: Kafka

    def work_on(self, held: Claim) -> None:
        """Validates the file unless that was done, and sends every batch that has no result.

        Raises PermanentError when the import can only be ended, and NothingToDo when the lease was lost.
        """
        if held.claims > MAX_CLAIMS:
            raise PermanentError(f"We gave up after {MAX_CLAIMS} attempts without progress. {retry_or_tell(held)}")
        validated = self.validate(held) if held.processing_step == Step.VALIDATE else self.read_again(held)
        if validated:
            self.publish(held, validated)

    def validate(self, held: Claim) -> Validated | None:
        """Checks all that can be checked and commits it at once. None: the import ended here."""
        if held.operation != Operation.UPDATE:
            reason = f'The operation "{held.operation}" is not supported. Allowed: {Operation.UPDATE}.'
            self.end(held, Status.INVALID_OPERATION_TYPE, reason)
            return None
        if held.size_bytes > MAX_FILE_BYTES:
            reason = f"The file has {held.size_bytes:,} bytes. Allowed are {MAX_FILE_BYTES:,} (5 MB): split it."
            self.end(held, Status.FAILED_WITH_VALIDATION_ERRORS, reason)
            return None
        content = self.storage.read(held.object_path, held.generation)
        try:
            file = validation.open_file(content)
        except RefusedFile as refused:
            read_as = {"encoding": refused.encoding, "delimiter": refused.delimiter}
            self.end(held, Status(refused.status), refused.reason, **read_as)
            return None
        with self.service.begin() as service:
            return self.validate_rows(service, held, file)

    def validate_rows(self, service: Connection, held: Claim, file: ImportFile) -> Validated | None:
        """Stores refused rows as they are found; the batches, the total and the step that follows end it."""
        validated = Validated()
        renewed = time.monotonic()
        for piece in file.validate():
            ledger.store_refused(service, held.uuid, held.run, piece.refused)
            validated.refused_row_numbers += [row.row_number for row in piece.refused]
            validated.batches += cut(held, file.columns, piece)
            if time.monotonic() - renewed > RENEW_AFTER_SECONDS:
                self.renew(held)
                renewed = time.monotonic()
        read_as = {
            "encoding": file.encoding,
            "delimiter": file.delimiter,
            "skipped_columns": list(file.skipped_columns),
            "total_rows": validated.total_rows,
            "failed_rows": len(validated.refused_row_numbers),
        }
        ledger.store_batches(service, validated.batches)
        jobs.write(service, held, claims=0, processing_step=Step.PUBLISH, **read_as)
        if not validated.total_rows:
            reason = "The file has a heading but no rows: there is nothing to import."
            jobs.finish(service, held.uuid, held.run, Status.FAILED_WITH_VALIDATION_ERRORS, reason)
            return None
        if held.on_error == OnError.ABORT and self.anything_refused(service, held, validated):
            self.abort(service, held, validated.total_rows)
            return None
        if not validated.batches:
            ledger.settle(service, held.uuid, held.run, validated.total_rows)
            return None
        return validated

    def anything_refused(self, service: Connection, held: Claim, validated: Validated) -> bool:
        """Asks the product database too, for every identifier and every rule on stored values."""
        refused: list[RefusedRow] = []
        with self.product.connect() as product:
            for batch in validated.batches:
                refused += import_apply.refusals(product, batch)
        ledger.store_refused(service, held.uuid, held.run, refused)
        return bool(refused or validated.refused_row_numbers)

    def abort(self, service: Connection, held: Claim, total_rows: int) -> None:
        """Ends an import that was to be applied whole or not at all."""
        ledger.refuse_unreached(
            service, held.uuid, held.run, "Nothing is wrong with this row, but others were refused (on_error=abort)."
        )
        refused = ledger.refused_rows(service, held.uuid, held.run)
        reason = (
            f"{refused:,} of {total_rows:,} rows were refused, so nothing was applied (on_error=abort). "
            "Download the error report, mend the rows in it and upload the file again."
        )
        ended = {"failed_rows": total_rows, "processing_offset": total_rows}
        jobs.finish(service, held.uuid, held.run, Status.FAILED_WITH_VALIDATION_ERRORS, reason, **ended)

    def read_again(self, held: Claim) -> Validated:
        """The batches of a file that an earlier claimant validated.

        The cells are read anew; which rows are refused stands as it was committed, and the product database is not
        asked again.
        """
        file = validation.open_file(self.storage.read(held.object_path, held.generation))
        validated = Validated()
        for piece in file.validate():
            validated.refused_row_numbers += [row.row_number for row in piece.refused]
            validated.batches += cut(held, file.columns, piece)
        return validated

    def publish(self, held: Claim, validated: Validated) -> None:
        """Opens the gate and sends every batch without a result. Raises PermanentError where the gate was closed."""
        with self.product.begin() as product:
            closed_because = gate.open_gate(product, held.uuid, held.run)
        if closed_because is not None:
            raise PermanentError(closed_because)
        with self.service.begin() as service:
            missing = ledger.batches_without_result(service, held.uuid, held.run)
        unsent = [batch for batch in validated.batches if batch.first_row in missing]
        if {batch.first_row: ledger.multirange(batch.row_numbers) for batch in unsent} != missing:
            raise PermanentError(f"The file is read differently now than when it was validated. {retry_or_tell(held)}")
        offsets = validated.offsets()
        for start in range(0, len(unsent), BATCHES_AT_ONCE):
            sent = unsent[start : start + BATCHES_AT_ONCE]
            self.kafka.send(*sent)
            self.renew(held, processing_offset=furthest(offsets[sent[-1].first_row]))
        # Batches may wait in a long queue: each claim that brought no result waits longer before they are sent again.
        patience = jobs.now(LEASE_SECONDS * held.claims)
        offset = furthest(validated.total_rows)
        self.renew(held, processing_offset=offset, processing_step=Step.APPLY, lease_until=patience)
        if not unsent:
            with self.service.begin() as service:
                jobs.lock(service, held.uuid, held.run)
                ledger.settle(service, held.uuid, held.run, validated.total_rows)

    def renew(self, held: Claim, **values: object) -> None:
        """Keeps the lease, and writes `values`, in a transaction of its own."""
        with self.service.begin() as service:
            jobs.write(service, held, **values)

    def end(self, held: Claim, status: Status, reason: str, **values: object) -> None:
        """Ends an import of which no row was judged."""
        with self.service.begin() as service:
            jobs.write(service, held, **values)
            jobs.finish(service, held.uuid, held.run, status, reason)


def furthest(offset: int) -> ColumnElement[int]:
    """The offset, unless an earlier claimant came further: what is sent again is no step back."""
    return func.greatest(imports.c.processing_offset, offset)


def retry_or_tell(held: Claim) -> str:
    """What a merchant can do about a fault of ours."""
    return f"Retry the import; if it ends so again, tell us this reference: {held.reference}."


def cut(held: Claim, columns: tuple[str, ...], piece: Piece) -> list[ImportBatch]:
    """Cuts a piece's good rows into batches: the same cuts whenever the same file is read."""
    batches = []
    start = 0
    while start < len(piece.rows):
        size = MAX_BATCH_ROWS
        while size > 1 and len(msgspec.json.encode(piece.rows[start : start + size])) > MAX_BATCH_BYTES:
            size //= 2
        numbers, rows = piece.row_numbers[start : start + size], piece.rows[start : start + size]
        batches.append(ImportBatch(held.webshop_uuid, held.uuid, held.run, tuple(numbers), columns, tuple(rows)))
        start += size
    return batches
