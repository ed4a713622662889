"""Tests that are killed leave no database server and no files of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.waiting import wait_until

ROOT = Path(__file__).parents[2]
# As a process of pytest does it, but it waits then.
TESTS = """
import pathlib, sys
from tests.conftest import PostgresServer

PostgresServer(pathlib.Path(sys.argv[1])).start()
print("started", flush=True)
sys.stdin.read()
"""


def test_a_database_server_ends_with_tests_that_are_killed(open_path: Path) -> None:
    """Its data may be in memory, which nobody else would free."""
    folder = open_path / "server"
    folder.mkdir()
    command = [sys.executable, "-c", TESTS, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == "started\n"
        assert (folder / "data" / "postmaster.pid").exists()

        tests.kill()

    # The server removes that file when it ends, and only then its folder is deleted.
    wait_until(lambda: not folder.exists(), "the server to end and its folder to be deleted")
