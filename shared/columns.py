"""The columns of a product that an import may change: one row per column, used by all code that reads or writes them.

To add a column, add a row here, and a column of that name to the product database and to the legacy database.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Kind(enum.Enum):
    """How a cell of a column is read."""

    TEXT = enum.auto()
    CODE = enum.auto()  # text that spreadsheets may damage: 4.0E+12 is refused
    EAN = enum.auto()  # a CODE of 8, 12, 13 or 14 digits; the last one is a check digit
    URL = enum.auto()  # a web address with http or https
    CHOICE = enum.auto()  # one of `choices`
    DECIMAL = enum.auto()
    INTEGER = enum.auto()
    BOOLEAN = enum.auto()

    @property
    def sql_type(self) -> str:
        """The PostgreSQL type of a value of this kind."""
        return {Kind.DECIMAL: "numeric", Kind.INTEGER: "integer", Kind.BOOLEAN: "boolean"}.get(self, "text")


@dataclass(frozen=True)
class ImportColumn:
    """One column of the import file."""

    key: str  # the name of the column in the file, in both databases and in the API
    heading: str  # in exports; the importer accepts both names
    kind: Kind
    nullable: bool = True  # whether NULL in a cell clears the value
    max_length: int = 255  # of a text, in characters
    minimum: int = 0  # of a number
    digits: int = 9  # of a number before the decimal separator, at most; 9 always fit into an integer column
    decimals: int = 0  # of a DECIMAL, at most; a cell with more is refused, never rounded
    choices: tuple[str, ...] = ()  # the values of a CHOICE
    example: str = ""  # in the first example row of the template
    second_example: str = ""  # in the second; an empty cell leaves the value unchanged


IDENTIFIER = ImportColumn(
    "identifier", "Identifier", Kind.TEXT, nullable=False, max_length=100, example="P-1001", second_example="P-1002"
)

COLUMNS: tuple[ImportColumn, ...] = (
    IDENTIFIER,
    ImportColumn("name", "Name", Kind.TEXT, nullable=False, example="Blue mug"),
    ImportColumn("sku_code", "SKU code", Kind.CODE, max_length=100, example="MUG-BLUE"),
    ImportColumn("ean_code", "EAN code", Kind.EAN, max_length=14, example="4006381333931"),
    ImportColumn("article_code", "Article code", Kind.CODE, max_length=100, example="00123"),
    ImportColumn("price", "Price", Kind.DECIMAL, digits=10, decimals=2, example="12.50", second_example="3.95"),
    ImportColumn("cost_price", "Cost price", Kind.DECIMAL, digits=10, decimals=2, example="7.25"),
    ImportColumn(
        "stock_on_hand",
        "Stock on hand",
        Kind.INTEGER,
        nullable=False,
        minimum=-999_999_999,
        example="40",
        second_example="0",
    ),
    ImportColumn("unlimited_stock", "Unlimited stock", Kind.BOOLEAN, nullable=False, example="false"),
    ImportColumn("minimum_stock", "Minimum stock", Kind.INTEGER, example="10"),
    ImportColumn("maximum_stock", "Maximum stock", Kind.INTEGER, example="100"),
    ImportColumn("lot_size", "Lot size", Kind.INTEGER, minimum=1, example="6"),
    ImportColumn("lead_time_days", "Lead time (days)", Kind.INTEGER, example="5"),
    ImportColumn("status", "Status", Kind.CHOICE, nullable=False, choices=("enabled", "disabled"), example="enabled"),
    ImportColumn("product_url", "Product URL", Kind.URL, max_length=2000, example="https://shop.example/blue-mug"),
)

BY_KEY = {column.key: column for column in COLUMNS}

# Columns of the products export that an import cannot change. The importer skips them, and the import lists them.
READ_ONLY_HEADINGS = ("UUID", "Created at", "Updated at")
# Columns that the error report adds after the file's own. The importer skips them: a corrected report can be uploaded.
REPORT_HEADINGS = ("Row number", "Error columns", "Error codes", "Errors")


def normalize_heading(heading: str) -> str:
    """Removes case, spaces, hyphens, underscores and brackets: "Lead time (days)" matches lead_time_days."""
    return re.sub(r"[\s_\-()]+", "", heading.casefold())
