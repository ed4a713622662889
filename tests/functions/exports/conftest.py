"""Renders exports as the functions do, from a real database into memory."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import text

from functions.exports.identifiers import DEFAULT_IDENTIFIERS
from functions.exports.rendering import render
from functions.exports.requests import CreateExport
from shared.clients.databases import connect_to
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Engine

    from tests.conftest import Databases


@dataclass
class Exporter:
    """Renders exports of one webshop."""

    engine: Engine
    webshop_uuid: UUID
    rows: int = 0  # of the last export

    def export(
        self, source: str, file_type: str = "CSV", identifiers: Iterable[str] = DEFAULT_IDENTIFIERS, **fields: Any
    ) -> bytes:
        """Returns the file of an export. `fields` are those of a request's body."""
        body = {"source": source, "file_name": source, "file_type": file_type, **fields}
        request = msgspec.json.decode(msgspec.json.encode(body), type=CreateExport)
        sink = io.BytesIO()
        self.rows = self.render(request, sink, identifiers=tuple(identifiers))
        return sink.getvalue()

    def render(
        self,
        request: CreateExport,
        sink: BinaryIO,
        progress: Callable[[int], None] = lambda _: None,
        identifiers: tuple[str, ...] = DEFAULT_IDENTIFIERS,
    ) -> int:
        """Renders as the functions do: discards the connection after a failure."""
        with self.engine.connect() as conn:
            try:
                return render(conn, self.webshop_uuid, request, identifiers, sink, progress)
            except BaseException:
                conn.invalidate()
                raise

    def export_rows(self, source: str, **fields: Any) -> list[list[str]]:
        """Returns the rows of a CSV export without its heading."""
        content = self.export(source, **fields).decode("utf-8-sig")
        delimiter = fields.get("delimiter", ",")
        return list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter))[1:]

    def export_column(self, source: str, column: str, **fields: Any) -> list[str]:
        """Returns one column of an export."""
        return [row[0] for row in self.export_rows(source, columns=[column], **fields)]

    def query(self, sql: str, **values: Any) -> list[Any]:
        """Returns the rows of a query on the product database. `:webshop` is the webshop."""
        with self.engine.connect() as conn:
            return list(conn.execute(text(sql), self.bind(sql, values)))

    def change(self, sql: str, **values: Any) -> None:
        """Changes the product database."""
        with self.engine.begin() as conn:
            conn.execute(text(sql), self.bind(sql, values))

    def bind(self, sql: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **({"webshop": self.webshop_uuid} if ":webshop" in sql else {})}


def make_exporter(databases: Databases) -> Iterator[Exporter]:
    engine = connect_to("PRODUCT", DatabaseSettings(url=databases.product_url), 2)
    yield Exporter(engine, databases.tenants.webshop_uuid)
    engine.dispose()


@pytest.fixture(scope="session")
def seeded(databases: Databases) -> Iterator[Exporter]:
    """Exports of the seeded webshop. Tests only read it."""
    yield from make_exporter(databases)


@pytest.fixture
def own(fresh_databases: Databases) -> Iterator[Exporter]:
    """Exports of a webshop that the test may change."""
    yield from make_exporter(fresh_databases)
