"""The ledger of an import: what became of every row. Counts are summed from what is stored, never incremented."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, Text, case, cast, delete, func, select, text, update

from functions.imports.jobs import finish_import
from functions.imports.states import Status, Step
from shared.leases import LEASE_SECONDS, now
from shared.messages import BatchApplied, CellError, ImportBatch, RefusedRow
from shared.tables.service import import_batches, import_refused_rows, imports
from shared.wording import was_or_were

NOT_APPLIED = "not_applied"  # the error code of a good row that was not applied
REFUSED_ROWS_PER_STATEMENT = 20_000  # a few MB of JSON


def store_refused_rows(conn: Connection, import_uuid: UUID, run: int, rows: Sequence[RefusedRow]) -> None:
    """Stores refused rows, each once."""
    statement = text("""
        insert into import_refused_rows (import_uuid, run, row_number, errors)
        select :import_uuid, :run, cast(value->>'row_number' as integer), cast(value->'errors' as jsonb)
        from json_array_elements(cast(:rows as json))
        on conflict do nothing
    """)
    for start in range(0, len(rows), REFUSED_ROWS_PER_STATEMENT):
        rows_json = msgspec.json.encode(rows[start : start + REFUSED_ROWS_PER_STATEMENT]).decode()
        conn.execute(statement, {"import_uuid": import_uuid, "run": run, "rows": rows_json})


def store_batches(conn: Connection, batches: Sequence[ImportBatch]) -> None:
    """Stores the list of batches that a run consists of. Every later claim of the run works on this list."""
    rows = [
        {
            "import_uuid": batch.import_uuid,
            "run": batch.run,
            "first_row": batch.first_row,
            "size": len(batch.rows),
            "row_numbers": format_multirange(batch.row_numbers),
        }
        for batch in batches
    ]
    statement = text("""
        insert into import_batches (import_uuid, run, first_row, size, row_numbers)
        select import_uuid, run, first_row, size, row_numbers
        from json_populate_recordset(cast(null as import_batches), cast(:rows as json))
        on conflict do nothing
    """)
    conn.execute(statement, {"rows": msgspec.json.encode(rows).decode()})


def format_multirange(numbers: Iterable[int]) -> str:
    """Ascending numbers as PostgreSQL writes a multirange: 2, 3, 5 is {[2,4),[5,6)}."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    return "{" + ",".join(f"[{first},{end})" for first, end in ranges) + "}"


def store_result(conn: Connection, result: BatchApplied) -> bool:
    """Stores what became of a batch, once. False: its result is stored already, or the run has no such batch."""
    statement = (
        update(import_batches)
        .where(*of_run(import_batches, result.import_uuid, result.run))
        .where(import_batches.c.first_row == result.first_row, import_batches.c.updated.is_(None))
        .values(updated=result.updated, unchanged=result.unchanged, failed=len(result.refused))
    )
    if conn.execute(statement).rowcount == 0:
        return False
    if result.refused:
        store_refused_rows(conn, result.import_uuid, result.run, result.refused)
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
        """Rows whose values are those of the product database now."""
        return self.updated_rows + self.unchanged_rows

    def columns(self) -> dict[str, int]:
        """The counts as columns of the import's row."""
        return {
            "updated_rows": self.updated_rows,
            "unchanged_rows": self.unchanged_rows,
            "failed_rows": self.failed_rows,
        }


def sum_counts(conn: Connection, import_uuid: UUID, run: int, total_rows: int) -> Counts:
    """Sums the stored results. A row that is in no batch was refused by VALIDATE."""
    columns = import_batches.c
    statement = select(
        func.count().filter(columns.updated.is_(None)).label("missing"),
        *(func.coalesce(func.sum(columns[name]), 0).label(name) for name in ("size", "updated", "unchanged", "failed")),
    ).where(*of_run(import_batches, import_uuid, run))
    sums = conn.execute(statement).one()
    return Counts(
        updated_rows=int(sums.updated),
        unchanged_rows=int(sums.unchanged),
        failed_rows=int(total_rows - sums.size + sums.failed),
        batches_without_result=int(sums.missing),
    )


