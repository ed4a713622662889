"""Alembic migrations: one tree for the service database, one for this project's two tables in the product database.

Both trees share env.py. A new revision is a file in its tree that names its predecessor;
tests/infra/test_migrations.py fails until the migrated tables match shared/tables. `python -m infra.migrations service`
applies the revisions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from shared.tables import product, service

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

# Alembic's default name may be in use in the product database, by the platform that owns it.
VERSION_TABLE = "imports_and_exports_version"
# All migrations use one key: a concurrent migration waits, and then finds nothing to do.
ADVISORY_LOCK = 0x696D_706F_7274_73  # "imports"

METADATA: dict[str, MetaData] = {"service": service.metadata, "product": product.ours}  # by tree


def upgrade(tree: str, connection: Connection, revision: str = "head") -> None:
    """Upgrades a database to `revision` of its tree in the current transaction of `connection`.

    It is safe to run twice or concurrently. Raises KeyError for an unknown tree, Alembic's CommandError for an unknown
    revision, and DBAPIError for a statement that fails or exceeds the connection's time limit.
    """
    command.upgrade(lock_and_configure(tree, connection), revision)


def downgrade(tree: str, connection: Connection, revision: str = "base") -> None:
    """Downgrades a database to `revision` of its tree, which deletes the rows of dropped tables.

    Transaction and errors are those of `upgrade`.
    """
    command.downgrade(lock_and_configure(tree, connection), revision)


def lock_and_configure(tree: str, connection: Connection) -> Config:
    """Locks the database against other migrations until the transaction ends, and returns Alembic's configuration."""
    here = Path(__file__).parent
    config = Config(attributes={"connection": connection, "metadata": METADATA[tree]})
    config.set_main_option("script_location", escape_percent(here))
    config.set_main_option("version_locations", escape_percent(here / tree))
    config.set_main_option("path_separator", "newline")
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    return config


def escape_percent(path: Path) -> str:
    """Escapes `path` for Alembic's configuration, where a percent sign starts a reference."""
    return str(path).replace("%", "%%")
