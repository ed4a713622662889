"""A database of the running stack, as psql sees it, and locks that make functions wait at a known place."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pg8000.exceptions import InterfaceError
from pg8000.native import Connection

from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from types import TracebackType

# Statements of a Hold.
ONE_PRODUCT = (
    "select 1 from products where webshop_uuid = cast(:webshop as uuid) and identifier = :identifier for update"
)
ONE_IMPORT = "select 1 from imports where uuid = cast(:import_uuid as uuid) for update"
GATES = "lock table import_gates in share mode"  # nothing is sent while no gate can be opened
IMPORTS = "lock table imports in share mode"  # nothing is recorded


class Database:
    """One database. Every question is a connection of its own, so that none is left over when the server is killed."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    def connect(self) -> Connection:
        where = self._address
        return Connection(
            where.username or "postgres", where.hostname or "127.0.0.1", where.path.lstrip("/"), where.port or 5432
        )

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with closing(self.connect()) as connection:
            return list(connection.run(statement, **values) or [])

    def value(self, statement: str, **values: Any) -> Any:
        [[value]] = self.rows(statement, **values)
        return value

    def waiting(self, statement: str) -> set[int]:
        """The sessions that wait for a lock in the middle of a statement with this text in it."""
        found = self.rows(
            "select pid from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock' and strpos(lower(query), :text) > 0",
            text=statement.lower(),
        )
        return {pid for (pid,) in found}

    def wait_for_waiting(self, statement: str) -> set[int]:
        return wait_until(lambda: self.waiting(statement), f"a session that is held up in: {statement}")

    def sessions(self) -> set[int]:
        """Every session there is."""
        return {pid for (pid,) in self.rows("select pid from pg_stat_activity where datname = current_database()")}


class Hold:
    """A lock that the test holds, from its making until `release`: whoever needs it waits in the middle of a step."""

    def __init__(self, database: Database, statement: str, **values: Any) -> None:
        self._connection = database.connect()
        self._connection.run("begin")
        self._connection.run(statement, **values)

    def release(self) -> None:
        with suppress(InterfaceError, OSError):  # its server was killed, or it was released before
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
