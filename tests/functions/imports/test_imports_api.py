"""imports_api, called through functions-framework: every response that a merchant's frontend gets."""

from __future__ import annotations

import base64
import csv
import io
import json
import uuid
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from functions.imports.states import Status
from shared.errors import Unavailable
from shared.settings import settings
from tests.world import table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask.testing import FlaskClient

    from tests.exports_world import Response
    from tests.world import World

    ApiOf = Callable[[str, uuid.UUID | None], FlaskClient]
    Api = Callable[..., Response]


@pytest.fixture
def api(world: World, api_of: ApiOf) -> Api:
    """Calls the API with a method and a path below the webshop's imports, as the webshop's user."""
    client = api_of("imports_api", world.user)

    def call(method: str, path: str = "", **options: Any) -> Response:
        url = f"/webshops/{world.webshop}/imports{path}"
        return cast("Response", client.open(url, method=method, **options))

    return call


def fetch_error_report(api: Api, import_uuid: uuid.UUID) -> list[list[str]]:
    """The error report of an import as a program reads it: the heading, then the rows."""
    response = api("GET", f"/{import_uuid}/errors")
    assert response.status_code == 200
    return list(csv.reader(io.StringIO(response.get_data().decode("utf-8-sig"), newline="")))


# Starting an import


def test_starting_an_import_opens_an_upload_that_the_client_cannot_change(api: Api, world: World) -> None:
    """The server chooses the path and the metadata of the upload. The import exists once its file does."""
    response = api(
        "POST",
        json={"file_name": "../März/prices.csv", "on_error": "abort"},
        headers={"Origin": "https://app.example.com"},
    )

    assert response.status_code == 201
    started = response.json
    path, metadata, origin = json.loads(base64.urlsafe_b64decode(started["upload_url"].rsplit("/", 1)[1]))
    assert path == f"imports/{world.webshop}/{started['uuid']}/März-prices.csv"
    assert metadata == {"user-uuid": str(world.user), "operation": "UPDATE", "on-error": "abort"}
    assert origin == "https://app.example.com"
    assert (started["upload_method"], started["upload_headers"]) == ("PUT", {"Content-Type": "text/csv"})
    assert api("GET", f"/{started['uuid']}").status_code == 404


def test_a_second_import_is_refused_with_the_name_of_the_first(api: Api, world: World) -> None:
    """A webshop has one active import at a time, and the response names it."""
    active_uuid = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(active_uuid)

    response = api("POST", json={"file_name": "more.csv"})

    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert response.json["active_import_uuid"] == str(active_uuid)
    assert "products.csv" in response.json["detail"]


@pytest.mark.parametrize(
    ("body", "status", "detail_part"),
    [
        pytest.param(b"{", 400, "not JSON", id="cut off"),
        pytest.param(b"{}", 422, "file_name", id="no file name"),
        pytest.param(b'{"file_name": ""}', 422, "length >= 1", id="empty file name"),
        pytest.param(b'{"file_name": "a", "operation": "SMASH"}', 422, "SMASH", id="unknown operation"),
        pytest.param(b'{"file_name": "a", "on_error": "ignore"}', 422, "ignore", id="unknown on_error"),
        pytest.param(b'{"file_name": "a", "colour": "red"}', 422, "colour", id="unknown field"),
        pytest.param(b'{"file_name": "a", "size_bytes": 5242881}', 422, "5,242,880", id="too large a file"),
        pytest.param(b'{"file_name": "a", "size_bytes": -1}', 422, ">= 0", id="negative size"),
        pytest.param(b'{"file_name": "' + b"a" * 1_000_000 + b'"}', 413, "1,000,000", id="1 MB"),
        pytest.param(b"\xff\xfe", 400, "not JSON", id="not text"),
    ],
)
def test_refused_input_says_what_is_wrong(api: Api, body: bytes, status: int, detail_part: str) -> None:
    """Refused input is 422, a body that cannot be parsed 400, and each names the fault."""
    response = api("POST", data=body)

    assert response.status_code == status
    assert detail_part in response.json["detail"]
    assert response.json["type"].startswith("/problems/")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({}, "file_name", id="missing"),
        pytest.param({"file_name": "a", "colour": 1}, "colour", id="unknown"),
    ],
)
def test_the_field_at_fault_is_named(api: Api, body: Mapping[str, object], field: str) -> None:
    """A missing field is named too, and so is an unknown one."""
    assert api("POST", json=body).json["field"] == field


# Access


