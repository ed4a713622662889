"""By which of their many codes a buy order names its products: a setting of each webshop."""

from __future__ import annotations

from itertools import product
from uuid import UUID

from sqlalchemy import Connection, select

from shared.tables.service import buy_order_export_settings

MAX_IDENTIFIERS = 3  # more would not leave room for the rest of a line on paper

# In the order in which their columns stand, whatever order they were chosen in.
IDENTIFIERS = tuple(
    f"{owner}_PRODUCT_{code}"
    for code, owner in product(("SKU_CODE", "EAN_CODE", "ARTICLE_CODE", "NAME"), ("WEBSHOP", "SUPPLIER"))
)
DEFAULT_IDENTIFIERS = ("WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_ARTICLE_CODE")


def identifiers_of(conn: Connection, webshop_uuid: UUID) -> tuple[str, ...]:
    """The identifiers by which the webshop's buy orders name their products."""
    settings = buy_order_export_settings
    found = conn.scalar(select(settings.c.identifiers).where(settings.c.webshop_uuid == webshop_uuid))
    return tuple(found) if found else DEFAULT_IDENTIFIERS
