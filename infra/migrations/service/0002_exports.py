"""Creates exports, their history, and the settings of each webshop's buy order exports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "service_0002"
down_revision = "service_0001"

UNFINISHED = "status in ('PENDING', 'RENDERING')"
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Creates the three tables."""
    op.create_table(
        "exports",
        sa.Column("uuid", sa.Uuid, primary_key=True),
        sa.Column("webshop_uuid", sa.Uuid, nullable=False),
        sa.Column("user_uuid", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("file_type", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("status", sa.Text, nullable=False, server_default="PENDING"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("progress_rows", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rows", sa.Integer),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("file_uri", sa.Text),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"),
        sa.Column("history_due_at", sa.DateTime(timezone=True), server_default=NOW),
        sa.Column("tidy_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(f"({UNFINISHED}) = (finished_at is null)", name="exports_finish_once"),
        sa.CheckConstraint("(status = 'FAILED') = (error <> '')", name="exports_fail_with_a_reason"),
        sa.CheckConstraint(
            "(file_uri is not null) = (status = 'COMPLETED' and deleted_at is null)",
            name="exports_have_a_file_when_completed",
        ),
    )
    op.create_index(
        "exports_idempotency_key",
        "exports",
        ["webshop_uuid", "user_uuid", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key is not null"),
    )
    for name, column, where in (
        ("exports_to_wake", "wake_at", UNFINISHED),
        ("exports_behind_in_history", "history_due_at", "history_due_at is not null"),
        ("exports_to_tidy", "tidy_at", "tidy_at is not null"),
        ("exports_to_expire", "finished_at", "file_uri is not null"),
    ):
        op.create_index(name, "exports", [column], postgresql_where=sa.text(where))
    op.create_table(
        "export_history",
        sa.Column("uuid", sa.Uuid, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("webshop_uuid", sa.Uuid, nullable=False),
        sa.Column("user_uuid", sa.Uuid, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("file_uri", sa.Text),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_index("export_history_newest_first", "export_history", ["webshop_uuid", "created_at", "uuid"])
    op.create_table(
        "buy_order_export_settings",
        sa.Column("webshop_uuid", sa.Uuid, primary_key=True),
        sa.Column("identifiers", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
    )


def downgrade() -> None:
    """Drops the three tables."""
    op.drop_table("buy_order_export_settings")
    op.drop_table("export_history")
    op.drop_table("exports")
