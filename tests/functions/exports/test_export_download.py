"""export_download: the file of a finished export, and an answer for every other."""

import uuid
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.http import parse_options_header

from shared.clients.bucket import Download
from shared.errors import Unavailable
from tests.exports_world import csv_rows


def test_where_nothing_signs_the_function_streams_the_file(exports):
    """Whole, under its name, and kept by nobody on the way."""
    made = exports.ask(file_name='Zoë\'s "list" / 2026').json

    answer = exports.download(made["uuid"])

    assert answer.status_code == 200
    assert answer.content_type == "text/csv; charset=utf-8"
    assert int(answer.headers["Content-Length"]) == len(answer.data) == made["size_bytes"]
    assert len(csv_rows(answer.data)) == made["rows"] + 1
    assert parse_options_header(answer.headers["Content-Disposition"]) == ("attachment", {"filename": made["name"]})
    assert "no-store" in answer.headers["Cache-Control"]


def test_where_something_signs_each_click_gets_a_url_of_its_own(exports, monkeypatch):
    """302 to the bucket, for this file and under its name; the URL is in no cache."""
    exports.set("functions.exports.export_download", SIGNED_URLS="on")
    monkeypatch.setattr(
        exports.storage,
        "signed_url",
        lambda path, disposition: f"https://storage.test/{path}?signature={uuid.uuid4()}&as={disposition}",
    )
    made = exports.ask().json

    one, two = exports.download(made["uuid"]), exports.download(made["uuid"])

    assert [one.status_code, two.status_code] == [302, 302]
    assert one.headers["Location"] != two.headers["Location"]
    assert made["file_uri"].endswith(urlsplit(one.headers["Location"]).path)
    assert parse_qs(urlsplit(one.headers["Location"]).query)["as"] == ['attachment; filename="suppliers.csv"']
    assert one.headers["Cache-Control"] == "no-store"
    assert one.data == b""


def test_an_expired_export_is_gone_and_still_found(exports):
    """410 with a sentence; the export says EXPIRED, and so does its history."""
    made = exports.ask().json
    exports.change("service", "update exports set finished_at = finished_at - interval '31 days'")
    exports.recover()

    answer = exports.download(made["uuid"])

    assert (answer.status_code, answer.content_type) == (410, "application/problem+json")
    found = exports.get(made["uuid"])
    assert (found["status"], found["file_uri"], found["download_url"]) == ("EXPIRED", None, None)
    assert exports.files() == set()
    assert [item["status"] for item in exports.call("GET", "").json["items"]] == ["EXPIRED"]
    exports.assert_settled()


def test_a_file_that_somebody_removed_is_gone(exports):
    """410, not a server's error: asking again gives a new one."""
    made = exports.ask().json
    (path,) = exports.files()
    exports.storage.remove(path)

    assert exports.download(made["uuid"]).status_code == 410


def test_an_export_without_a_file_says_why(exports, monkeypatch):
    """409: not yet, or not at all."""
    asked = exports.ask_later()
    unfinished = exports.download(asked["uuid"])
    monkeypatch.setattr(exports.storage, "_bucket", exports.storage._bucket.client.bucket("no-such-bucket"))
    failed = exports.download(exports.ask().json["export_uuid"])

    assert (unfinished.status_code, failed.status_code) == (409, 409)
    assert "PENDING" in unfinished.json["detail"]
    assert unfinished.headers["Retry-After"] == "1"
    assert "Reference" in failed.json["detail"]


@pytest.mark.parametrize("path", ["b7c0cb6f-bac9-4472-b6d6-d285a5f8cbdf", "nonsense"])
def test_what_never_was_is_not_found(exports, path):
    assert exports.download(path).status_code == 404


def test_a_storage_that_does_not_answer_is_unavailable(exports, monkeypatch):
    """503: the file is there, and can be had in a moment."""
    made = exports.ask().json

    def refuse(path: str) -> Download:
        raise Unavailable("no")

    monkeypatch.setattr(exports.storage, "download", refuse)

    answer = exports.download(made["uuid"])

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"]