def settle(conn: Connection, import_uuid: UUID, run: int, total_rows: int) -> None:
    """Writes the stored counts to the import's row: a final state if no result is missing, else a new lease.

    The caller holds the row's lock: two transactions that each add one of the last two results would both miss the end.
    """
    counts = sum_counts(conn, import_uuid, run, total_rows)
    if counts.batches_without_result:
        # While batches are being sent the worker renews its lease itself; if it failed, the next one can claim soon.
        lease_until = case((imports.c.processing_step == Step.APPLY, now(LEASE_SECONDS)), else_=imports.c.lease_until)
        statement = update(imports).where(imports.c.uuid == import_uuid)
        conn.execute(statement.values(**counts.columns(), lease_until=lease_until, claims=0, updated_at=now()))
        return
    status, reason = final_state(counts)
    end = {"processing_step": Step.APPLY, "processing_offset": total_rows}
    finish_import(conn, import_uuid, run, status, reason, **end, **counts.columns())


def final_state(counts: Counts) -> tuple[Status, str]:
    """The state that complete counts lead to, and its reason for the merchant."""
    total_rows = counts.applied_rows + counts.failed_rows
    applied = f"{counts.updated_rows:,} updated, {counts.unchanged_rows:,} already up to date"
    correct = "Download the error report, correct the rows in it and upload it again."
    if not counts.failed_rows:
        subject = "The only row is" if total_rows == 1 else f"All {total_rows:,} rows are"
        return Status.COMPLETED, f"{subject} applied: {applied}."
    if counts.applied_rows:
        refused = f"{counts.failed_rows:,} of {total_rows:,} rows {was_or_were(counts.failed_rows)} refused"
        return Status.COMPLETED_WITH_ERRORS, f"{refused} ({applied}). {correct}"
    subject = "The only row" if total_rows == 1 else f"None of the {total_rows:,} rows"
    could = "could not" if total_rows == 1 else "could"
    return Status.FAILED_WITH_VALIDATION_ERRORS, f"{subject} {could} be applied. {correct}"


def refuse_unreached_rows(conn: Connection, import_uuid: UUID, run: int, message: str) -> None:
    """Counts every row of the batches without a result as failed, each with the code `not_applied` and `message`."""
    error = CellError("", "", NOT_APPLIED, message)
    statement = text("""
        insert into import_refused_rows (import_uuid, run, row_number, errors)
        select b.import_uuid, b.run, row_number, cast(:errors as jsonb)
        from import_batches b, unnest(b.row_numbers) as part,
             generate_series(lower(part), upper(part) - 1) as row_number
        where b.import_uuid = :import_uuid and b.run = :run and b.updated is null
        on conflict do nothing
    """)
    errors_json = msgspec.json.encode([error]).decode()
    conn.execute(statement, {"import_uuid": import_uuid, "run": run, "errors": errors_json})
    unreached = (*of_run(import_batches, import_uuid, run), import_batches.c.updated.is_(None))
    conn.execute(update(import_batches).where(*unreached).values(updated=0, unchanged=0, failed=import_batches.c.size))


def count_refused_rows(conn: Connection, import_uuid: UUID, run: int) -> int:
    """How many rows have an error of their own, without those that were only not applied."""
    first_code = import_refused_rows.c.errors[0]["code"].astext
    statement = select(func.count()).where(*of_run(import_refused_rows, import_uuid, run), first_code != NOT_APPLIED)
    return int(conn.execute(statement).scalar_one())


def find_batches_without_result(conn: Connection, import_uuid: UUID, run: int) -> dict[int, str]:
    """The batches that have no result yet: their row numbers as a multirange, by their first row."""
    row_numbers = cast(import_batches.c.row_numbers, Text).label("row_numbers")
    statement = select(import_batches.c.first_row, row_numbers).where(
        *of_run(import_batches, import_uuid, run), import_batches.c.updated.is_(None)
    )
    return {row.first_row: row.row_numbers for row in conn.execute(statement)}


def delete_ledger(conn: Connection, import_uuid: UUID) -> None:
    """Deletes the ledgers of all runs of an import."""
    for table in (import_batches, import_refused_rows):
        conn.execute(delete(table).where(table.c.import_uuid == import_uuid))


def of_run(table: Table, import_uuid: UUID, run: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The conditions that bind a statement to one run of an import."""
    return (table.c.import_uuid == import_uuid, table.c.run == run)
