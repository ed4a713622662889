"""The databases, asked directly: what the API says is compared with what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pg8000.native import Connection


@dataclass(frozen=True)
class Databases:
    """Connections to the two of them that hold products, and the webshop that it is about."""

    product: Connection
    legacy: Connection
    webshop_uuid: str

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Databases:
        """Those of the stack with this environment."""
        product, legacy = (connect(told[f"{name}_DATABASE_URL"]) for name in ("PRODUCT", "LEGACY"))
        return cls(product, legacy, told["WEBSHOP_UUID"])

    def rows(self, database: Connection, sql: str, **values: Any) -> list[list[Any]]:
        """What a query finds; `:webshop` in it is the webshop."""
        found: list[list[Any]] = database.run(
            sql.replace(":webshop", "cast(:webshop as uuid)"), webshop=self.webshop_uuid, **values
        )
        return found

    def identifiers(self) -> list[str]:
        """Of all products, in the server's order."""
        sql = "select identifier from products where webshop_uuid = :webshop order by identifier"
        return [row[0] for row in self.rows(self.product, sql)]


def connect(url: str) -> Connection:
    """A connection to a libpq URL."""
    parts = urlsplit(url)
    return Connection(
        parts.username or "postgres",
        parts.hostname or "localhost",
        parts.path.lstrip("/"),
        parts.port or 5432,
        parts.password,
    )
