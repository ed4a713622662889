"""The engines: what an error means, and what it leaves on its connection."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pg8000.dbapi
import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from shared.clients.databases import connect_to, constraint_name, is_unavailable, sqlstate
from shared.settings import DatabaseSettings, InvalidSettings
from tests.conftest import Databases

BEFORE_YEAR_ONE = datetime.fromisoformat("0001-01-01T00:00:00+23:59")


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    engine = connect_to("TEST", DatabaseSettings(url=databases.service_url), 1)
    yield engine
    engine.dispose()


def test_a_value_that_cannot_be_encoded_does_not_affect_the_next_statement(engine: Engine) -> None:
    """The driver finds it after half of the statement is sent: the next statement must not get the response to it."""
    for _ in range(5):
        with pytest.raises(OverflowError), engine.connect() as conn:
            conn.execute(text("select cast(:moment as timestamptz)"), {"moment": BEFORE_YEAR_ONE})

        with engine.connect() as conn:
            assert conn.execute(text("select 1, 'one'")).one() == (1, "one")
            moment = conn.execute(text("select cast(:m as timestamptz)"), {"m": datetime(2026, 1, 1, tzinfo=UTC)})
            assert moment.scalar_one() == datetime(2026, 1, 1, tzinfo=UTC)


def test_errors_contain_no_values(engine: Engine) -> None:
    """Errors are logged, and values are merchants' data."""
    with pytest.raises(DBAPIError) as raised, engine.connect() as conn:
        conn.execute(text("select cast(:cell as integer) / 0"), {"cell": 4711})

    assert "4711" not in str(raised.value)
    assert (sqlstate(raised.value), constraint_name(raised.value)) == ("22012", "")
    assert not is_unavailable(raised.value)


def test_an_unreachable_server_is_unavailable() -> None:
    """Callers need not know the driver's error for it."""
    engine = connect_to("TEST", DatabaseSettings(url="postgresql://postgres@127.0.0.1:1/nothing"), 1)

    with pytest.raises(DBAPIError) as raised:
        engine.connect()

    assert is_unavailable(raised.value)


def test_a_missing_setting_of_a_database_is_named() -> None:
    """The error names the variables to set."""
    with pytest.raises(InvalidSettings, match="LEGACY_DATABASE_URL is not set"):
        connect_to("LEGACY", DatabaseSettings(), 1)
    with pytest.raises(InvalidSettings, match="LEGACY_DATABASE_NAME and LEGACY_DATABASE_USER must be set"):
        connect_to("LEGACY", DatabaseSettings(instance="project:region:instance"), 1)


@pytest.mark.parametrize(
    ("password", "login"),
    [
        pytest.param("", {"enable_iam_auth": True}, id="IAM"),
        pytest.param("secret", {"password": "secret"}, id="password"),
    ],
)
def test_the_cloud_sql_connector_makes_the_connections_of_an_instance(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, password: str, login: dict[str, Any]
) -> None:
    """As in production. A socket that the connector opened has the same time limits as one that the driver opens."""
    url = make_url(databases.service_url)
    calls: list[tuple[str, str, dict[str, Any]]] = []

    class Connector:
        """Google's connector, except that every instance is the tests' server."""

        def __init__(self, refresh_strategy: str) -> None:
            assert refresh_strategy == "lazy"

        def connect(self, instance: str, driver: str, **options: Any) -> pg8000.dbapi.Connection:
            calls.append((instance, driver, options))
            limits = {name: options[name] for name in ("timeout", "startup_params")}
            return pg8000.dbapi.connect("postgres", str(url.host), options["db"], url.port or 0, **limits)

    monkeypatch.setattr("google.cloud.sql.connector.Connector", Connector)
    settings = DatabaseSettings(instance="p:r:i", name=str(url.database), user="functions@p.iam", password=password)
    engine = connect_to("SERVICE", settings, 1)

    with engine.connect() as conn:
        limit = conn.execute(text("show statement_timeout")).scalar_one()
    engine.dispose()

    assert limit == "1min"
    [(instance, driver, options)] = calls
    assert (instance, driver, options["user"], options["timeout"]) == ("p:r:i", "pg8000", "functions@p.iam", 90)
    assert {name: options[name] for name in options if name in ("password", "enable_iam_auth")} == login
