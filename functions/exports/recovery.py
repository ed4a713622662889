"""What exports leave behind: attempts that died, records the history lacks, files kept too long or needed by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, select, update

from functions.exports import jobs
from shared.messages import Message
from shared.tables.service import exports

if TYPE_CHECKING:
    from shared.clients.bucket import Storage


def unfinished(service_database: Engine) -> list[Message]:
    """Ends the exports that had their attempts and returns their records, with the requests for those to go on with."""
    with service_database.begin() as service:
        return [*jobs.give_up(service), *jobs.wake(service)]


def tidy(service_database: Engine, storage: Storage) -> None:
    """Removes the files that exports do not need: of attempts that died, and of what was deleted or has expired."""
    statement = select(exports).where(exports.c.tidy_at <= jobs.now()).order_by(exports.c.tidy_at).limit(jobs.AT_ONCE)
    with service_database.connect() as reading:
        rows = reading.execute(statement).all()
    for row in rows:
        path = jobs.path_of(row.webshop_uuid, row.uuid, row.attempts, row.name)
        remove_all_but(storage, jobs.folder(row.webshop_uuid, row.uuid), needed=path if row.file_uri else None)
        # Not what was asked for meanwhile.
        done = update(exports).where(exports.c.uuid == row.uuid, exports.c.tidy_at == row.tidy_at).values(tidy_at=None)
        with service_database.begin() as writing:
            writing.execute(done)


def remove_all_but(storage: Storage, folder: str, needed: str | None) -> None:
    """Removes the files in `folder`, all but the one at the path `needed`."""
    for stored in storage.list(folder):
        if stored.path != needed:
            storage.remove(stored.path)