def test_users_of_other_webshops_get_404(api_of: ApiOf, world: World) -> None:
    """404, not 403: a response must not reveal that something exists."""
    ended = world.import_file("identifier,price\r\nA,1\r\n")
    stranger = api_of("imports_api", world.tenants.other_user_uuid)
    imports = f"/webshops/{world.webshop}/imports"
    stranger_imports = f"/webshops/{world.tenants.other_webshop_uuid}/imports"

    responses = [
        stranger.get(imports),
        stranger.post(imports, json={"file_name": "a.csv"}),
        stranger.get(f"{imports}/{ended.uuid}"),
        stranger.post(f"{imports}/{ended.uuid}/retry"),
        stranger.get(f"{imports}/{ended.uuid}/errors"),
        stranger.get(f"{imports}/template"),
    ]

    assert [response.status_code for response in responses] == [404] * len(responses)
    assert stranger.get(f"{stranger_imports}/{ended.uuid}").status_code == 404
    assert stranger.get(stranger_imports).status_code == 200


def test_a_missing_or_invalid_token_is_401(api_of: ApiOf, world: World, token: Callable[..., str]) -> None:
    """Whatever is wrong with the token, the response has a challenge."""
    client = api_of("imports_api", None)
    invalid_headers = {
        "none": "",
        "no bearer": "Basic abc",
        "rubbish": "Bearer rubbish",
        "expired": f"Bearer {token(world.user, exp=1)}",
        "another audience": f"Bearer {token(world.user, aud='somebody-else')}",
        "another issuer": f"Bearer {token(world.user, iss='https://evil.example')}",
        "no user": f"Bearer {token('nobody')}",
        "unsigned": f"Bearer {unsigned_token(world.user)}",
    }

    for case, header in invalid_headers.items():
        response = client.get(f"/webshops/{world.webshop}/imports", headers={"Authorization": header})

        assert (case, response.status_code) == (case, 401)
        assert response.headers["WWW-Authenticate"].startswith("Bearer"), case


