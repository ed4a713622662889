"""A local stack of the tests' own, driven as its users drive it: by its commands, its API and its databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from infra.local.stack import FOREIGN_VARIABLES
from tests.integration.database import Database
from tests.integration.shop import Shop
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class LocalStack:
    """One stack on a folder of its own. It uses the servers that `foreign` names and starts all others."""

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
        command += ["--parent", str(os.getpid())]  # nothing is left of it when the tests are killed
        with self._output.open("wb") as output:
            self.up = subprocess.Popen(command, env=self._environment, stdout=output, stderr=output)
        answer = wait_until(self._ready, "the stack to be ready")
        self.env = dict(line.split("=", 1) for line in answer.splitlines())

    def _ready(self) -> str:
        assert self.up is not None
        assert self.up.poll() is None, self._output.read_text()
        answer = self.run("env")
        return "" if answer.returncode else answer.stdout

    def stop(self) -> None:
        """Stops it by SIGTERM, if it runs. Nothing of it may be left."""
        if self.up is None or self.up.poll() is not None:
            return
        family = self.family()
        self.up.send_signal(signal.SIGTERM)
        try:
            assert self.up.wait(PATIENCE_SECONDS) == 0, self._output.read_text()
            wait_until(lambda: not alive(family), "every process of the stack to be gone")
        finally:
            for process in alive(family):
                process.kill()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.local", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)

    def processes(self) -> dict[str, int]:
        """The pid of every process that serves now."""
        return {name: int(pid) for name, pid in (line.split() for line in self.run("ps").stdout.splitlines())}

    def kill(self, *names: str) -> None:
        """SIGKILL, as a machine that dies."""
        processes = wait_until(lambda: self._all_of(names), f"{names} to run")
        for name in names:
            os.kill(processes[name], signal.SIGKILL)

    def _all_of(self, names: tuple[str, ...]) -> dict[str, int] | None:
        processes = self.processes()
        return processes if processes.keys() >= set(names) else None

    def family(self) -> list[psutil.Process]:
        """Every process of the stack, from `up` down."""
        assert self.up is not None
        root = psutil.Process(self.up.pid)
        return [root, *root.children(recursive=True)]

    def told(self, process: str) -> str:
        """What a process has logged."""
        log = self.folder / "logs" / f"{process}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def dead_letters(self) -> list[str]:
        """What the stack's own Pub/Sub server has given up on; another server's are not seen here."""
        file = self.folder / "dead-letters.jsonl"
        return file.read_text().splitlines() if file.exists() else []

    def delivered(self, path: str) -> bool:
        """Whether the event of the object at `path` was delivered and taken."""
        return path in (self.folder / "import_upload.delivered").read_text()

    def database(self, name: str) -> Database:
        return Database(self.env[f"{name.upper()}_DATABASE_URL"])

    def databases(self) -> Databases:
        return Databases(self.database("service"), self.database("product"), self.database("legacy"))

    def bucket(self) -> storage.Bucket:
        """The bucket, for a program that puts files there itself."""
        options = {"api_endpoint": self.env["STORAGE_EMULATOR_HOST"]}
        return storage.Client("local", AnonymousCredentials(), client_options=options).bucket(self.env["BUCKET"])

    def shop(self) -> Shop:
        """The first webshop, as its user."""
        return self._shop("")

    def other_shop(self) -> Shop:
        """The second webshop, as its own user."""
        return self._shop("OTHER_")

    def _shop(self, whose: str) -> Shop:
        user = self.env[f"{whose}USER_UUID"]
        token = self.run("token", "--user", user).stdout.strip()
        return Shop(self.env["API_URL"], self.env[f"{whose}WEBSHOP_UUID"], user, token)


@dataclass(frozen=True)
class Databases:
    """The three databases of a stack."""

    service: Database
    product: Database
    legacy: Database


def alive(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    _, living = psutil.wait_procs(family, timeout=0)
    return living
