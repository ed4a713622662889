"""The identifiers by which a buy order names its products: a setting of each webshop."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from sqlalchemy import select

from shared.tables.service import buy_order_export_settings

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

MAX_IDENTIFIERS = 3  # more would leave no room on the page for the rest of a line

# In the order of their columns, whatever order the webshop chose them in.
IDENTIFIERS = tuple(
    f"{owner}_PRODUCT_{code}"
    for code, owner in product(("SKU_CODE", "EAN_CODE", "ARTICLE_CODE", "NAME"), ("WEBSHOP", "SUPPLIER"))
)
DEFAULT_IDENTIFIERS = ("WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_ARTICLE_CODE")


def find_identifiers(conn: Connection, webshop_uuid: UUID) -> tuple[str, ...]:
    """Returns the identifiers that the webshop has chosen, or the default ones. Reads the service database."""
    settings = buy_order_export_settings
    identifiers = conn.scalar(select(settings.c.identifiers).where(settings.c.webshop_uuid == webshop_uuid))
    return tuple(identifiers) if identifiers else DEFAULT_IDENTIFIERS
