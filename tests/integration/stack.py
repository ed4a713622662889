"""A local stack for the tests, which they use like its users: by its commands, its API and its databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type

from infra.local.stack import FOREIGN_VARIABLES
from tests.integration.database import Database
from tests.integration.shop import Shop
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class LocalStack:
    """One stack with a folder of its own. It uses the servers that `foreign` names and starts all others."""

    def __init__(self, folder: Path, products: int, foreign: Mapping[str, str]) -> None:
        self.folder = folder
        self._products = products
        own = {name: value for name, value in os.environ.items() if name not in FOREIGN_VARIABLES}
        self._environment = {**own, **foreign, "LOCAL_STATE_DIR": str(folder)}
        self._output = folder.with_name(f"{folder.name}-up.log")
        self.up: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}

    def start(self) -> None:
        command = [sys.executable, "-m", "infra.local", "up", "--products", str(self._products)]
        command += ["--parent", str(os.getpid())]  # the stack stops when the tests are killed
        with self._output.open("wb") as output:
            self.up = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
        env = wait_until(self._read_env, "the stack to be ready")
        self.env = dict(line.split("=", 1) for line in env.splitlines())

    def _read_env(self) -> str:
        """Returns the output of `env`, or "" while the stack is not ready."""
        assert self.up is not None
        assert self.up.poll() is None, self._output.read_text()
        env = self.run("env")
        return "" if env.returncode else env.stdout

    def stop(self) -> None:
        """Stops a running stack by SIGTERM, and checks that no process of it is left."""
        if self.up is None or self.up.poll() is not None:
            return
        processes = self.process_tree()
        self.up.send_signal(signal.SIGTERM)
        try:
            assert self.up.wait(PATIENCE_SECONDS) == 0, self._output.read_text()
            wait_until(lambda: not find_alive(processes), "every process of the stack to end")
        finally:
            for process in find_alive(processes):
                process.kill()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.local", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    def processes(self) -> dict[str, int]:
        """Returns the pid of every process that is ready, by its name."""
        return {name: int(pid) for name, pid in (line.split() for line in self.run("ps").stdout.splitlines())}

    def kill(self, *names: str) -> None:
        """Kills processes with SIGKILL, like a machine that fails."""
        processes = wait_until(lambda: self._find_all(names), f"{names} to run")
        for name in names:
            os.kill(processes[name], signal.SIGKILL)

    def _find_all(self, names: tuple[str, ...]) -> dict[str, int] | None:
        processes = self.processes()
        return processes if processes.keys() >= set(names) else None

    def process_tree(self) -> list[psutil.Process]:
        """Returns the `up` process and all its descendants."""
        assert self.up is not None
        root = psutil.Process(self.up.pid)
        return [root, *root.children(recursive=True)]

    def read_log(self, process: str) -> str:
        """Returns the log of a process."""
        log = self.folder / "logs" / f"{process}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def dead_letters(self) -> list[str]:
        """Returns the dead letters of the stack's own Pub/Sub server. Those of a foreign server are not included."""
        file = self.folder / "dead-letters.jsonl"
        return file.read_text().splitlines() if file.exists() else []

    def is_delivered(self, path: str) -> bool:
        """Tells whether a function has accepted the event of the object at `path`."""
        return path in (self.folder / "import_upload.delivered").read_text()

    def database(self, name: str) -> Database:
        return Database(self.env[f"{name.upper()}_DATABASE_URL"])

    def databases(self) -> Databases:
        return Databases(self.database("service"), self.database("product"), self.database("legacy"))

    def bucket(self) -> storage.Bucket:
        """Returns the bucket, for a test that uploads files without the API."""
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
        client = storage.Client(
            "local", credentials, client_options={"api_endpoint": self.env["STORAGE_EMULATOR_HOST"]}
        )
        return client.bucket(self.env["BUCKET"])

    def shop(self) -> Shop:
        """Returns a client for the user of the first webshop."""
        return self._shop("")

    def other_shop(self) -> Shop:
        """Returns a client for the user of the second webshop."""
        return self._shop("OTHER_")

    def _shop(self, prefix: str) -> Shop:
        user = self.env[f"{prefix}USER_UUID"]
        token = self.run("token", "--user", user).stdout.strip()
        return Shop(self.env["API_URL"], self.env[f"{prefix}WEBSHOP_UUID"], user, token)


@dataclass(frozen=True)
class Databases:
    """The three databases of a stack."""

    service: Database
    product: Database
    legacy: Database


def find_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Returns the processes that still run."""
    _, alive = psutil.wait_procs(processes, timeout=0)
    return list(alive)
