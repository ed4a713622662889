"""All export sources, one line per source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from functions.exports.sources import (
    buy_orders,
    product_promotions,
    product_suppliers,
    products,
    promotion_webshop_products,
    promotions,
    supplier_products,
    suppliers,
    undelivered_products,
)

if TYPE_CHECKING:
    from functions.exports.source import Source

SOURCES: dict[str, Source] = {
    source.key: source
    for source in (
        products.SOURCE,
        suppliers.SOURCE,
        product_suppliers.SOURCE,
        supplier_products.SOURCE,
        promotions.SOURCE,
        product_promotions.SOURCE,
        promotion_webshop_products.SOURCE,
        buy_orders.SOURCE,
        undelivered_products.SOURCE,
    )
}
