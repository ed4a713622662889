"""export_download: sends an export's file, as a redirect to a short-lived URL or, without URL signing, as a stream."""

from uuid import UUID

from functions.exports import operations
from functions.exports.operations import ExportFile
from functions.exports.rendering import content_type
from shared import clients
from shared.errors import ObjectGone, Unavailable
from shared.file_names import content_disposition
from shared.http_api import ApiResponse, Route, http_function
from shared.problems import Problem
from shared.settings import settings


def download_export(webshop_uuid: UUID, export_uuid: UUID) -> ApiResponse:
    """Handles a download of a completed export's file."""
    with clients.service_database().connect() as conn:
        file = operations.find_file(conn, webshop_uuid, export_uuid)
    try:
        return redirect_to_file(file) if settings().signed_urls else stream_file(file)
    except ObjectGone as error:
        raise operations.export_expired() from error
    except Unavailable as error:
        detail = "The file exists, but the storage does not respond. Try again in a moment."
        raise Problem(503, "unavailable", detail, headers={"Retry-After": "5"}) from error


def redirect_to_file(file: ExportFile) -> ApiResponse:
    """Redirects to a URL that is created for this request and must not be cached."""
    url = clients.storage().sign_url(file.path, content_disposition(file.name))
    return ApiResponse(None, 302, headers={"Location": url, "Cache-Control": "no-store"})


def stream_file(file: ExportFile) -> ApiResponse:
    """Sends the content of the file."""
    download = clients.storage().download(file.path)
    headers = {
        "Content-Disposition": content_disposition(file.name),
        "Content-Length": str(download.size_bytes),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return ApiResponse(download.chunks, content_type=content_type(file.file_type), headers=headers)


DOWNLOAD_PATH = "/webshops/<uuid:webshop_uuid>/exports/<uuid:export_uuid>/download"

export_download = http_function(
    "export_download", (Route("GET", DOWNLOAD_PATH, download_export, needs_feature="exports"),)
)
