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

ROOT = Path(__file__).parents[2]
TREES = sorted(migrations.METADATA)


@pytest.fixture
def url(postgres) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
def engine(url) -> Iterator[Engine]:
    engine = seeding.engine_to(url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("tree", TREES)
def test_the_migrations_make_the_tables_that_the_code_knows(engine, tree):
    """Nobody can change shared/tables and forget the migration: columns, types, defaults, keys and indexes."""
    with engine.begin() as connection:
        migrations.upgrade(tree, connection)

        assert differences(connection, tree) == []


@pytest.mark.parametrize("tree", TREES)
def test_the_migrations_make_the_check_constraints_that_the_code_knows(engine, url, postgres, tree):
    """Alembic does not compare them: they are read back from a database made from the code alone."""
    name = f"from_code_{uuid4().hex}"
    from_code = seeding.engine_to(postgres.create(name))
    with engine.begin() as connection, from_code.begin() as other:
        migrations.upgrade(tree, connection)
        migrations.METADATA[tree].create_all(other)

        assert check_constraints(connection) == check_constraints(other)
        assert len(check_constraints(connection)) == named_checks(migrations.METADATA[tree])
    from_code.dispose()
    postgres.drop(name)


@pytest.mark.parametrize("tree", TREES)
def test_a_downgrade_to_base_leaves_no_table_and_the_way_up_is_open_again(engine, tree):
    with engine.begin() as connection:
        migrations.upgrade(tree, connection)
        migrations.downgrade(tree, connection)

        assert inspect(connection).get_table_names() == [migrations.VERSION_TABLE]
        migrations.upgrade(tree, connection)
        assert differences(connection, tree) == []


def test_the_product_database_keeps_what_the_platform_has_in_it(engine):
    """Our two tables come and go; the platform's tables, and a migration history of its own, are not touched."""
    with engine.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("insert into alembic_version values ('the platform''s')"))
        migrations.upgrade("product", connection)
        migrations.downgrade("product", connection)

        assert connection.execute(text("select version_num from alembic_version")).scalar_one() == "the platform's"


def test_a_migration_that_fails_leaves_nothing_behind(engine):
    """All of it or nothing: a table that is in the way of the second leaves no trace of the first."""
    with engine.begin() as connection:
        connection.execute(text("create table import_gates (mine text)"))
    with pytest.raises(Exception, match="import_gates"), engine.begin() as connection:
        migrations.upgrade("product", connection)

    assert inspect(engine).get_table_names() == ["import_gates"]


@pytest.mark.parametrize("tree", TREES)
def test_two_commands_at_once_migrate_once(url, engine, tree):
    """Two deployments may start at one moment: the second waits for the first, and finds nothing to do."""
    environment = os.environ | {f"{tree.upper()}_DATABASE_URL": url}
    commands = [
        subprocess.Popen([sys.executable, "-m", "infra.migrations", tree], cwd=ROOT, env=environment) for _ in range(3)
    ]

    assert [command.wait(PATIENCE_SECONDS) for command in commands] == [0, 0, 0]
    with engine.connect() as connection:
        assert differences(connection, tree) == []


def test_the_command_names_the_setting_that_is_missing(url):
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
    """What Alembic would still change in the database to make it the metadata's."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name != migrations.VERSION_TABLE,
    }
    return compare_metadata(MigrationContext.configure(connection, opts=options), migrations.METADATA[tree])


def check_constraints(connection: Connection) -> list[tuple[str, str, str]]:
    """Table, name and definition of every check constraint."""
    rows = connection.execute(
        text(
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint"
            " where contype = 'c' and connamespace = 'public'::regnamespace order by 1, 2"
        )
    )
    return [tuple(row) for row in rows]


def named_checks(metadata: MetaData) -> int:
    """How many check constraints the code declares."""
    return sum(isinstance(rule, CheckConstraint) for table in metadata.tables.values() for rule in table.constraints)
