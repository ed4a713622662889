"""export_render: makes an export's file.

It holds the export's lease while it works. A delivery that meets a live lease has nothing to do: its holder goes on,
and if the holder died, sweep sends the request again.
"""

from shared import clients
from shared.delivery import kafka_function
from shared.exporting import jobs
from shared.exporting.attempt import Attempt
from shared.exporting.states import MAX_ATTEMPTS
from shared.messages import ExportRequest


@kafka_function(ExportRequest)
def export_render(request: ExportRequest) -> None:
    """Called for `webshop.export.request`."""
    with clients.service_database().begin() as service:
        held, record = jobs.claim(service, request.export_uuid)
    attempt = Attempt(clients.service_database(), clients.product_database(), clients.storage(), clients.kafka())
    attempt.make(held, record, give_up_after=MAX_ATTEMPTS)
