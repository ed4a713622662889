"""Rows on their way out of a database, as the server prints them (COPY … TO STDOUT)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from pg8000.exceptions import InterfaceError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

# PostgreSQL's classes "connection exception" and "operator intervention" (a server that shuts down), when it still
# says so itself. https://www.postgresql.org/docs/current/errcodes-appendix.html
GONE_CLASSES = ("08", "57P")

Receive = Callable[[list[bytes]], None]


def copy_out(connection: Connection, statement: str, receive: Receive) -> None:
    """Runs a COPY … TO STDOUT and hands its rows to `receive`, many at once.

    The statement goes to the server as it stands, percent signs and colons too; a transaction has to be open. Raises
    DBAPIError where the database fails (as invalidated where it is gone), and whatever `receive` raises. After either
    the connection is to be thrown away: it may stand in the middle of the rows.
    """
    driver: Any = connection.dialect.loaded_dbapi
    raw: Any = connection.connection.driver_connection
    try:
        raw.execute_unnamed(statement, stream=Stream(raw, receive))
    except driver.Error as error:
        gone = is_gone(connection, error)
        raise DBAPIError.instance(
            statement, None, error, driver.Error, connection_invalidated=gone, dialect=connection.dialect
        ) from error


def is_gone(connection: Connection, error: Any) -> bool:
    """Whether `error` says that the server, or the way to it, is gone."""
    details = error.args[0] if error.args else None
    state = str(details.get("C", "")) if isinstance(details, dict) else ""
    return state.startswith(GONE_CLASSES) or connection.dialect.is_disconnect(error, None, None)


class Stream:
    """What a COPY is written to: it takes rows from the connection's buffer many at a time.

    The driver hands over one message, which is one row, in a dozen calls; here the further rows that are in the buffer
    already are cut out of it together (300,000 rows: 0.10 s of CPU instead of 0.34 s). Whatever is no whole row is left
    to the driver.
    """

    ROW = ord("d")  # CopyData; https://www.postgresql.org/docs/current/protocol-message-formats.html

    def __init__(self, connection: Any, receive: Receive) -> None:
        self._file = connection._sock  # the driver has no other way to its buffer
        self._receive = receive
        self._length_at = Struct("!I").unpack_from

    def write(self, row: bytes) -> None:
        """Takes the row that the driver read, and those behind it."""
        rows = [row]
        buffer = self._buffered()
        start, end = 0, len(buffer)
        while start + 5 <= end and buffer[start] == self.ROW:
            following = start + 1 + self._length_at(buffer, start + 1)[0]
            if following > end:
                break
            rows.append(buffer[start + 5 : following])
            start = following
        if start:
            self._file.read(start)
        self._receive(rows)

    def _buffered(self) -> Any:
        """The bytes that have come in; waits for some where there are none."""
        try:
            return self._file.peek()
        except OSError as error:
            raise InterfaceError("network error") from error  # as the driver says it itself
