"""buy_order_email: mails a buy order to its supplier, as CSV, XLSX and PDF.

It holds the send's lease while it works. A delivery that meets a live lease, or a mail that was handed over, has
nothing to do; if the holder died before it handed the mail over, sweep sends the message again.
"""

from shared import clients
from shared.buy_orders import sends
from shared.buy_orders.attempt import Attempt
from shared.delivery import kafka_function
from shared.messages import BuyOrderEmail


@kafka_function(BuyOrderEmail)
def buy_order_email(wanted: BuyOrderEmail) -> None:
    """Called for `webshop.buy-order.email`."""
    mail_service = clients.mail_service()
    with clients.service_database().begin() as service:
        sends.add(service, wanted, wanted.recipient)  # of another service: there is no record of it yet
        held = sends.claim(service, wanted)
    Attempt(clients.service_database(), clients.product_database(), clients.storage(), mail_service).make(held)
