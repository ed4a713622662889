from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, MetaData, inspect, text

from infra import migrations
from infra.local import seeding
from tests.integration.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

    from tests.conftest import PostgresServer

ROOT = Path(__file__).parents[2]
TREES = sorted(migrations.METADATA)


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"empty_{uuid4().hex}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine of the empty database."""
    engine = seeding.engine_to(url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("tree", TREES)
def test_the_migrations_create_the_tables_of_the_code(engine: Engine, tree: str) -> None:
    """A change of shared/tables needs a migration: for columns, types, defaults, keys and indexes."""
    with engine.begin() as connection:
        migrations.upgrade(tree, connection)

        assert differences(connection, tree) == []


@pytest.mark.parametrize("tree", TREES)
def test_the_migrations_create_the_check_constraints_of_the_code(
    engine: Engine, postgres: PostgresServer, tree: str
) -> None:
    """Alembic does not compare check constraints, so the test compares with a database created from the code."""
    name = f"from_code_{uuid4().hex}"
    from_code = seeding.engine_to(postgres.create(name))
    with engine.begin() as connection, from_code.begin() as other:
        migrations.upgrade(tree, connection)
        migrations.METADATA[tree].create_all(other)

        assert check_constraints(connection) == check_constraints(other)
        assert len(check_constraints(connection)) == count_declared_checks(migrations.METADATA[tree])
    from_code.dispose()
    postgres.drop(name)


@pytest.mark.parametrize("tree", TREES)
def test_a_downgrade_removes_every_table_and_can_be_upgraded_again(engine: Engine, tree: str) -> None:
    """Only Alembic's version table remains after a downgrade to base."""
    with engine.begin() as connection:
        migrations.upgrade(tree, connection)
        migrations.downgrade(tree, connection)

        assert inspect(connection).get_table_names() == [migrations.VERSION_TABLE]

        migrations.upgrade(tree, connection)
        assert differences(connection, tree) == []


def test_the_product_database_keeps_the_tables_of_the_platform(engine: Engine) -> None:
    """Migrations change only this project's two tables, not the platform's tables or its migration history."""
    with engine.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("insert into alembic_version values ('the platform''s')"))
        migrations.upgrade("product", connection)
        migrations.downgrade("product", connection)

        assert connection.execute(text("select version_num from alembic_version")).scalar_one() == "the platform's"


def test_a_failed_migration_changes_nothing(engine: Engine) -> None:
    """If the second table exists already, the first one is not created either."""
    with engine.begin() as connection:
        connection.execute(text("create table import_gates (mine text)"))

    with pytest.raises(Exception, match="import_gates"), engine.begin() as connection:
        migrations.upgrade("product", connection)

    assert inspect(engine).get_table_names() == ["import_gates"]


@pytest.mark.parametrize("tree", TREES)
def test_concurrent_commands_migrate_once(url: str, engine: Engine, tree: str) -> None:
    """Deployments may start at the same time: the others wait for the first one, and find nothing to do."""
    environment = os.environ | {f"{tree.upper()}_DATABASE_URL": url}

    commands = [
        subprocess.Popen([sys.executable, "-m", "infra.migrations", tree], cwd=ROOT, env=environment) for _ in range(3)
    ]

    assert [command.wait(PATIENCE_SECONDS) for command in commands] == [0, 0, 0]
    with engine.connect() as connection:
        assert differences(connection, tree) == []


def test_the_command_names_the_missing_setting() -> None:
    """Without the URL of the database, the command fails and names the setting."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVICE_DATABASE_")}

    command = subprocess.run(
        [sys.executable, "-m", "infra.migrations", "service"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert command.returncode != 0
    assert "SERVICE_DATABASE_URL" in command.stderr


def differences(connection: Connection, tree: str) -> list[object]:
    """Returns the changes that the database still needs to match the metadata."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name != migrations.VERSION_TABLE,
    }
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, migrations.METADATA[tree]))


def check_constraints(connection: Connection) -> list[tuple[str, str, str]]:
    """Returns table, name and definition of every check constraint."""
    rows = connection.execute(
        text(
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
            " where contype = 'c' and connamespace = 'public'::regnamespace order by 1, 2"
        )
    )
    return [tuple(row) for row in rows]


def count_declared_checks(metadata: MetaData) -> int:
    """Counts the check constraints that the code declares."""
    return sum(isinstance(rule, CheckConstraint) for table in metadata.tables.values() for rule in table.constraints)