def unsigned_token(user: uuid.UUID) -> str:
    """A token whose header says that it has no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, {"sub": str(user), "exp": 9_999_999_999})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{'.'.join(encoded)}."


@pytest.mark.parametrize(
    ("jwks_url", "status"),
    [pytest.param("http://127.0.0.1:1/jwks.json", 503, id="unreachable"), pytest.param("", 500, id="not set")],
)
def test_an_unreachable_identity_provider_is_not_401(
    api: Api, monkeypatch: pytest.MonkeyPatch, jwks_url: str, status: int
) -> None:
    """A merchant must not be asked to log in again when the settings or the provider are at fault."""
    monkeypatch.setenv("TOKEN_JWKS_URL", jwks_url)
    settings.cache_clear()

    response = api("GET")

    assert response.status_code == status


# Reading imports


def test_the_list_pages_newest_first_and_filters_by_status(api: Api, world: World) -> None:
    """Keyset paging: every import appears once, in order, for any page size."""
    failed = [str(world.import_file("identifier,price\r\nA,1\r\n").uuid) for _ in range(4)]
    completed = str(world.import_file(table([["identifier", "price"], [world.identifiers(1)[0], "1"]])).uuid)

    pages = []
    cursor: str | None = ""
    while cursor is not None:
        page = api("GET", f"?limit=2&cursor={cursor}").json
        pages.append([item["uuid"] for item in page["items"]])
        cursor = page["next_cursor"]

    assert pages == [[completed, failed[3]], [failed[2], failed[1]], [failed[0]]]
    filtered = api("GET", "?status=COMPLETED").json
    assert [item["uuid"] for item in filtered["items"]] == [completed]
    for query in ("limit=0", "limit=201", "status=DONE", "cursor=x", "colour=red"):
        assert api("GET", f"?{query}").status_code == 422, query


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2020-01-01T00:00:00"])
def test_a_crafted_cursor_has_no_effect_on_later_responses(api: Api, world: World, timestamp: str) -> None:
    """Whatever a cursor contains, the connection to the database stays usable."""
    ended = world.import_file("identifier,price\r\nnowhere,1\r\n")
    cursor = base64.urlsafe_b64encode(json.dumps([timestamp, str(uuid.uuid4())]).encode()).decode().rstrip("=")

    for _ in range(5):
        assert api("GET", f"?cursor={cursor}").status_code in (200, 422)
        assert api("GET", f"/{ended.uuid}").json["uuid"] == str(ended.uuid)


def test_an_import_has_every_field_of_the_contract(api: Api, world: World) -> None:
    """The encoding, the delimiter and the skipped columns of the file are among them."""
    ended = world.import_file("Identifier;Price;Created at\r\nA;1,50;x\r\n".encode("utf-16"))

    body = api("GET", f"/{ended.uuid}").json

    assert set(body) == {
        "uuid", "webshop_uuid", "user_uuid", "file_name", "operation", "on_error", "status", "reason", "run",
        "skipped_columns", "total_rows", "updated_rows", "unchanged_rows", "failed_rows", "progress_percent",
        "processing_step", "processing_offset", "encoding", "delimiter", "created_at", "updated_at", "finished_at",
    }  # fmt: skip
    assert (body["encoding"], body["delimiter"], body["skipped_columns"]) == ("UTF-16", ";", ["Created at"])
    assert (body["status"], body["progress_percent"], body["processing_offset"]) == (
        Status.FAILED_WITH_VALIDATION_ERRORS,
        100,
        1,
    )
    assert body["created_at"].endswith("Z")


# The error report


def test_the_corrected_error_report_can_be_imported(api: Api, world: World) -> None:
    """It has every failed row once: the cells as they are in the file, then the errors."""
    one, two, three, four = world.identifiers(4)
    first = world.import_file(
        table(
            [
                ["identifier", "price", "name"],
                [one, "1.00", "good"],
                [two, "cheap", "=1+1"],
                ["nowhere", "1.00", "-5"],
                [three, "1.234", "@risk"],
                [four, "7", "two", "many"],
            ]
        )
    )

    heading, *rows = fetch_error_report(api, first.uuid)

    assert heading == ["identifier", "price", "name", "Row number", "Error columns", "Error codes", "Errors"]
    assert [row[:6] for row in rows] == [
        [two, "cheap", "'=1+1", "3", "price", "not_a_number"],
        ["nowhere", "1.00", "-5", "4", "identifier", "not_found"],
        [three, "1.234", "'@risk", "5", "price", "ambiguous_number"],
        [four, "7", "two", "many", "6", ""],
    ]
    assert "cheap" in rows[0][6]

    rows[0][1], rows[2][1], rows[1][0] = "2.00", "3.00", four
    second = world.import_file(table([heading, *rows]))
    assert (second.status, second.updated_rows, second.failed_rows) == (Status.COMPLETED_WITH_ERRORS, 3, 1)
    assert world.products("name")[two] == "=1+1"
    assert world.products("name")[four] == "-5"
    assert second.skipped_columns == ("Row number", "Error columns", "Error codes", "Errors")
    assert fetch_error_report(api, second.uuid)[0] == heading


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param("-1 000", id="space inside"),
        pytest.param("-5 ", id="space at the end"),
        pytest.param("\t5", id="tab"),
        pytest.param("-1'000", id="apostrophe inside"),
        pytest.param("+7", id="plus sign"),
    ],
)
def test_a_number_in_the_error_report_can_be_imported(api: Api, world: World, cell: str) -> None:
    """A row is corrected in another column, and its number is uploaded as the report has it."""
    (one,) = world.identifiers(1)
    first = world.import_file(table([["identifier", "stock_on_hand", "price"], [one, cell, "cheap"]]))

    heading, row = fetch_error_report(api, first.uuid)
    row[2] = "1"
    second = world.import_file(table([heading, row]))

    assert (second.status, second.failed_rows) == (Status.COMPLETED, 0), world.errors(second.uuid)


def test_the_error_report_of_a_deleted_file_has_row_numbers_and_errors(api: Api, world: World) -> None:
    """Only the cells are missing."""
    ended = world.import_file("identifier,price\r\nnowhere,1\r\n")
    world.bucket.objects.clear()

    heading, row = fetch_error_report(api, ended.uuid)

    assert heading == ["Row number", "Error columns", "Error codes", "Errors"]
    assert row[:3] == ["2", "identifier", "not_found"]


def test_the_error_report_of_a_refused_file_has_the_reason(api: Api, world: World) -> None:
    """Here the heading is at fault and not a row: one line has the reason."""
    ended = world.import_file("identifier,prise\r\nA,1\r\n")

    _, row = fetch_error_report(api, ended.uuid)

    assert row[3] == ended.reason
    assert "price" in ended.reason


def test_the_error_report_of_a_refused_operation_has_the_reason(api: Api, world: World) -> None:
    """The file is correct and was not validated: the report has the reason instead of no line."""
    ended = world.import_file("identifier,price\r\nA,1\r\n", operation="INSERT")

    heading, row = fetch_error_report(api, ended.uuid)

    assert (heading[0], row[-1]) == ("identifier", ended.reason)


def test_the_error_report_does_not_read_a_file_that_is_too_large(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may put gigabytes into the bucket; they are never read into memory."""
    ended = world.import_file(b"identifier,price\r\n" + b"x" * 5_300_000)

    def fail(*_: object) -> NoReturn:
        raise AssertionError("the file was read")

    monkeypatch.setattr(world.bucket, "read", fail)

    _, row = fetch_error_report(api, ended.uuid)

    assert row[3] == ended.reason


