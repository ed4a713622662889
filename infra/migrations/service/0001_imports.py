"""Creates imports, their batches and the rows that they refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "service_0001"
down_revision = None

ACTIVE = "status in ('IN_QUEUE', 'IMPORTING')"
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Creates the three tables."""
    op.create_table(
        "imports",
        sa.Column("uuid", sa.Uuid, primary_key=True),
        sa.Column("webshop_uuid", sa.Uuid, nullable=False),
        sa.Column("user_uuid", sa.Uuid),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("object_path", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("on_error", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("run", sa.Integer, nullable=False, server_default="1"),
        sa.Column("token", sa.Integer, nullable=False, server_default="0"),
        sa.Column("claims", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("processing_step", sa.Text, nullable=False, server_default="VALIDATE"),
        sa.Column("processing_offset", sa.Integer, nullable=False, server_default="0"),
        sa.Column("encoding", sa.Text, nullable=False, server_default=""),
        sa.Column("delimiter", sa.Text, nullable=False, server_default=""),
        sa.Column("skipped_columns", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("total_rows", sa.Integer, nullable=False, server_default="0"),
        sa.Column("updated_rows", sa.Integer, nullable=False, server_default="0"),
        sa.Column("unchanged_rows", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed_rows", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            f"({ACTIVE}) or total_rows = updated_rows + unchanged_rows + failed_rows", name="imports_ledger_balances"
        ),
        sa.CheckConstraint(
            f"({ACTIVE}) or (reason <> '' and finished_at is not null)", name="imports_end_with_a_reason"
        ),
    )
    op.create_index("imports_one_active", "imports", ["webshop_uuid"], unique=True, postgresql_where=sa.text(ACTIVE))
    op.create_index("imports_newest_first", "imports", ["webshop_uuid", "created_at", "uuid"])
    op.create_index("imports_to_wake", "imports", ["wake_at"], postgresql_where=sa.text(ACTIVE))
    op.create_table(
        "import_batches",
        sa.Column("import_uuid", sa.Uuid, sa.ForeignKey("imports.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("first_row", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("row_numbers", postgresql.INT4MULTIRANGE, nullable=False),
        sa.Column("updated", sa.Integer),
        sa.Column("unchanged", sa.Integer),
        sa.Column("failed", sa.Integer),
        sa.PrimaryKeyConstraint("import_uuid", "run", "first_row"),
        sa.CheckConstraint("updated is null or size = updated + unchanged + failed", name="import_batches_balance"),
    )
    op.create_table(
        "import_refused_rows",
        sa.Column("import_uuid", sa.Uuid, sa.ForeignKey("imports.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("row_number", sa.Integer, nullable=False),
        sa.Column("errors", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("import_uuid", "run", "row_number"),
    )


def downgrade() -> None:
    """Drops the three tables."""
    op.drop_table("import_refused_rows")
    op.drop_table("import_batches")
    op.drop_table("imports")
