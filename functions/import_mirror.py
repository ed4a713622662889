"""import_mirror: brings changed products of the legacy database to what they are in the product database.

It writes what the products are now, not what they were when the message was sent, so a message that comes again or late
does no harm.
"""

from shared import clients
from shared.delivery import kafka_function
from shared.imports import mirroring
from shared.messages import ProductsUpdated


@kafka_function(ProductsUpdated)
def import_mirror(updated: ProductsUpdated) -> None:
    """Called for `webshop.products.updated`."""
    with clients.legacy_database().begin() as legacy:
        mirroring.mirror(clients.product_database(), legacy, updated)
    with clients.product_database().begin() as product:
        mirroring.mark_mirrored(product, updated)
