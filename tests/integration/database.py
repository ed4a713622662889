"""Connections of the tests to the stack's databases, and locks that make functions wait at a known statement."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pg8000.exceptions import InterfaceError
from pg8000.native import Connection

from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType

# Statements of a Hold: each locks what its name says.
ONE_PRODUCT = (
    "select 1 from products where webshop_uuid = cast(:webshop as uuid) and identifier = :identifier for update"
)
ONE_IMPORT = "select 1 from imports where uuid = cast(:import_uuid as uuid) for update"
GATES = "lock table import_gates in share mode"  # no gate can be opened, so no batch is sent
IMPORTS = "lock table imports in share mode"  # no import can be recorded or changed


class Database:
    """One database. Each query opens a connection of its own, so that a killed server leaves no broken connection."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    def connect(self) -> Connection:
        url = self._address
        return Connection(
            url.username or "postgres", url.hostname or "127.0.0.1", url.path.lstrip("/"), url.port or 5432
        )

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with closing(self.connect()) as connection:
            return list(connection.run(statement, **values) or [])

    def value(self, statement: str, **values: Any) -> Any:
        [[value]] = self.rows(statement, **values)
        return value

    def find_blocked(self, statement: str) -> set[int]:
        """Returns the pids of the sessions that wait for a lock in a statement that contains this text."""
        rows = self.rows(
            "select pid from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock' and strpos(lower(query), :text) > 0",
            text=statement.lower(),
        )
        return {pid for (pid,) in rows}

    def wait_for_blocked(self, statement: str) -> set[int]:
        """Waits until `find_blocked` finds a session, and returns the pids."""
        return wait_until(lambda: self.find_blocked(statement), f"a session that is blocked in: {statement}")

    def find_sessions(self) -> set[int]:
        """Returns the pids of all sessions of this database."""
        return {pid for (pid,) in self.rows("select pid from pg_stat_activity where datname = current_database()")}


class Hold:
    """A lock that the test holds until `release`: a function that needs it waits in the middle of a step."""

    def __init__(self, database: Database, statement: str, **values: Any) -> None:
        self._connection = database.connect()
        self._connection.run("begin")
        self._connection.run(statement, **values)

    def release(self) -> None:
        with suppress(InterfaceError, OSError):  # its server was killed, or it was already released
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
