"""exports_api: asks for, finds, lists and deletes exports over HTTP, and says what can be exported.

An export is made while its client waits, or, where the client prefers not to, by export_render.
"""

from uuid import UUID

from werkzeug.datastructures import Headers

from functions.exports import catalog, operations
from functions.exports.operations import Export, Exporting, ExportPage, ExportQuery
from functions.exports.requests import CreateExport
from functions.exports.states import UNFINISHED, Status
from shared import clients
from shared.http_api import Answer, Route, http_function


def exporting() -> Exporting:
    """The operations, over this process's clients."""
    return Exporting(clients.service_database(), clients.product_database(), clients.storage(), clients.kafka())


def create_export(webshop_uuid: UUID, user_uuid: UUID, body: CreateExport, headers: Headers) -> Answer:
    """Makes an export: 201 when its file is there, 202 while it is made by others, as `Prefer: respond-async` asks."""
    create = exporting().request if prefers_async(headers) else exporting().make
    export = create(webshop_uuid, user_uuid, body, headers.get("Idempotency-Key"))
    applied = {"Preference-Applied": "respond-async"} if prefers_async(headers) else {}
    location = {"Location": f"/webshops/{webshop_uuid}/exports/{export.uuid}"}
    return Answer(export, status_of(export), headers=location | applied)


def prefers_async(headers: Headers) -> bool:
    """Whether the client would rather not wait: https://www.rfc-editor.org/rfc/rfc7240#section-4.1 ."""
    preferences = ",".join(headers.getlist("Prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def status_of(export: Export) -> int:
    """Created, accepted, or, for a key that comes again late, just what became of it."""
    if export.status in UNFINISHED:
        return 202
    return 201 if export.status == Status.COMPLETED else 200


def list_exports(webshop_uuid: UUID, query: ExportQuery) -> ExportPage:
    """The webshop's exports, newest first, without deleted ones."""
    with clients.service_database().connect() as service:
        return operations.find_all(service, webshop_uuid, query)


def find_export(webshop_uuid: UUID, export_uuid: UUID) -> Export:
    """One export: how far it is, how it ended and why."""
    with clients.service_database().connect() as service:
        return operations.find_one(service, webshop_uuid, export_uuid)


def delete_export(webshop_uuid: UUID, export_uuid: UUID) -> None:
    """Deletes an export and its file. An unfinished one is ended."""
    exporting().delete(webshop_uuid, export_uuid)


def list_sources() -> catalog.Catalog:
    """What can be exported: sources, columns, operators, file types."""
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
