"""The products of a webshop in the product database and in the mirror, and files that change them."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from shared.columns import COLUMNS
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from tests.integration.stack import Databases


class Values(NamedTuple):
    """The values of one product in a file, besides its identifier."""

    name: str
    price: Decimal
    stock_on_hand: int


Rows = Mapping[str, Values]  # by identifier


def new_values(identifiers: Sequence[str]) -> dict[str, Values]:
    """Values that no product has had before, so that every row is a change."""
    edition = uuid.uuid4().hex[:8]
    return {
        identifier: Values(f"Product {number} of {edition}", Decimal(number % 9000 + 1000) / 100, number % 500)
        for number, identifier in enumerate(identifiers)
    }


def csv_of(rows: Rows) -> bytes:
    """The rows as a CSV file without errors."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("identifier", *Values._fields))
    writer.writerows((identifier, *values) for identifier, values in rows.items())
    return out.getvalue().encode()


@dataclass(frozen=True)
class Catalogue:
    """The products of one webshop."""

    databases: Databases
    webshop_uuid: str

    def identifiers(self, count: int) -> list[str]:
        """The first `count` identifiers."""
        rows = self.databases.product.rows(
            "select identifier from products where webshop_uuid = cast(:webshop as uuid) order by 1 limit :count",
            webshop=self.webshop_uuid,
            count=count,
        )
        return [identifier for (identifier,) in rows]

    def values(self, identifiers: Sequence[str]) -> dict[str, Values]:
        """The present values of products, by identifier."""
        rows = self.databases.product.rows(
            f"select identifier, {', '.join(Values._fields)} from products where webshop_uuid = cast(:webshop as uuid)",
            webshop=self.webshop_uuid,
        )
        requested = set(identifiers)
        return {identifier: Values(*values) for identifier, *values in rows if identifier in requested}

    def assert_applied(self, import_uuid: str, rows: Rows, run: int = 1) -> None:
        """Checks that every row is in the product and the legacy database, and was applied once."""
        assert self.values(list(rows)) == dict(rows)
        self.assert_applied_once(import_uuid, len(rows), run)
        self.assert_mirrored(import_uuid, list(rows))

    def assert_applied_once(self, import_uuid: str, rows: int, run: int = 1) -> None:
        """Checks that the recorded batch results add up to the file: each row was updated once."""
        assert self.count_applied(import_uuid, run)[1] == rows

    def count_applied(self, import_uuid: str, run: int = 1) -> tuple[int, int]:
        """The number of batches that were applied, and the number of rows that they updated."""
        [[batches, updated]] = self.databases.product.rows(
            "select count(*), coalesce(sum(updated), 0) from import_outcomes"
            " where import_uuid = cast(:import_uuid as uuid) and run = :run",
            import_uuid=import_uuid,
            run=run,
        )
        return batches, int(updated)

    def assert_mirrored(self, import_uuid: str, identifiers: Sequence[str]) -> None:
        """Waits for the mirror. Checks that every mirrored column of the products is equal in both databases."""
        wait_until(
            lambda: self.databases.product.value(
                "select bool_and(mirrored_at is not null) from import_outcomes"
                " where import_uuid = cast(:import_uuid as uuid)",
                import_uuid=import_uuid,
            ),
            "the mirror",
        )
        statement = (
            f"select {', '.join(column.key for column in COLUMNS)} from products"
            " where webshop_uuid = cast(:webshop as uuid) order by identifier"
        )
        requested = set(identifiers)
        products, mirrored = (
            [row for row in database.rows(statement, webshop=self.webshop_uuid) if row[0] in requested]
            for database in (self.databases.product, self.databases.legacy)
        )
        assert len(products) == len(requested)
        assert mirrored == products
