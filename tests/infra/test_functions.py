"""The local stack runs a function as its entry in the table describes it."""

from __future__ import annotations

from typing import Any

import pytest

from infra.function_table import Entry
from infra.local.functions import MAX_THREADS, clients_of, describe

SIZE: dict[str, Any] = {"memory_mb": 512, "max_instances": 1}


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        pytest.param(1, 1, id="fewer than the limit"),
        pytest.param(MAX_THREADS + 4, MAX_THREADS, id="more than the limit"),
    ],
)
def test_threads_are_limited(threads: int, expected: int) -> None:
    """All functions of the local stack share one database server, whose connections are limited."""
    entry = Entry(kind="kafka", topic="test.messages", threads=threads, **SIZE)

    assert describe("on_message", entry, ()).threads == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(Entry(kind="storage", threads=4, **SIZE), (), id="nothing"),
        pytest.param(
            Entry(kind="http", threads=4, databases=("service", "product"), bucket=("write",), kafka=True, **SIZE),
            ("service_database", "product_database", "kafka", "storage"),
            id="an API",
        ),
        pytest.param(
            Entry(kind="kafka", threads=2, databases=("service",), secrets=("SENDGRID_API_KEY",), **SIZE),
            ("service_database", "email_service"),
            id="a sender of emails",
        ),
        pytest.param(
            Entry(kind="http", threads=4, databases=("service",), secrets=("SENDGRID_WEBHOOK_PUBLIC_KEY",), **SIZE),
            ("service_database",),
            id="a receiver of events",
        ),
        pytest.param(Entry(kind="worker", threads=1, kafka=True, **SIZE), ("pubsub",), id="a worker"),
    ],
)
def test_a_function_opens_the_clients_that_its_entry_needs(entry: Entry, expected: tuple[str, ...]) -> None:
    """The first request of a process does not have to wait for connections."""
    assert clients_of(entry) == expected
