"""export_download: the file of a completed export, and the answers for all other exports."""

from __future__ import annotations

import uuid
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.http import parse_options_header

from shared.clients.bucket import Download
from shared.errors import Unavailable
from tests.exports_world import ExportsWorld, csv_rows


def test_without_url_signing_the_function_streams_the_file(exports: ExportsWorld) -> None:
    """The client gets the whole file under its name, and no cache keeps it."""
    export = exports.ask(file_name='Zoë\'s "list" / 2026').json

    answer = exports.download(export["uuid"])

    assert answer.status_code == 200
    assert answer.content_type == "text/csv; charset=utf-8"
    assert int(answer.headers["Content-Length"]) == len(answer.data) == export["size_bytes"]
    assert len(csv_rows(answer.data)) == export["rows"] + 1
    assert parse_options_header(answer.headers["Content-Disposition"]) == ("attachment", {"filename": export["name"]})
    assert "no-store" in answer.headers["Cache-Control"]


def test_with_url_signing_each_download_gets_its_own_url(
    exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a 302 to the file in the bucket, under its name, and no cache keeps the URL."""
    exports.configure("functions.exports.export_download", SIGNED_URLS="on")
    monkeypatch.setattr(
        exports.storage,
        "sign_url",
        lambda path, disposition: f"https://storage.test/{path}?signature={uuid.uuid4()}&as={disposition}",
    )
    export = exports.ask().json

    first, second = exports.download(export["uuid"]), exports.download(export["uuid"])

    assert [first.status_code, second.status_code] == [302, 302]
    assert first.headers["Location"] != second.headers["Location"]
    assert export["file_uri"].endswith(urlsplit(first.headers["Location"]).path)
    assert parse_qs(urlsplit(first.headers["Location"]).query)["as"] == ['attachment; filename="suppliers.csv"']
    assert first.headers["Cache-Control"] == "no-store"
    assert first.data == b""


def test_the_file_of_an_expired_export_is_gone_and_the_export_is_still_found(exports: ExportsWorld) -> None:
    """The download answers 410; the export and its history have the status EXPIRED."""
    export = exports.ask().json
    exports.change("service", "update exports set finished_at = finished_at - interval '31 days'")
    exports.recover()

    answer = exports.download(export["uuid"])

    assert (answer.status_code, answer.content_type) == (410, "application/problem+json")
    found = exports.get(export["uuid"])
    assert (found["status"], found["file_uri"], found["download_url"]) == ("EXPIRED", None, None)
    assert exports.files() == set()
    assert [item["status"] for item in exports.call("GET", "").json["items"]] == ["EXPIRED"]
    exports.assert_settled()


def test_a_missing_file_is_gone(exports: ExportsWorld) -> None:
    """It is a 410 and not a server error: a new export gives a new file."""
    export = exports.ask().json
    (path,) = exports.files()
    exports.storage.remove(path)

    answer = exports.download(export["uuid"])

    assert answer.status_code == 410


def test_an_export_without_a_file_gives_the_reason(exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download of a pending or failed export is a 409."""
    pending = exports.ask_later()

    unfinished = exports.download(pending["uuid"])
    monkeypatch.setattr(exports.storage, "_bucket", exports.storage._bucket.client.bucket("no-such-bucket"))
    failed = exports.download(exports.ask().json["export_uuid"])

    assert (unfinished.status_code, failed.status_code) == (409, 409)
    assert "PENDING" in unfinished.json["detail"]
    assert unfinished.headers["Retry-After"] == "1"
    assert "Reference" in failed.json["detail"]


@pytest.mark.parametrize("path", ["b7c0cb6f-bac9-4472-b6d6-d285a5f8cbdf", "nonsense"])
def test_an_unknown_export_is_not_found(exports: ExportsWorld, path: str) -> None:
    assert exports.download(path).status_code == 404


def test_a_download_without_storage_is_unavailable(exports: ExportsWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a 503: the file exists and can be downloaded later."""
    export = exports.ask().json

    def refuse(path: str) -> Download:
        raise Unavailable("no")

    monkeypatch.setattr(exports.storage, "download", refuse)

    answer = exports.download(export["uuid"])

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"]
