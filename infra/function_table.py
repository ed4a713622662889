"""Reads the table of functions, infra/functions.yaml, which explains its keys itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

TABLE = Path(__file__).with_name("functions.yaml")


class InvalidTable(ValueError):
    """The table has an unknown key, a missing key or a malformed value. The text names the function and the key."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One function. A key without a default is required. The defaults are the same as in functions.tf."""

    kind: Literal["http", "kafka", "storage", "schedule", "worker"]
    memory_mb: int
    threads: int
    max_instances: int
    topic: str = ""
    paths: tuple[str, ...] = ()
    timeout_seconds: int | None = None
    databases: tuple[Literal["service", "product", "legacy"], ...] = ()
    bucket: tuple[Literal["read", "create", "write"], ...] = ()
    kafka: bool = False
    secrets: tuple[str, ...] = ()
    signs_urls: bool = False


def read_table(path: Path = TABLE) -> dict[str, Entry]:
    """Returns the entries by the names of their functions. Raises InvalidTable."""
    rows = msgspec.yaml.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    return {name: entry_of(name, row) for name, row in rows.items()}


def entry_of(name: str, row: dict[str, Any]) -> Entry:
    """Decodes the entry of the function `name`. Raises InvalidTable."""
    try:
        return msgspec.convert(row, Entry)
    except msgspec.ValidationError as error:
        raise InvalidTable(f"{name}: {error}") from None
