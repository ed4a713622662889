"""Alembic migrations: a tree for the service database, and one for the two tables of ours in the product database.

Both share env.py. A new revision is a file in its tree that names the one before it; tests/infra/test_migrations.py
fails until the tables it leaves are those of shared/tables. `python -m infra.migrations service` applies them.
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

# Not Alembic's usual name: the platform that owns the product database may keep its own version there.
VERSION_TABLE = "imports_and_exports_version"
# One key for all who migrate a database of ours: the second waits, and finds nothing to do.
ADVISORY_LOCK = 0x696D_706F_7274_73  # "imports"

METADATA: dict[str, MetaData] = {"service": service.metadata, "product": product.ours}  # by tree


def upgrade(tree: str, connection: Connection, revision: str = "head") -> None:
    """Brings a database to `revision` of its tree, in the transaction that `connection` is in: all of it or nothing.

    Safe to run twice and at once. Raises KeyError for an unknown tree, alembic's CommandError for an unknown revision,
    and DBAPIError for a statement that fails, one that took longer than the connection allows included.
    """
    command.upgrade(locked_configuration(tree, connection), revision)


def downgrade(tree: str, connection: Connection, revision: str = "base") -> None:
    """Takes a database back to `revision` of its tree, the tables' rows included. Otherwise like `upgrade`."""
    command.downgrade(locked_configuration(tree, connection), revision)


def locked_configuration(tree: str, connection: Connection) -> Config:
    """Alembic's configuration of one tree, its database locked against other migrations until the transaction ends."""
    here = Path(__file__).parent
    config = Config(attributes={"connection": connection, "metadata": METADATA[tree]})
    config.set_main_option("script_location", escaped(here))
    config.set_main_option("version_locations", escaped(here / tree))
    config.set_main_option("path_separator", "newline")
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    return config


def escaped(path: Path) -> str:
    """`path` as Alembic's configuration wants it: a percent sign would start a reference there."""
    return str(path).replace("%", "%%")
