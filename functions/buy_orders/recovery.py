"""What sends leave behind: those that nobody works on, and files that none of them needs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import Engine, select, update

from functions.buy_orders import jobs
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends

if TYPE_CHECKING:
    from shared.clients.bucket import Storage

log = logging.getLogger(__name__)


def unfinished(service_database: Engine) -> list[BuyOrderEmail]:
    """Ends the sends that will not be tried any more, and returns the messages of those that will."""
    with service_database.begin() as service:
        for send_uuid in jobs.lost(service):
            log.error("Send %s was being handed over when its process died: it is UNCERTAIN", send_uuid)
        for send_uuid in jobs.give_up(service):
            log.error("Send %s was tried often enough: it is FAILED", send_uuid)
        return jobs.wake(service)


def tidy(service_database: Engine, storage: Storage) -> None:
    """Removes the files that no send needs: of attempts that died, and of what is kept no longer."""
    table = buy_order_sends
    statement = select(table).where(table.c.tidy_at <= jobs.now()).order_by(table.c.tidy_at).limit(jobs.AT_ONCE)
    with service_database.connect() as reading:
        rows = reading.execute(statement).all()
    for row in rows:
        for stored in storage.list(jobs.folder(row.webshop_uuid, row.uuid)):
            if storage.uri(stored.path) not in row.file_uris:
                storage.remove(stored.path)
        # Not what was asked for meanwhile.
        done = update(table).where(table.c.uuid == row.uuid, table.c.tidy_at == row.tidy_at).values(tidy_at=None)
        with service_database.begin() as writing:
            writing.execute(done)