def test_the_error_report_of_many_rows_has_each_row_once(api: Api, world: World) -> None:
    """The errors are fetched in pages: no row is lost or repeated between two pages."""
    ended = world.import_file("identifier,price\r\n" + "".join(f"A-{number},x\r\n" for number in range(4500)))

    _, *rows = fetch_error_report(api, ended.uuid)

    assert [int(row[2]) for row in rows] == list(range(2, 4502))


def test_the_template_can_be_imported(api: Api, world: World) -> None:
    """It has every column. With identifiers of the webshop in it, it is imported without another change."""
    response = api("GET", "/template")
    content = response.get_data().decode("utf-8-sig")
    one, two = world.identifiers(2)

    ended = world.import_file(content.replace("P-1001", one).replace("P-1002", two))

    assert "attachment" in response.headers["Content-Disposition"]
    assert (ended.status, ended.updated_rows) == (Status.COMPLETED, 2), ended.reason


# Retries


def test_only_a_final_import_with_failed_rows_can_be_retried(api: Api, world: World) -> None:
    """A completed or active import is 409, an unknown one 404. While another import is active, 409 names that one."""
    completed = world.import_file(table([["identifier", "price"], [world.identifiers(1)[0], "1"]]))
    failed = world.import_file("identifier,price\r\nnowhere,1\r\n")
    active_uuid = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(active_uuid)

    assert api("POST", f"/{completed.uuid}/retry").status_code == 409
    assert api("POST", f"/{uuid.uuid4()}/retry").status_code == 404
    assert api("POST", f"/{active_uuid}/retry").status_code == 409
    refused = api("POST", f"/{failed.uuid}/retry")
    assert (refused.status_code, refused.json["active_import_uuid"]) == (409, str(active_uuid))

    world.run()
    accepted = api("POST", f"/{failed.uuid}/retry")
    assert (accepted.status_code, accepted.json["status"], accepted.json["run"]) == (202, "IN_QUEUE", 2)
    assert accepted.json["total_rows"] == 0
    world.run()
    assert world.find(failed.uuid).status == Status.FAILED_WITH_VALIDATION_ERRORS


def test_a_retry_is_accepted_while_the_broker_is_down(api: Api, world: World) -> None:
    """The next run is recorded, and sweep sends its trigger later."""
    failed = world.import_file("identifier,price\r\nnowhere,1\r\n")
    world.broker.down = True

    response = api("POST", f"/{failed.uuid}/retry")

    assert (response.status_code, response.json["status"]) == (202, "IN_QUEUE")
    world.broker.down = False
    world.recover()
    assert world.find(failed.uuid).run == 2


# Errors


def test_an_unexpected_error_is_a_problem_with_a_reference(
    api: Api, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The response has no traceback and no names of tables; the reference is in the log."""
    world.change("service", "drop table imports cascade")

    response = api("GET")

    assert response.status_code == 500
    assert response.content_type == "application/problem+json"
    reference = response.json["detail"].rsplit(" ", 1)[1]
    assert reference in caplog.text
    assert "imports" not in response.json["detail"].replace("reference", "")


def test_a_system_that_does_not_respond_is_503(api: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response says after how many seconds to try again."""

    def fail(*_: object) -> NoReturn:
        raise Unavailable("no answer")

    monkeypatch.setattr(world.bucket, "open_upload", fail)

    response = api("POST", json={"file_name": "a.csv"})

    assert (response.status_code, response.json["type"]) == (503, "/problems/unavailable")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("DELETE", "imports", 405, id="unknown method"),
        pytest.param("GET", "nothing", 404, id="unknown path"),
    ],
)
def test_unknown_paths_and_methods_are_problems(
    api_of: ApiOf, world: World, method: str, path: str, status: int
) -> None:
    """A request that matches no route gets a problem too."""
    response = api_of("imports_api", world.user).open(f"/webshops/{world.webshop}/{path}", method=method)

    assert response.status_code == status
    assert response.content_type == "application/problem+json"
