"""export_history: keeps the Export History Table.

Every message holds the whole record and its version, so the result does not depend on the order or number of messages.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from shared import clients
from shared.delivery import kafka_function
from shared.messages import ExportHistory
from shared.tables.service import export_history as history_table
from shared.tables.service import exports


@kafka_function(ExportHistory)
def export_history(record: ExportHistory) -> None:
    """Handles `webshop.export.history`."""
    with clients.service_database().begin() as conn:
        store_record(conn, record)


def store_record(conn: Connection, record: ExportHistory) -> None:
    """Writes `record`, unless this version or a later one is stored. Sweep does not send the latest version again then.

    A duplicate, or an older record that arrives late, changes nothing.
    """
    values = msgspec.structs.asdict(record)
    statement = insert(history_table).values(**values)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=[history_table.c.uuid],
            set_={name: statement.excluded[name] for name in values if name != "uuid"},
            where=history_table.c.version < statement.excluded.version,
        )
    )
    is_latest = (exports.c.uuid == record.uuid, exports.c.version == record.version)
    conn.execute(update(exports).where(*is_latest).values(history_due_at=None))
