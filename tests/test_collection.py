"""The collection of the tests: every process finds the same ones, and their ids are written out.

pytest-xdist runs nothing at all when its workers collect different tests.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("collection")  # the tests share one collection

ROOT = Path(__file__).parents[1]
REPORT_VARIABLE = "COLLECTION_REPORT"  # the file that a collecting process writes its tests to
COLLECTION_SECONDS = 300  # it takes 5 s of CPU, while other tests run
MAX_ID_LENGTH = 80  # an id and the name of its test fit into one line of a report

Collected = tuple[str, list[str], str]  # a test: its node id, the names of its parameters, the id of their values


def pytest_collection_finish(session: pytest.Session) -> None:
    """Writes the tests that a process with `-p tests.test_collection` has collected to the file of REPORT_VARIABLE."""
    tests = [
        (item.nodeid, list(item.callspec.params), item.callspec.id)
        if hasattr(item, "callspec")
        else (item.nodeid, [], "")
        for item in session.items
    ]
    Path(os.environ[REPORT_VARIABLE]).write_text(json.dumps(tests))


def collect(report: Path, hash_seed: int) -> list[Collected]:
    """Collects all tests in another process, which runs none of them: so this test does not start itself again."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**known, "PYTHONHASHSEED": str(hash_seed), REPORT_VARIABLE: str(report)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.test_collection",
        "-p",
        "no:cacheprovider",
        "--collect-only",
    ]

    collecting = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=COLLECTION_SECONDS, check=False
    )

    assert collecting.returncode == 0, collecting.stdout + collecting.stderr  # 5: no test was found
    tests = json.loads(report.read_text())
    assert tests
    return [tuple(test) for test in tests]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> list[Collected]:
    """All tests."""
    return collect(tmp_path_factory.mktemp("collected") / "report.json", hash_seed=1)


def test_every_process_collects_the_same_tests(collected: list[Collected], tmp_path: Path) -> None:
    """The order is the same too, whatever the clock and the seed of hashes are."""
    time.sleep(1)  # HTTP dates and the times in gzip files change every second

    assert collect(tmp_path / "report.json", hash_seed=2) == collected


def test_every_id_is_written_out(collected: list[Collected]) -> None:
    """An id says what its case is about, and never changes.

    pytest makes an id where a test gives none: with backslashes for bytes, control characters and other scripts, and
    with the parameter's name and a number (`value0`) for any other object, which says nothing and changes with the
    order. So an id has no backslash and no part between dashes that is a parameter's name with a number, and it is
    neither empty nor longer than a line of a report.
    """
    wrong = {node_id: fault for node_id, names, id_ in collected if names and (fault := fault_of(id_, names))}

    assert wrong == {}


def test_the_rule_finds_ids_that_pytest_makes() -> None:
    """Each kind of id that is not written out, and some that only look like it."""
    names = ["value", "file_type"]

    for id_ in ("", " ", "x" * 81, r"a\n", r"\xff", "value0", "CSV-value12-x", "file_type3"):
        assert fault_of(id_, names), id_
    for id_ in ("0", "value", "values0", "my value0", "CSV-2", "-1", "line 12"):
        assert not fault_of(id_, names), id_


def fault_of(id_: str, names: list[str]) -> str:
    """What is wrong with the id of a test with parameters of these names; "" if nothing is."""
    if not id_.strip():
        return "empty"
    if len(id_) > MAX_ID_LENGTH:
        return f"longer than {MAX_ID_LENGTH} characters"
    if "\\" in id_:
        return "escaped by pytest"
    if re.search(rf"(?:^|-)(?:{'|'.join(map(re.escape, names))})\d+(?:-|$)", id_):
        return "made up by pytest"
    return ""
