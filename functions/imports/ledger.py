"""The ledger of an import: what became of every row. Counts are summed from what is stored, never incremented."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy import Connection, case, text, update

from functions.imports import jobs
from functions.imports.states import LEASE_SECONDS, Status, Step
from shared.messages import BatchApplied, CellError, ImportBatch, RefusedRow
from shared.tables.service import import_batches, imports

NOT_APPLIED = "not_applied"
REFUSED_ROWS_AT_ONCE = 20_000  # a few MB of JSON a statement


def store_refused(service: Connection, import_uuid: UUID, run: int, rows: Sequence[RefusedRow]) -> None:
    """Stores refused rows, each once."""
    statement = text("""
        insert into import_refused_rows (import_uuid, run, row_number, errors)
        select :import_uuid, :run, cast(value->>'row_number' as integer), cast(value->'errors' as jsonb)
        from json_array_elements(cast(:rows as json))
        on conflict do nothing
    """)
    for start in range(0, len(rows), REFUSED_ROWS_AT_ONCE):
        encoded = msgspec.json.encode(rows[start : start + REFUSED_ROWS_AT_ONCE]).decode()
        service.execute(statement, {"import_uuid": import_uuid, "run": run, "rows": encoded})


def store_batches(service: Connection, batches: Sequence[ImportBatch]) -> None:
    """Stores the list of batches that a run consists of; from here on it is that list, whoever works on it."""
    rows = [
        {
            "import_uuid": batch.import_uuid,
            "run": batch.run,
            "first_row": batch.first_row,
            "size": len(batch.rows),
            "row_numbers": multirange(batch.row_numbers),
        }
        for batch in batches
    ]
    statement = text("""
        insert into import_batches (import_uuid, run, first_row, size, row_numbers)
        select import_uuid, run, first_row, size, row_numbers
        from json_populate_recordset(cast(null as import_batches), cast(:rows as json))
        on conflict do nothing
    """)
    service.execute(statement, {"rows": msgspec.json.encode(rows).decode()})


def multirange(numbers: Iterable[int]) -> str:
    """Ascending numbers as PostgreSQL writes a multirange: 2, 3, 5 is {[2,4),[5,6)}."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"


def store_result(service: Connection, applied: BatchApplied) -> bool:
    """Stores what became of a batch, once: False when its result is stored already, or it is none of this run's."""
    statement = (
        update(import_batches)
        .where(
            import_batches.c.import_uuid == applied.import_uuid,
            import_batches.c.run == applied.run,
            import_batches.c.first_row == applied.first_row,
            import_batches.c.updated.is_(None),
        )
        .values(updated=applied.updated, unchanged=applied.unchanged, failed=len(applied.refused))
    )
    if service.execute(statement).rowcount == 0:
        return False
    if applied.refused:
        store_refused(service, applied.import_uuid, applied.run, applied.refused)
    return True


@dataclass(frozen=True)
class Counts:
    """What is known of the rows of a run."""

    updated_rows: int
    unchanged_rows: int
    failed_rows: int
    batches_without_result: int

    @property
    def applied_rows(self) -> int:
        """Rows whose values stand in the product database."""
        return self.updated_rows + self.unchanged_rows

    def columns(self) -> dict[str, int]:
        """As they stand in the import's row."""
        return {
            "updated_rows": self.updated_rows,
            "unchanged_rows": self.unchanged_rows,
            "failed_rows": self.failed_rows,
        }


def counts(service: Connection, import_uuid: UUID, run: int, total_rows: int) -> Counts:
    """Sums the stored results. Rows that are in no batch were refused when the file was validated."""
    sums = service.execute(
        text("""
            select count(*) filter (where updated is null) as missing, coalesce(sum(size), 0) as good,
                   coalesce(sum(updated), 0) as updated, coalesce(sum(unchanged), 0) as unchanged,
                   coalesce(sum(failed), 0) as failed
            from import_batches where import_uuid = :import_uuid and run = :run
        """),
        {"import_uuid": import_uuid, "run": run},
    ).one()
    return Counts(
        updated_rows=int(sums.updated),
        unchanged_rows=int(sums.unchanged),
        failed_rows=int(total_rows - sums.good + sums.failed),
        batches_without_result=int(sums.missing),
    )


