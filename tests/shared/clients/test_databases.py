"""The engines: what an error on a connection leaves behind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.clients.databases import connect_to, constraint_name, is_unavailable, sqlstate
from shared.settings import DatabaseSettings, InvalidSettings

BEFORE_ALL_TIME = datetime.fromisoformat("0001-01-01T00:00:00+23:59")


@pytest.fixture
def engine(databases):
    made = connect_to("TEST", DatabaseSettings(url=databases.service_url), 1)
    yield made
    made.dispose()


def test_a_value_that_cannot_be_sent_does_not_spoil_the_connection(engine):
    """It is found after half of the statement is sent: the next one must not get the answer to it."""
    for _ in range(5):
        with pytest.raises(OverflowError), engine.connect() as connection:
            connection.execute(text("select cast(:moment as timestamptz)"), {"moment": BEFORE_ALL_TIME})

        with engine.connect() as connection:
            assert connection.execute(text("select 1, 'one'")).one() == (1, "one")
            moment = connection.execute(text("select cast(:m as timestamptz)"), {"m": datetime(2026, 1, 1, tzinfo=UTC)})
            assert moment.scalar_one() == datetime(2026, 1, 1, tzinfo=UTC)


def test_errors_hold_no_values(engine):
    """They are logged, and values are merchants' data."""
    with pytest.raises(DBAPIError) as raised, engine.connect() as connection:
        connection.execute(text("select cast(:cell as integer) / 0"), {"cell": 4711})

    assert "4711" not in str(raised.value)
    assert (sqlstate(raised.value), constraint_name(raised.value)) == ("22012", "")
    assert not is_unavailable(raised.value)


def test_a_server_that_is_not_there_does_not_answer():
    """Nobody has to know what the driver calls it."""
    engine = connect_to("TEST", DatabaseSettings(url="postgresql://postgres@127.0.0.1:1/nothing"), 1)

    with pytest.raises(DBAPIError) as raised:
        engine.connect()

    assert is_unavailable(raised.value)


def test_a_database_that_is_not_set_is_named():
    """The setting that is missing stands in the error."""
    with pytest.raises(InvalidSettings, match="LEGACY_DATABASE_URL is not set"):
        connect_to("LEGACY", DatabaseSettings(), 1)
    with pytest.raises(InvalidSettings, match="LEGACY_DATABASE_NAME and LEGACY_DATABASE_USER must be set"):
        connect_to("LEGACY", DatabaseSettings(instance="project:region:instance"), 1)
