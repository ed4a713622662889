"""import_apply: applies one batch of an import to the product database, exactly once in effect.

A batch delivered again finds its outcome recorded beside the rows it changed, in the same transaction, and only sends
that outcome again: the sender may have been killed between commit and send.
"""

from shared import clients
from shared.delivery import kafka_function
from shared.imports import applying
from shared.messages import ImportBatch


@kafka_function(ImportBatch)
def import_apply(batch: ImportBatch) -> None:
    """Called for `webshop.products.import`."""
    with clients.product_database().begin() as product:
        outcome = applying.apply(product, batch)
    clients.kafka().send(*applying.messages(batch, outcome))
