"""Exports rendered as the functions render them, from a real database into memory."""

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
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Engine

    from tests.conftest import Databases


@dataclass
class Exporter:
    """Renders exports of one webshop."""

    engine: Engine
    webshop_uuid: UUID

    def file(self, source: str, file_type: str = "CSV", identifiers: Any = DEFAULT_IDENTIFIERS, **fields: Any) -> bytes:
        """The file of an export. `fields` are those of a request's body."""
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
        """Renders as the functions do: the connection of a render that failed is thrown away."""
        with self.engine.connect() as product:
            try:
                return render(product, self.webshop_uuid, request, identifiers, sink, progress)
            except BaseException:
                product.invalidate()
                raise

    def table(self, source: str, **fields: Any) -> list[list[str]]:
        """The rows of a CSV below its heading."""
        content = self.file(source, **fields).decode("utf-8-sig")
        delimiter = fields.get("delimiter", ",")
        return list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter))[1:]

    def column(self, source: str, column: str, **fields: Any) -> list[str]:
        """One column of an export."""
        return [row[0] for row in self.table(source, columns=[column], **fields)]

    def query(self, sql: str, **values: Any) -> list[Any]:
        """What the database itself says; `:webshop` is the webshop."""
        with self.engine.connect() as product:
            return list(product.execute(text(sql), self.bound(sql, values)))

    def change(self, sql: str, **values: Any) -> None:
        """Changes what is exported."""
        with self.engine.begin() as product:
            product.execute(text(sql), self.bound(sql, values))

    def bound(self, sql: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **({"webshop": self.webshop_uuid} if ":webshop" in sql else {})}


def exporter_of(databases: Databases) -> Iterator[Exporter]:
    engine = connect_to("PRODUCT", DatabaseSettings(url=databases.product_url), 2)
    yield Exporter(engine, databases.tenants.webshop_uuid)
    engine.dispose()


@pytest.fixture(scope="session")
def seeded(databases: Databases) -> Iterator[Exporter]:
    """Exports of the seeded webshop, which nobody changes."""
    yield from exporter_of(databases)


@pytest.fixture
def own(fresh_databases: Databases) -> Iterator[Exporter]:
    """Exports of a webshop that the test may change."""
    yield from exporter_of(fresh_databases)