def settle(service: Connection, import_uuid: UUID, run: int, total_rows: int) -> bool:
    """Brings the import's row to what is stored: the final state when every batch has its result, else a new lease.

    Two transactions that each add one of the last two results would both miss the end, so the caller holds the
    import's row locked. Returns whether the import is over.
    """
    now = counts(service, import_uuid, run, total_rows)
    if now.batches_without_result:
        # While batches are being sent the sender renews its lease itself; if it failed, the next one is not kept out.
        lease = case((imports.c.processing_step == Step.APPLY, jobs.now(LEASE_SECONDS)), else_=imports.c.lease_until)
        statement = update(imports).where(imports.c.uuid == import_uuid)
        service.execute(statement.values(**now.columns(), lease_until=lease, claims=0, updated_at=jobs.now()))
        return False
    status, reason = verdict(now)
    reached = {"processing_step": Step.APPLY, "processing_offset": total_rows}
    jobs.finish(service, import_uuid, run, status, reason, **reached, **now.columns())
    return True


def verdict(counts: Counts) -> tuple[Status, str]:
    """The final state that the counts say, and a reason for the merchant."""
    total = counts.applied_rows + counts.failed_rows
    did = f"{counts.updated_rows:,} updated, {counts.unchanged_rows:,} already up to date"
    if not counts.failed_rows:
        return Status.COMPLETED, f"All {total:,} rows are applied: {did}."
    mend = "Download the error report, mend the rows in it and upload it again."
    if counts.applied_rows:
        return Status.COMPLETED_WITH_ERRORS, f"{counts.failed_rows:,} of {total:,} rows were refused ({did}). {mend}"
    return Status.FAILED_WITH_VALIDATION_ERRORS, f"None of the {total:,} rows could be applied. {mend}"


def refuse_unreached(service: Connection, import_uuid: UUID, run: int, message: str) -> None:
    """Counts every row of the batches without a result as failed, each with the code `not_applied`."""
    error = CellError("", "", NOT_APPLIED, message)
    keys = {"import_uuid": import_uuid, "run": run}
    service.execute(
        text("""
            insert into import_refused_rows (import_uuid, run, row_number, errors)
            select b.import_uuid, b.run, row_number, cast(:errors as jsonb)
            from import_batches b, unnest(b.row_numbers) as part,
                 generate_series(lower(part), upper(part) - 1) as row_number
            where b.import_uuid = :import_uuid and b.run = :run and b.updated is null
            on conflict do nothing
        """),
        {**keys, "errors": msgspec.json.encode([error]).decode()},
    )
    service.execute(
        text("""
            update import_batches set updated = 0, unchanged = 0, failed = size
            where import_uuid = :import_uuid and run = :run and updated is null
        """),
        keys,
    )


def refused_rows(service: Connection, import_uuid: UUID, run: int) -> int:
    """How many rows something is wrong with, those that were only not applied left out."""
    statement = text(f"""
        select count(*) from import_refused_rows
        where import_uuid = :import_uuid and run = :run and errors->0->>'code' <> '{NOT_APPLIED}'
    """)  # a constant of this module
    return int(service.execute(statement, {"import_uuid": import_uuid, "run": run}).scalar_one())


def batches_without_result(service: Connection, import_uuid: UUID, run: int) -> dict[int, str]:
    """Which batches are still to be sent, or to come back: their row numbers by their first row."""
    statement = text("""
        select first_row, cast(row_numbers as text) as row_numbers from import_batches
        where import_uuid = :import_uuid and run = :run and updated is null
    """)
    rows = service.execute(statement, {"import_uuid": import_uuid, "run": run})
    return {row.first_row: row.row_numbers for row in rows}


def forget(service: Connection, import_uuid: UUID) -> None:
    """Empties the ledger of every run."""
    for table in ("import_batches", "import_refused_rows"):
        service.execute(text(f"delete from {table} where import_uuid = :import_uuid"), {"import_uuid": import_uuid})
