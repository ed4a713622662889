"""One stack a session, started as anybody starts it, on whatever servers the environment names."""

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

PRODUCTS = 20_000  # 40 batches: an import takes a second or two, long enough to be met on its way


@contextmanager
def running_stack(products: int, foreign: Mapping[str, str]) -> Iterator[LocalStack]:
    """A stack in a folder of its own. Nothing of it may be left in the end."""
    # Not pytest's own temporary folder: as root PostgreSQL runs as another user, who may not enter that.
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
    """The first webshop's user at the API. No import is active before a test nor after it."""
    yield merchant
    wait_until(lambda: not active(merchant), "the end of every import of the test")


def active(shop: Shop) -> list[str]:
    """The imports that are not over."""
    pages = (shop.call("GET", f"imports?status={status}").json for status in ("IN_QUEUE", "IMPORTING"))
    return [item["uuid"] for page in pages for item in page["items"]]


@pytest.fixture
def catalogue(databases: Databases, shop: Shop) -> Catalogue:
    """The first webshop's products."""
    return Catalogue(databases, shop.webshop_uuid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps all tests of the stack on one worker, so that they share the one they run on."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("stack"))
