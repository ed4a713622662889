"""SQLAlchemy engines over pg8000: by URL, or by the Cloud SQL connector if an instance name is set."""

from __future__ import annotations

from typing import Any

import pg8000
from sqlalchemy import Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

from shared.settings import DatabaseSettings, InvalidSettings

# Our statements take milliseconds; one that takes this long waits for a lock that is never released.
STATEMENT_TIMEOUT_SECONDS = 60
# For a server that does not respond at all. Longer than STATEMENT_TIMEOUT_SECONDS, so that the server reports first.
SOCKET_TIMEOUT_SECONDS = 90

# Error classes of PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html
# "Connection exception" and "operator intervention" (a server that shuts down or ends a session).
CONNECTION_LOST_CLASSES = ("08", "57P")
# "Connection exception", "insufficient resources", "operator intervention".
UNAVAILABLE_CLASSES = ("08", "53", "57")


def connect_to(prefix: str, database: DatabaseSettings, pool_size: int) -> Engine:
    """Returns an engine with up to `pool_size` connections, one per concurrent request, and two more at peaks.

    Raises InvalidSettings, which names the settings of `prefix`, if there is neither a URL nor a complete instance.
    """
    # Parameters are merchants' data: they stay out of error messages, and so out of the log.
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 2,
        "pool_pre_ping": True,
        "hide_parameters": True,
    }
    startup = {"statement_timeout": str(STATEMENT_TIMEOUT_SECONDS * 1000)}
    if database.url:
        url = make_url(database.url).set(drivername="postgresql+pg8000")
        arguments = {"timeout": SOCKET_TIMEOUT_SECONDS, "startup_params": startup}
        return discard_broken_connections(create_engine(url, connect_args=arguments, **options))
    if not (database.instance and database.name and database.user):
        variables = (f"{prefix}_DATABASE_{field}" for field in ("URL", "INSTANCE", "NAME", "USER"))
        raise InvalidSettings("{} is not set; without it {}, {} and {} must be set.".format(*variables))

    from google.cloud.sql.connector import Connector

    # Cloud Run freezes a process between requests, which breaks a background refresh: tokens are fetched when needed.
    connector = Connector(refresh_strategy="lazy")

    def connect() -> Any:
        login = {"password": database.password} if database.password else {"enable_iam_auth": True}
        return connector.connect(
            database.instance,
            "pg8000",
            user=database.user,
            db=database.name,
            timeout=SOCKET_TIMEOUT_SECONDS,
            startup_params=startup,
            **login,
        )

    return discard_broken_connections(create_engine("postgresql+pg8000://", creator=connect, **options))


def discard_broken_connections(engine: Engine) -> Engine:
    """Makes the engine discard a connection after any error that is not a response of the server.

    pg8000 discovers that it cannot encode a value after half of the statement is sent: the next user of the connection
    would receive the response to it.
    """

    @event.listens_for(engine, "handle_error")
    def discard(context: ExceptionContext) -> None:
        if not isinstance(context.original_exception, pg8000.Error):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False

    return engine


def sqlstate(error: Exception) -> str:
    """Returns PostgreSQL's five-character error code, or "" when the error does not come from the server."""
    return error_field(error, "C")


def constraint_name(error: Exception) -> str:
    """Returns the name of the constraint that a row violates, or ""."""
    return error_field(error, "n")


def error_field(error: Exception, field: str) -> str:
    """Returns one field of PostgreSQL's error message, or "" when the error has none.

    `error` is SQLAlchemy's DBAPIError or the driver's own error. `field` is one letter:
    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    original = error.orig if isinstance(error, DBAPIError) else error
    fields = original.args[0] if original and original.args else None
    return str(fields.get(field, "")) if isinstance(fields, dict) else ""


def is_connection_lost(error: Exception) -> bool:
    """Whether the server reports that it ends the connection."""
    return sqlstate(error).startswith(CONNECTION_LOST_CLASSES)


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the server is unreachable, overloaded or shutting down, rather than refusing the statement."""
    code = sqlstate(error)
    return bool(error.connection_invalidated) or not code or code.startswith(UNAVAILABLE_CLASSES)
