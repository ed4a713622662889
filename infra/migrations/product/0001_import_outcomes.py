"""Creates the batch results of imports, and the gates that batches must pass."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "product_0001"
down_revision = None

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    """Creates the two tables."""
    op.create_table(
        "import_outcomes",
        sa.Column("import_uuid", sa.Uuid, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("first_row", sa.Integer, nullable=False),
        sa.Column("webshop_uuid", sa.Uuid, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
        sa.Column("unchanged", sa.Integer, nullable=False),
        sa.Column("refused", postgresql.JSONB, nullable=False),
        sa.Column("identifiers", postgresql.JSONB, nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("mirrored_at", sa.DateTime(timezone=True)),
        sa.Column("mirror_due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("import_uuid", "run", "first_row", name="import_outcomes_pkey"),
    )
    op.create_index(
        "import_outcomes_to_mirror",
        "import_outcomes",
        ["mirror_due_at"],
        postgresql_where=sa.text("mirrored_at is null"),
    )
    op.create_index("import_outcomes_by_age", "import_outcomes", ["applied_at"], postgresql_using="brin")
    op.create_table(
        "import_gates",
        sa.Column("import_uuid", sa.Uuid, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
    )


def downgrade() -> None:
    """Drops the two tables."""
    op.drop_table("import_gates")
    op.drop_table("import_outcomes")
