"""import_batches: validates an import's file and sends its good rows on in batches.

It holds the import's lease while it works. A delivery that meets a live lease has nothing to do: its holder goes on,
and if the holder died, sweep sends the trigger again.
"""

from shared import clients
from shared.delivery import kafka_function
from shared.errors import PermanentError
from shared.imports import closing, leases
from shared.imports.batching import Batching
from shared.messages import ImportTrigger


@kafka_function(ImportTrigger)
def import_batches(trigger: ImportTrigger) -> None:
    """Called for `webshop.product.import.trigger`."""
    service, product = clients.service_database(), clients.product_database()
    with leases.claimed(service, trigger) as held:
        try:
            Batching(service, product, clients.storage(), clients.kafka()).work_on(held)
        except PermanentError as error:
            closing.close(service, product, held, str(error))
            raise
