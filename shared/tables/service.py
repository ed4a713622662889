"""The service database: this project's own tables. The migrations in infra/migrations/service create them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4MULTIRANGE, JSONB

metadata = MetaData()

ACTIVE = "status in ('IN_QUEUE', 'IMPORTING')"
UNFINISHED = "status in ('PENDING', 'RENDERING')"
UNSENT = "status in ('PENDING', 'FILES_READY', 'SENDING')"


def timestamp(name: str, **options: object) -> Column[object]:
    """Returns a column for a point in time, with its time zone."""
    return Column(name, DateTime(timezone=True), **options)  # type: ignore[arg-type]  # Column's own options


imports = Table(
    "imports",
    metadata,
    Column("uuid", Uuid, primary_key=True),
    Column("webshop_uuid", Uuid, nullable=False),
    Column("user_uuid", Uuid),  # null: the file had no valid one, and the import failed
    Column("file_name", Text, nullable=False),
    Column("object_path", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the object; a later generation is another file
    Column("size_bytes", BigInteger, nullable=False),
    Column("operation", Text, nullable=False),
    Column("on_error", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("run", Integer, nullable=False, server_default="1"),  # rises only when the merchant retries
    Column(
        "token", Integer, nullable=False, server_default="0"
    ),  # the fencing token: rises with each claim, final state and retry
    Column("claims", Integer, nullable=False, server_default="0"),  # claims in a row without progress
    timestamp("lease_until"),  # until then the worker with the token has the claim
    timestamp("wake_at", nullable=False, server_default=text("clock_timestamp()")),  # from then on sweep requeues it
    Column("processing_step", Text, nullable=False, server_default="VALIDATE"),
    Column("processing_offset", Integer, nullable=False, server_default="0"),  # data rows processed
    Column("encoding", Text, nullable=False, server_default=""),
    Column("delimiter", Text, nullable=False, server_default=""),
    Column("skipped_columns", ARRAY(Text), nullable=False, server_default="{}"),
    Column("total_rows", Integer, nullable=False, server_default="0"),
    Column("updated_rows", Integer, nullable=False, server_default="0"),
    Column("unchanged_rows", Integer, nullable=False, server_default="0"),
    Column("failed_rows", Integer, nullable=False, server_default="0"),
    timestamp("created_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("updated_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("finished_at"),
    CheckConstraint(
        f"({ACTIVE}) or total_rows = updated_rows + unchanged_rows + failed_rows", name="imports_ledger_balances"
    ),
    CheckConstraint(f"({ACTIVE}) or (reason <> '' and finished_at is not null)", name="imports_end_with_a_reason"),
    Index("imports_one_active", "webshop_uuid", unique=True, postgresql_where=text(ACTIVE)),
    Index("imports_newest_first", "webshop_uuid", "created_at", "uuid"),
    Index("imports_to_wake", "wake_at", postgresql_where=text(ACTIVE)),
)

import_batches = Table(
    "import_batches",
    metadata,
    Column("import_uuid", Uuid, ForeignKey("imports.uuid", ondelete="CASCADE"), nullable=False),
    Column("run", Integer, nullable=False),
    Column("first_row", Integer, nullable=False),
    Column("size", Integer, nullable=False),  # rows
    Column("row_numbers", INT4MULTIRANGE, nullable=False),  # refused and blank rows are left out
    Column("updated", Integer),  # null until its result is stored
    Column("unchanged", Integer),
    Column("failed", Integer),
    PrimaryKeyConstraint("import_uuid", "run", "first_row"),
    CheckConstraint("updated is null or size = updated + unchanged + failed", name="import_batches_balance"),
)

import_refused_rows = Table(
    "import_refused_rows",
    metadata,
    Column("import_uuid", Uuid, ForeignKey("imports.uuid", ondelete="CASCADE"), nullable=False),
    Column("run", Integer, nullable=False),
    Column("row_number", Integer, nullable=False),
    Column("errors", JSONB, nullable=False),  # a list of shared.messages.CellError
    PrimaryKeyConstraint("import_uuid", "run", "row_number"),
)

exports = Table(
    "exports",
    metadata,
    Column("uuid", Uuid, primary_key=True),
    Column("webshop_uuid", Uuid, nullable=False),
    Column("user_uuid", Uuid, nullable=False),
    Column("name", Text, nullable=False),  # of the file, safe for a path
    Column("source", Text, nullable=False),
    Column("file_type", Text, nullable=False),
    Column(
        "request", Text, nullable=False
    ),  # functions.exports.requests.CreateExport as JSON; jsonb cannot store \u0000
    Column("idempotency_key", Text),
    Column("status", Text, nullable=False, server_default="PENDING"),
    # Rises with each claim: the fencing token, the name of the file's folder, and the count that ends the retries.
    Column("attempts", Integer, nullable=False, server_default="0"),
    timestamp("lease_until"),  # until then the worker of the last claim has it
    timestamp("wake_at", nullable=False, server_default=text("clock_timestamp()")),  # from then on sweep requeues it
    Column("progress_rows", Integer, nullable=False, server_default="0"),
    Column("rows", Integer),  # null until it is completed
    Column("size_bytes", BigInteger),
    Column("file_uri", Text),  # null: there is no file yet, or it was deleted
    Column("error", Text, nullable=False, server_default=""),
    Column(
        "version", Integer, nullable=False, server_default="1"
    ),  # rises with each change of the fields in the history
    timestamp("history_due_at", server_default=text("clock_timestamp()")),  # null: the history is up to date
    timestamp("tidy_at"),  # from then on sweep deletes the objects of this export that are not needed
    timestamp("created_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("updated_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("deleted_at"),
    timestamp("finished_at"),
    CheckConstraint(f"({UNFINISHED}) = (finished_at is null)", name="exports_finish_once"),
    CheckConstraint("(status = 'FAILED') = (error <> '')", name="exports_fail_with_a_reason"),
    CheckConstraint(
        "(file_uri is not null) = (status = 'COMPLETED' and deleted_at is null)",
        name="exports_have_a_file_when_completed",
    ),
    Index(
        "exports_idempotency_key",
        "webshop_uuid",
        "user_uuid",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key is not null"),
    ),
    Index("exports_to_wake", "wake_at", postgresql_where=text(UNFINISHED)),
    Index("exports_behind_in_history", "history_due_at", postgresql_where=text("history_due_at is not null")),
    Index("exports_to_tidy", "tidy_at", postgresql_where=text("tidy_at is not null")),
    Index("exports_to_expire", "finished_at", postgresql_where=text("file_uri is not null")),
)

export_history = Table(
    "export_history",
    metadata,
    Column("uuid", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    timestamp("created_at", nullable=False),
    timestamp("updated_at", nullable=False),
    timestamp("deleted_at"),
    Column("status", Text, nullable=False),
    Column("webshop_uuid", Uuid, nullable=False),
    Column("user_uuid", Uuid, nullable=False),
    Column("source", Text, nullable=False),
    Column("file_uri", Text),
    Column("version", Integer, nullable=False),  # of the export's row; a lower version never replaces a higher one
    Index("export_history_newest_first", "webshop_uuid", "created_at", "uuid"),
)

buy_order_export_settings = Table(
    "buy_order_export_settings",
    metadata,
    Column("webshop_uuid", Uuid, primary_key=True),
    Column("identifiers", ARRAY(Text), nullable=False),  # names of functions/exports/identifiers.py, in its order
    timestamp("updated_at", nullable=False, server_default=text("clock_timestamp()")),
)

buy_order_sends = Table(
    "buy_order_sends",
    metadata,
    Column("uuid", Uuid, primary_key=True),  # chosen by the sender: a repeated uuid is the same delivery
    Column("webshop_uuid", Uuid, nullable=False),
    Column("buy_order_uuid", Uuid, nullable=False),
    Column("user_uuid", Uuid),  # null: another service requested it
    Column("request", Text, nullable=False),  # shared.messages.BuyOrderEmail as JSON
    Column("idempotency_key", Text),
    Column("recipient", Text),  # null: the supplier's, which is read when the email is rendered
    Column("status", Text, nullable=False, server_default="PENDING"),
    Column("reason", Text, nullable=False, server_default=""),
    # Rises with each claim: the fencing token, the name of the files' folder, and the count that ends the retries.
    Column("attempts", Integer, nullable=False, server_default="0"),
    timestamp("lease_until"),  # until then no other worker may claim it
    timestamp("wake_at", nullable=False, server_default=text("clock_timestamp()")),  # from then on sweep requeues it
    Column("file_uris", ARRAY(Text), nullable=False, server_default="{}"),  # of the three files, until they are deleted
    Column("message_id", Text),  # given by the email service
    timestamp("tidy_at"),  # from then on sweep deletes the objects of this delivery that are not needed
    timestamp("created_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("updated_at", nullable=False, server_default=text("clock_timestamp()")),
    timestamp("finished_at"),
    timestamp("sent_at"),
    CheckConstraint(f"({UNSENT}) = (finished_at is null)", name="buy_order_sends_finish_once"),
    CheckConstraint("(status = 'SENT') = (sent_at is not null)", name="buy_order_sends_are_sent_at_a_time"),
    CheckConstraint("status not in ('FAILED', 'UNCERTAIN') or reason <> ''", name="buy_order_sends_say_why"),
    Index(
        "buy_order_sends_idempotency_key",
        "webshop_uuid",
        "user_uuid",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key is not null"),
    ),
    Index("buy_order_sends_newest_first", "webshop_uuid", "buy_order_uuid", "created_at", "uuid"),
    Index("buy_order_sends_to_wake", "wake_at", postgresql_where=text(UNSENT)),
    Index("buy_order_sends_to_tidy", "tidy_at", postgresql_where=text("tidy_at is not null")),
    Index("buy_order_sends_to_expire", "finished_at", postgresql_where=text("file_uris <> '{}'")),
)

buy_order_send_events = Table(
    "buy_order_send_events",
    metadata,
    Column("id", Text, primary_key=True),  # given by the email service, which reports some events more than once
    Column("send_uuid", Uuid, ForeignKey("buy_order_sends.uuid", ondelete="CASCADE"), nullable=False),
    Column("event", Text, nullable=False),  # "delivered", "bounced", "dropped", "deferred" and so on
    Column("recipient", Text, nullable=False),  # of this event: each address of an email has its own events
    Column("reason", Text, nullable=False),  # given by the receiving mail server
    timestamp("occurred_at", nullable=False),
    Index("buy_order_send_events_of_send", "send_uuid", "occurred_at"),
)
