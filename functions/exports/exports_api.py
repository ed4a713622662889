"""exports_api: requests, finds, lists and deletes exports over HTTP, and lists the sources of exports.

An export is rendered while the client waits, or by export_render if the client prefers not to wait.
"""

from uuid import UUID

from werkzeug.datastructures import Headers

from functions.exports import catalog, operations
from functions.exports.operations import Export, ExportOperations, ExportPage, ExportQuery
from functions.exports.requests import CreateExport
from functions.exports.states import UNFINISHED, Status
from shared import clients
from shared.http_api import ApiResponse, Route, http_function


def export_operations() -> ExportOperations:
    """Returns the operations with the clients of this process."""
    return ExportOperations(clients.service_database(), clients.product_database(), clients.storage(), clients.kafka())


def create_export(webshop_uuid: UUID, user_uuid: UUID, body: CreateExport, headers: Headers) -> ApiResponse:
    """Creates an export: 201 with the finished export, or 202 at once if the client sends `Prefer: respond-async`."""
    create = export_operations().request if prefers_async(headers) else export_operations().render
    export = create(webshop_uuid, user_uuid, body, headers.get("Idempotency-Key"))
    applied = {"Preference-Applied": "respond-async"} if prefers_async(headers) else {}
    location = {"Location": f"/webshops/{webshop_uuid}/exports/{export.uuid}"}
    return ApiResponse(export, status_of(export), headers=location | applied)


def prefers_async(headers: Headers) -> bool:
    """Returns whether the client prefers not to wait: https://www.rfc-editor.org/rfc/rfc7240#section-4.1 ."""
    preferences = ",".join(headers.getlist("Prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def status_of(export: Export) -> int:
    """Returns the HTTP status: 201, 202, or 200 for an idempotency key whose export has failed or expired."""
    if export.status in UNFINISHED:
        return 202
    return 201 if export.status == Status.COMPLETED else 200


def list_exports(webshop_uuid: UUID, query: ExportQuery) -> ExportPage:
    """Lists the webshop's exports, newest first, without deleted ones."""
    with clients.service_database().connect() as conn:
        return operations.list_exports(conn, webshop_uuid, query)


def find_export(webshop_uuid: UUID, export_uuid: UUID) -> Export:
    """Returns one export: its progress, and how and why it ended."""
    with clients.service_database().connect() as conn:
        return operations.find_export(conn, webshop_uuid, export_uuid)


def delete_export(webshop_uuid: UUID, export_uuid: UUID) -> None:
    """Deletes an export and its file. Rendering stops if it is unfinished."""
    export_operations().delete(webshop_uuid, export_uuid)


def list_sources() -> catalog.Catalog:
    """Lists what can be exported: sources, columns, operators, file types."""
    return catalog.list_sources()


EXPORTS = "/webshops/<uuid:webshop_uuid>/exports"
SOURCES = "/webshops/<uuid:webshop_uuid>/export-sources"

ROUTES = (
    Route("GET", SOURCES, list_sources, needs_feature="exports"),
    Route("POST", EXPORTS, create_export, needs_feature="exports"),
    Route("GET", EXPORTS, list_exports, needs_feature="exports"),
    Route("GET", f"{EXPORTS}/<uuid:export_uuid>", find_export, needs_feature="exports"),
    Route("DELETE", f"{EXPORTS}/<uuid:export_uuid>", delete_export, status=204, needs_feature="exports"),
)

exports_api = http_function("exports_api", ROUTES)
