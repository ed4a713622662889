"""The Export History Table: what became of every export, kept by the messages that each change sends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from shared.messages import ExportHistory, Message
from shared.tables.service import export_history, exports

if TYPE_CHECKING:
    from shared.clients.broker import Kafka

log = logging.getLogger(__name__)


def store(service: Connection, record: ExportHistory) -> None:
    """Writes `record` unless a later version is there, and takes the export off the late ones if it is the newest.

    So the same record again, or an older one that comes late, changes nothing.
    """
    values = msgspec.structs.asdict(record)
    statement = insert(export_history).values(**values)
    service.execute(
        statement.on_conflict_do_update(
            index_elements=[export_history.c.uuid],
            set_={name: statement.excluded[name] for name in values if name != "uuid"},
            where=export_history.c.version < statement.excluded.version,
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
