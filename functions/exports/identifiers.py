"""By which of their many codes a buy order names its products: a setting of each webshop."""

from __future__ import annotations

from itertools import product

MAX_IDENTIFIERS = 3  # more would not leave room for the rest of a line on paper

# In the order in which their columns stand, whatever order they were chosen in.
IDENTIFIERS = tuple(
    f"{owner}_PRODUCT_{code}"
    for code, owner in product(("SKU_CODE", "EAN_CODE", "ARTICLE_CODE", "NAME"), ("WEBSHOP", "SUPPLIER"))
)
DEFAULT_IDENTIFIERS = ("WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_ARTICLE_CODE")
