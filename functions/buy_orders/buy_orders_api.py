"""buy_orders_api: asks for the mail of a buy order, shows what became of it, and keeps how orders are exported."""

from uuid import UUID

from werkzeug.datastructures import Headers

from functions.buy_orders import operations
from functions.buy_orders.operations import EmailBuyOrder, ExportSettings, Mailing, SendPage, SendQuery
from shared import clients
from shared.http_api import Answer, Route, http_function


def mailing() -> Mailing:
    """The operations, over this process's clients."""
    return Mailing(clients.service_database(), clients.product_database(), clients.kafka())


def email_buy_order(
    webshop_uuid: UUID, user_uuid: UUID, buy_order_uuid: UUID, body: EmailBuyOrder, headers: Headers
) -> Answer:
    """Has the order mailed; the list of its mails tells when it was."""
    key = headers.get("Idempotency-Key")
    send = mailing().request(webshop_uuid, user_uuid, buy_order_uuid, body, key)
    emails = f"/webshops/{webshop_uuid}/buy-orders/{buy_order_uuid}/emails"
    return Answer(send, 202, headers={"Location": emails})


def list_emails(webshop_uuid: UUID, buy_order_uuid: UUID, query: SendQuery) -> SendPage:
    """Every mail of the order, newest first, each with what the mail service told of it."""
    return mailing().find_all(webshop_uuid, buy_order_uuid, query)


def find_settings(webshop_uuid: UUID) -> ExportSettings:
    """Which codes name the products of the webshop's buy orders."""
    with clients.service_database().connect() as service:
        return operations.find_settings(service, webshop_uuid)


def save_settings(webshop_uuid: UUID, body: ExportSettings) -> ExportSettings:
    """Chooses the codes; the answer has them in the order of their columns."""
    with clients.service_database().begin() as service:
        return operations.save_settings(service, webshop_uuid, body)


ORDER = "/webshops/<uuid:webshop_uuid>/buy-orders/<uuid:buy_order_uuid>"
SETTINGS = "/webshops/<uuid:webshop_uuid>/buy-order-export-settings"

ROUTES = (
    Route("POST", f"{ORDER}/email", email_buy_order, needs_feature="buy_orders"),
    Route("GET", f"{ORDER}/emails", list_emails, needs_feature="buy_orders"),
    Route("GET", SETTINGS, find_settings, needs_feature="buy_orders"),
    Route("PUT", SETTINGS, save_settings, needs_feature="buy_orders"),
)

buy_orders_api = http_function("buy_orders_api", ROUTES)
