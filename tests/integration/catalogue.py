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
    """What a file says of one product."""

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
    """A clean file."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("identifier", *Values._fields))
    writer.writerows((identifier, *values) for identifier, values in rows.items())
    return out.getvalue().encode()


@dataclass(frozen=True)
class Catalogue:
    """One webshop's products."""

    databases: Databases
    webshop_uuid: str

    def identifiers(self, count: int) -> list[str]:
        """The first so many identifiers; they are what a file is made of."""
        found = self.databases.product.rows(
            "select identifier from products where webshop_uuid = cast(:webshop as uuid) order by 1 limit :count",
            webshop=self.webshop_uuid,
            count=count,
        )
        return [identifier for (identifier,) in found]

    def values(self, identifiers: Sequence[str]) -> dict[str, Values]:
        """What the products hold now."""
        found = self.databases.product.rows(
            f"select identifier, {', '.join(Values._fields)} from products where webshop_uuid = cast(:webshop as uuid)",
            webshop=self.webshop_uuid,
        )
        wanted = set(identifiers)
        return {identifier: Values(*values) for identifier, *values in found if identifier in wanted}

    def assert_applied(self, import_uuid: str, rows: Rows, run: int = 1) -> None:
        """Every row stands in both databases, and was applied once."""
        assert self.values(list(rows)) == dict(rows)
        self.assert_applied_once(import_uuid, len(rows), run)
        self.assert_mirrored(import_uuid, list(rows))

    def assert_applied_once(self, import_uuid: str, rows: int, run: int = 1) -> None:
        """The outcomes recorded beside the products add up to the file: no row was updated twice, none was left."""
        assert self.outcomes(import_uuid, run)[1] == rows

    def outcomes(self, import_uuid: str, run: int = 1) -> tuple[int, int]:
        """How many batches were applied, and how many rows they updated."""
        [[batches, updated]] = self.databases.product.rows(
            "select count(*), coalesce(sum(updated), 0) from import_outcomes"
            " where import_uuid = cast(:import_uuid as uuid) and run = :run",
            import_uuid=import_uuid,
            run=run,
        )
        return batches, int(updated)

    def assert_mirrored(self, import_uuid: str, identifiers: Sequence[str]) -> None:
        """The legacy database says of these products what the product database says, in every mirrored column."""
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
        wanted = set(identifiers)
        product, legacy = (
            [row for row in database.rows(statement, webshop=self.webshop_uuid) if row[0] in wanted]
            for database in (self.databases.product, self.databases.legacy)
        )
        assert len(product) == len(wanted)
        assert legacy == product
