"""export_history: keeps the Export History Table.

Every message holds the whole record and its version, so that any order, and any number of times, ends the same.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from shared import clients
from shared.delivery import kafka_function
from shared.messages import ExportHistory, Message
from shared.tables.service import export_history as history_table
from shared.tables.service import exports

if TYPE_CHECKING:
    from shared.clients.broker import Kafka


log = logging.getLogger(__name__)


@kafka_function(ExportHistory)
def export_history(record: ExportHistory) -> None:
    """Called for `webshop.export.history`."""
    with clients.service_database().begin() as service:
        store(service, record)


def store(service: Connection, record: ExportHistory) -> None:
    """Writes `record` unless a later version is there, and takes the export off the late ones if it is the newest.

    So the same record again, or an older one that comes late, changes nothing.
    """
    values = msgspec.structs.asdict(record)
    statement = insert(history_table).values(**values)
    service.execute(
        statement.on_conflict_do_update(
            index_elements=[history_table.c.uuid],
            set_={name: statement.excluded[name] for name in values if name != "uuid"},
            where=history_table.c.version < statement.excluded.version,
        )
    )
    newest = (exports.c.uuid == record.uuid, exports.c.version == record.version)
    service.execute(update(exports).where(*newest).values(history_due_at=None))


def announce(kafka: Kafka, *messages: Message) -> None:
    """Sends what a committed change gives rise to. Failing is logged only: the change stands, and sweep sends it."""
    try:
        kafka.send(*messages)
    except Exception:
        log.exception("%s messages about exports were not sent; sweep will", len(messages))
