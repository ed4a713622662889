"""The files of jobs: each attempt writes to its own folder, and sweep deletes the files that no job needs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row, Table, select, update

from shared.leases import MAX_ROWS_PER_SWEEP, now

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage


def delete_orphaned_files(
    service_db: Engine,
    storage: Storage,
    table: Table,
    *,
    folder_of: Callable[[Row[Any]], str],
    needed_uris: Callable[[Row[Any]], Collection[str]],
) -> None:
    """Deletes the files that jobs do not need: of attempts whose worker died, and of deleted or expired jobs.

    The column `tidy_at` of `table` is the time at which the files of a job are due to be checked.
    """
    statement = select(table).where(table.c.tidy_at <= now()).order_by(table.c.tidy_at).limit(MAX_ROWS_PER_SWEEP)
    with service_db.connect() as conn:
        rows = conn.execute(statement).all()
    for row in rows:
        delete_files_except(storage, folder_of(row), needed_uris(row))
        # If `tidy_at` has changed meanwhile, the files are due to be checked again.
        is_unchanged = (table.c.uuid == row.uuid, table.c.tidy_at == row.tidy_at)
        with service_db.begin() as conn:
            conn.execute(update(table).where(*is_unchanged).values(tidy_at=None))


def delete_files_except(storage: Storage, folder: str, needed_uris: Collection[str]) -> None:
    """Deletes the files in `folder`, except those at `needed_uris`."""
    for stored in storage.list(folder):
        if storage.uri(stored.path) not in needed_uris:
            storage.remove(stored.path)
