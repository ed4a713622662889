"""Direct access to the databases, so that the demo can compare the API's responses with what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pg8000.native import Connection


@dataclass(frozen=True)
class Databases:
    """Connections to the two databases that hold products, for queries about one webshop."""

    product_conn: Connection
    legacy_conn: Connection
    webshop_uuid: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Databases:
        """Connects to the databases of the stack with this environment."""
        product_conn, legacy_conn = (connect(environment[f"{name}_DATABASE_URL"]) for name in ("PRODUCT", "LEGACY"))
        return cls(product_conn, legacy_conn, environment["WEBSHOP_UUID"])

    def fetch_rows(self, conn: Connection, sql: str, **values: Any) -> list[list[Any]]:
        """Returns the rows of a query. `:webshop` in the query stands for the webshop's uuid."""
        rows: list[list[Any]] = conn.run(
            sql.replace(":webshop", "cast(:webshop as uuid)"), webshop=self.webshop_uuid, **values
        )
        return rows

    def fetch_identifiers(self) -> list[str]:
        """Returns the identifiers of all products, in the database's order."""
        sql = "select identifier from products where webshop_uuid = :webshop order by identifier"
        return [row[0] for row in self.fetch_rows(self.product_conn, sql)]


def connect(url: str) -> Connection:
    """Connects to a libpq URL."""
    parts = urlsplit(url)
    return Connection(
        parts.username or "postgres",
        parts.hostname or "localhost",
        parts.path.lstrip("/"),
        parts.port or 5432,
        parts.password,
    )
