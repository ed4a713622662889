"""buy_orders_api: requests the email of a buy order, lists its deliveries, reads and saves the settings."""

from uuid import UUID

from werkzeug.datastructures import Headers

from functions.buy_orders import operations
from functions.buy_orders.operations import (
    DeliveryPage,
    EmailBuyOrder,
    EmailOperations,
    ExportSettings,
)
from shared import clients
from shared.http_api import ApiResponse, Route, http_function
from shared.pagination import PageQuery


def email_operations() -> EmailOperations:
    """Returns the operations with the clients of this process."""
    return EmailOperations(clients.service_database(), clients.product_database(), clients.kafka())


def email_buy_order(
    webshop_uuid: UUID, user_uuid: UUID, buy_order_uuid: UUID, body: EmailBuyOrder, headers: Headers
) -> ApiResponse:
    """Requests the email of an order. The list of the order's emails shows the progress."""
    key = headers.get("Idempotency-Key")
    delivery = email_operations().request_email(webshop_uuid, user_uuid, buy_order_uuid, body, key)
    emails = f"/webshops/{webshop_uuid}/buy-orders/{buy_order_uuid}/emails"
    return ApiResponse(delivery, 202, headers={"Location": emails})


def list_emails(webshop_uuid: UUID, buy_order_uuid: UUID, query: PageQuery) -> DeliveryPage:
    """Lists the email deliveries of the order, newest first, each with its events."""
    return email_operations().list_emails(webshop_uuid, buy_order_uuid, query)


def find_settings(webshop_uuid: UUID) -> ExportSettings:
    """Returns the identifiers by which the webshop's buy orders name their products."""
    with clients.service_database().connect() as conn:
        return operations.find_settings(conn, webshop_uuid)


def save_settings(webshop_uuid: UUID, body: ExportSettings) -> ExportSettings:
    """Saves the identifiers. The response lists them in the order of their columns."""
    with clients.service_database().begin() as conn:
        return operations.save_settings(conn, webshop_uuid, body)


ORDER = "/webshops/<uuid:webshop_uuid>/buy-orders/<uuid:buy_order_uuid>"
SETTINGS = "/webshops/<uuid:webshop_uuid>/buy-order-export-settings"

ROUTES = (
    Route("POST", f"{ORDER}/email", email_buy_order, needs_feature="buy_orders"),
    Route("GET", f"{ORDER}/emails", list_emails, needs_feature="buy_orders"),
    Route("GET", SETTINGS, find_settings, needs_feature="buy_orders"),
    Route("PUT", SETTINGS, save_settings, needs_feature="buy_orders"),
)

buy_orders_api = http_function("buy_orders_api", ROUTES)
