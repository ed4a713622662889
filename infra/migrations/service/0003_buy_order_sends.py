"""Creates email deliveries of buy orders, and the events that SendGrid reports for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "service_0003"
down_revision = "service_0002"

UNSENT = "status in ('PENDING', 'FILES_READY', 'SENDING')"
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Creates the two tables."""
    op.create_table(
        "buy_order_sends",
        sa.Column("uuid", sa.Uuid, primary_key=True),
        sa.Column("webshop_uuid", sa.Uuid, nullable=False),
        sa.Column("buy_order_uuid", sa.Uuid, nullable=False),
        sa.Column("user_uuid", sa.Uuid),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("recipient", sa.Text),
        sa.Column("status", sa.Text, nullable=False, server_default="PENDING"),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("file_uris", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("message_id", sa.Text),
        sa.Column("tidy_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(f"({UNSENT}) = (finished_at is null)", name="buy_order_sends_finish_once"),
        sa.CheckConstraint("(status = 'SENT') = (sent_at is not null)", name="buy_order_sends_are_sent_at_a_time"),
        sa.CheckConstraint("status not in ('FAILED', 'UNCERTAIN') or reason <> ''", name="buy_order_sends_say_why"),
    )
    op.create_index(
        "buy_order_sends_idempotency_key",
        "buy_order_sends",
        ["webshop_uuid", "user_uuid", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key is not null"),
    )
    op.create_index(
        "buy_order_sends_newest_first", "buy_order_sends", ["webshop_uuid", "buy_order_uuid", "created_at", "uuid"]
    )
    for name, column, where in (
        ("buy_order_sends_to_wake", "wake_at", UNSENT),
        ("buy_order_sends_to_tidy", "tidy_at", "tidy_at is not null"),
        ("buy_order_sends_to_expire", "finished_at", "file_uris <> '{}'"),
    ):
        op.create_index(name, "buy_order_sends", [column], postgresql_where=sa.text(where))
    op.create_table(
        "buy_order_send_events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("send_uuid", sa.Uuid, sa.ForeignKey("buy_order_sends.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("buy_order_send_events_of_send", "buy_order_send_events", ["send_uuid", "occurred_at"])


def downgrade() -> None:
    """Drops the two tables."""
    op.drop_table("buy_order_send_events")
    op.drop_table("buy_order_sends")
