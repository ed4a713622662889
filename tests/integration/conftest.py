"""One local stack per session, started by its command, which uses the servers that the environment names."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.local.stack import FOREIGN_VARIABLES
from tests.integration.catalogue import Catalogue
from tests.integration.stack import LocalStack
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.integration.shop import Shop
    from tests.integration.stack import Databases

PRODUCTS = 20_000  # 40 batches: an import takes a second or two, long enough to observe it while it runs


@contextmanager
def running_stack(products: int, foreign: Mapping[str, str]) -> Iterator[LocalStack]:
    """Runs a stack in a folder of its own. No process of it may be left at the end."""
    # As root, PostgreSQL runs as another user, who may not enter pytest's own temporary folder.
    folder = Path(tempfile.mkdtemp(prefix="imports-and-exports-stack-"))
    stack = LocalStack(folder / "local", products, foreign)
    try:
        stack.start()
        yield stack
    finally:
        try:
            stack.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """The session's stack, on the servers that the environment names."""
    foreign = {name: os.environ[name] for name in FOREIGN_VARIABLES if os.environ.get(name)}
    with running_stack(PRODUCTS, foreign) as running:
        yield running


@pytest.fixture(scope="session")
def databases(stack: LocalStack) -> Databases:
    """The databases of the session's stack."""
    return stack.databases()


@pytest.fixture(scope="session")
def merchant(stack: LocalStack) -> Shop:
    """The first webshop's user: tests take `shop`."""
    return stack.shop()


@pytest.fixture
def shop(merchant: Shop) -> Iterator[Shop]:
    """The first webshop's user at the API. No import is active before or after a test."""
    yield merchant
    wait_until(lambda: not find_active(merchant), "the end of every import of the test")


def find_active(shop: Shop) -> list[str]:
    """Returns the uuids of the imports that have not ended."""
    pages = (shop.call("GET", f"imports?status={status}").json for status in ("IN_QUEUE", "IMPORTING"))
    return [item["uuid"] for page in pages for item in page["items"]]


@pytest.fixture
def catalogue(databases: Databases, shop: Shop) -> Catalogue:
    """The first webshop's products."""
    return Catalogue(databases, shop.webshop_uuid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps all tests of the stack on one worker, so that they share one stack."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("stack"))
