"""imports_api: starts, finds, lists and retries imports over HTTP, and hands out error reports and the template."""

import csv
import io
import logging
from uuid import UUID

from werkzeug.datastructures import Headers

from functions.imports import operations
from functions.imports.file import error_report
from functions.imports.operations import Import, ImportPage, ImportQuery, StartedImport, StartImport
from shared import clients
from shared.columns import COLUMNS
from shared.errors import Unavailable
from shared.file_names import content_disposition
from shared.http_api import ApiResponse, Route, http_function

log = logging.getLogger(__name__)

CSV = "text/csv; charset=utf-8"


def start_import(webshop_uuid: UUID, user_uuid: UUID, body: StartImport, headers: Headers) -> StartedImport:
    """Opens an upload. The import exists once the file's bytes are sent to the URL in the response."""
    origin = headers.get("Origin", "")
    with clients.service_database().connect() as conn:
        return operations.start_import(conn, clients.storage(), webshop_uuid, user_uuid, body, origin=origin)


def list_imports(webshop_uuid: UUID, query: ImportQuery) -> ImportPage:
    """The webshop's imports, newest first."""
    with clients.service_database().connect() as conn:
        return operations.list_imports(conn, webshop_uuid, query)


def find_import(webshop_uuid: UUID, import_uuid: UUID) -> Import:
    """One import: its progress, and how and why it ended."""
    with clients.service_database().connect() as conn:
        return operations.find_import(conn, webshop_uuid, import_uuid)


def retry_import(webshop_uuid: UUID, user_uuid: UUID, import_uuid: UUID) -> Import:
    """Runs an import that failed or has refused rows again, from its file."""
    trigger = operations.retry_import(clients.service_database(), webshop_uuid, user_uuid, import_uuid)
    try:
        clients.kafka().send(trigger)
    except Unavailable:
        log.warning("The trigger of import %s was not sent; sweep sends it", import_uuid, exc_info=True)
    return find_import(webshop_uuid, import_uuid)


def download_errors(webshop_uuid: UUID, import_uuid: UUID) -> ApiResponse:
    """The error report: every failed row with its errors, to correct and upload again."""
    service_db = clients.service_database()
    with service_db.connect() as conn:
        row = operations.find_row(conn, webshop_uuid, import_uuid)
    report = error_report.stream_report(service_db, clients.storage(), row)
    disposition = content_disposition(f"errors of {row['file_name']}")
    return ApiResponse(report, content_type=CSV, headers={"Content-Disposition": disposition})


def download_template() -> ApiResponse:
    """A file to start with: every heading, and two example rows to replace."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(column.key for column in COLUMNS)
    writer.writerow(column.example for column in COLUMNS)
    writer.writerow(column.second_example for column in COLUMNS)
    disposition = {"Content-Disposition": 'attachment; filename="products-template.csv"'}
    return ApiResponse(f"\ufeff{out.getvalue()}".encode(), content_type=CSV, headers=disposition)


IMPORTS = "/webshops/<uuid:webshop_uuid>/imports"

ROUTES = (
    Route("POST", IMPORTS, start_import, status=201),
    Route("GET", IMPORTS, list_imports),
    Route("GET", f"{IMPORTS}/template", download_template),
    Route("GET", f"{IMPORTS}/<uuid:import_uuid>", find_import),
    Route("POST", f"{IMPORTS}/<uuid:import_uuid>/retry", retry_import, status=202),
    Route("GET", f"{IMPORTS}/<uuid:import_uuid>/errors", download_errors),
)

imports_api = http_function("imports_api", ROUTES)
