"""export_download: hands out an export's file, by a short-lived URL or, where nothing can sign one, itself."""

from uuid import UUID

from functions.exports import operations
from functions.exports.operations import ExportFile
from functions.exports.rendering import content_type
from shared import clients
from shared.errors import ObjectGone, Unavailable
from shared.file_names import content_disposition
from shared.http_api import Answer, Route, http_function
from shared.problems import Problem
from shared.settings import settings


def download_export(webshop_uuid: UUID, export_uuid: UUID) -> Answer:
    """The file of a completed export."""
    with clients.service_database().connect() as conn:
        file = operations.find_file(conn, webshop_uuid, export_uuid)
    try:
        return redirected(file) if settings().signed_urls else streamed(file)
    except ObjectGone as error:
        raise operations.export_expired() from error
    except Unavailable as error:
        sentence = "The file is there, but the storage does not answer. Try again in a moment."
        raise Problem(503, "unavailable", sentence, headers={"Retry-After": "5"}) from error


def redirected(file: ExportFile) -> Answer:
    """A URL made for this click; nobody may keep it."""
    url = clients.storage().signed_url(file.path, content_disposition(file.name))
    return Answer(None, 302, headers={"Location": url, "Cache-Control": "no-store"})


def streamed(file: ExportFile) -> Answer:
    """The bytes."""
    download = clients.storage().download(file.path)
    headers = {
        "Content-Disposition": content_disposition(file.name),
        "Content-Length": str(download.size_bytes),
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Answer(download.pieces, content_type=content_type(file.file_type), headers=headers)


DOWNLOAD = "/webshops/<uuid:webshop_uuid>/exports/<uuid:export_uuid>/download"

export_download = http_function("export_download", (Route("GET", DOWNLOAD, download_export, needs_feature="exports"),))
