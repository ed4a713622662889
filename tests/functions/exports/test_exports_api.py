"""exports_api: a client requests, finds, lists and deletes exports."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import pytest

from functions.exports.requests import CreateExport
from functions.exports.sources import SOURCES
from shared.messages import ExportHistory, ExportRequest
from tests.exports_world import ExportsWorld, Proxy, csv_rows

if TYPE_CHECKING:
    from tests.conftest import Databases
    from tests.exports_world import Response

FIELDS = {
    "uuid", "name", "created_at", "updated_at", "deleted_at", "status", "webshop_uuid", "user_uuid", "source",
    "file_uri", "file_type", "rows", "size_bytes", "progress_rows", "download_url", "error",
}  # fmt: skip
REQUEST = {"source": "suppliers", "file_type": "CSV", "file_name": "suppliers"}


def test_an_export_is_rendered_while_the_client_waits(exports: ExportsWorld) -> None:
    """The response is 201 with the finished export. Its file has the requested name."""
    response = exports.ask(file_name="All suppliers")

    export = response.json
    assert response.status_code == 201
    assert response.headers["Location"] == f"/webshops/{exports.webshop}/exports/{export['uuid']}"
    assert set(export) == FIELDS
    assert (export["status"], export["name"], export["error"]) == ("COMPLETED", "All suppliers.csv", "")
    file = exports.call("GET", export["download_url"].partition("/exports")[2])
    assert file.status_code == 200
    assert len(file.data) == export["size_bytes"]
    assert len(csv_rows(file.data)) == export["rows"] + 1 > 1


@pytest.mark.parametrize(
    ("file_type", "name", "content_type"),
    [
        pytest.param("csv", "orders.csv", "text/csv; charset=utf-8", id="csv"),
        pytest.param(
            "Xlsx", "orders.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", id="Xlsx"
        ),
        pytest.param("PDF", "orders.pdf", "application/pdf", id="PDF"),
    ],
)
def test_each_file_type_has_its_ending_and_media_type(
    exports: ExportsWorld, file_type: str, name: str, content_type: str
) -> None:
    """A request may write the file type, and the ending of the name, in upper or lower case."""
    export = exports.ask(source="buy_orders", file_type=file_type, file_name=name.upper()).json

    file = exports.download(export["uuid"])

    assert (export["file_type"], export["name"]) == (file_type.upper(), name.replace("orders", "ORDERS"))
    assert (file.status_code, file.content_type) == (200, content_type)


def test_an_export_is_rendered_later_if_the_client_prefers_that(exports: ExportsWorld) -> None:
    """The response is 202 at once. There is no file until export_render has received the request."""
    response = exports.ask({"Prefer": "wait=10, Respond-Async"})

    export = response.json
    assert (response.status_code, export["status"], export["download_url"]) == (202, "PENDING", None)
    assert response.headers["Preference-Applied"] == "respond-async"
    assert exports.download(export["uuid"]).status_code == 409
    exports.run()
    assert exports.get(export["uuid"])["status"] == "COMPLETED"
    assert exports.download(export["uuid"]).status_code == 200
    exports.assert_settled()


def test_every_change_is_sent_to_the_history_with_a_higher_version(exports: ExportsWorld) -> None:
    """The export is requested, claimed, completed and deleted. Each record is complete."""
    export_uuid = exports.ask_later()["uuid"]
    exports.run()
    exports.call("DELETE", f"/{export_uuid}")

    records = [message for message in exports.broker.sent if isinstance(message, ExportHistory)]

    assert [record.version for record in records] == [1, 2, 3, 4]
    assert [record.status for record in records] == ["PENDING", "RENDERING", "COMPLETED", "COMPLETED"]
    assert [record.file_uri is not None for record in records] == [False, False, True, False]
    assert [record.deleted_at is not None for record in records] == [False, False, False, True]


def test_the_same_key_gives_the_same_export(exports: ExportsWorld) -> None:
    """A client that did not get the response can send the request again."""
    key = {"Idempotency-Key": str(uuid.uuid4())}

    first, second = exports.ask(key), exports.ask(key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["uuid"] == second.json["uuid"]
    assert exports.rows("service", "select count(*) from exports") == [(1,)]


def test_the_same_key_of_a_later_export_requests_it_once(exports: ExportsWorld) -> None:
    """The client that asks again gets the export that waits, and no second one is rendered."""
    headers = {"Idempotency-Key": "k", "Prefer": "respond-async"}

    first, second = exports.ask(headers), exports.ask(headers)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json["uuid"] == second.json["uuid"]
    assert len(exports.broker.of(ExportRequest)) == 1


def test_the_same_key_during_the_rendering_gives_the_unfinished_export(exports: ExportsWorld) -> None:
    """The response to the second request is 202."""
    key = {"Idempotency-Key": "k"}
    responses: list[Response] = []

    def ask_again() -> None:
        if not responses:
            responses.append(exports.ask(key))

    exports.storage.before_publish = ask_again
    first = exports.ask(key)

    (second,) = responses
    assert (second.status_code, second.json["status"], second.json["uuid"]) == (202, "RENDERING", first.json["uuid"])
    assert (first.status_code, first.json["status"]) == (201, "COMPLETED")


def test_concurrent_requests_with_the_same_key_create_one_export(exports: ExportsWorld) -> None:
    """All responses name the same export."""
    responses: list[Response] = []

    exports.at_once(*[lambda: responses.append(exports.ask({"Idempotency-Key": "k"}))] * 4)

    assert {response.status_code for response in responses} <= {201, 202}
    assert len({response.json["uuid"] for response in responses}) == 1
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


def test_the_same_key_with_another_body_is_refused(exports: ExportsWorld) -> None:
    """A key is valid for one request."""
    exports.ask({"Idempotency-Key": "k"})

    response = exports.ask({"Idempotency-Key": "k"}, file_name="other")

    assert response.status_code == 422
    assert response.json["type"].endswith("/idempotency-key-reused")
    assert response.json["field"] == "Idempotency-Key"


def test_a_key_belongs_to_its_user_and_webshop(exports: ExportsWorld) -> None:
    """Another user with the same key gets another export."""
    first = exports.ask({"Idempotency-Key": "k"})

    second = exports.call(
        "POST",
        "",
        user=exports.tenants.other_user_uuid,
        webshop=exports.tenants.other_webshop_uuid,
        json=REQUEST,
        headers={"Idempotency-Key": "k"},
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["uuid"] != second.json["uuid"]


@pytest.mark.parametrize("key", [pytest.param("", id="empty"), pytest.param("k" * 256, id="256 characters")])
def test_an_invalid_key_is_refused(exports: ExportsWorld, key: str) -> None:
    response = exports.ask({"Idempotency-Key": key})

    assert (response.status_code, response.json["field"]) == (422, "Idempotency-Key")


def test_exports_of_another_webshop_are_not_found(exports: ExportsWorld) -> None:
    """A user without access gets 404, before the body is read, and does not learn that the webshop exists."""
    path = f"/{exports.ask().json['uuid']}"
    other_user: dict[str, Any] = {"user": exports.tenants.other_user_uuid}

    for method, foreign_path in (("GET", ""), ("POST", ""), ("GET", path), ("DELETE", path)):
        assert exports.call(method, foreign_path, data=b"no json", **other_user).status_code == 404
    assert exports.call("GET", f"{path}/download", **other_user).status_code == 404

    other_user["webshop"] = exports.tenants.other_webshop_uuid
    for method, own_path in (("GET", path), ("DELETE", path), ("GET", f"{path}/download")):
        assert exports.call(method, own_path, **other_user).status_code == 404
    assert exports.call("GET", "", **other_user).json["items"] == []
    assert exports.call("GET", path).json["status"] == "COMPLETED"


def test_a_webshop_without_the_feature_gets_a_reason(exports: ExportsWorld) -> None:
    """Every path responds with 403 and names the feature."""
    webshop = exports.tenants.featureless_webshop_uuid
    for method, path in (("POST", ""), ("GET", ""), ("GET", f"/{uuid.uuid4()}"), ("GET", f"/{uuid.uuid4()}/download")):
        response = exports.call(method, path, json=REQUEST if method == "POST" else None, webshop=webshop)

        assert response.status_code == 403
        assert "exports" in response.json["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"", 422),
        (b" " * 10_000_000, 413),
    ],
    ids=["cut off", "not text", "a list", "empty", "10 MB"],
)
def test_a_body_that_is_not_a_request_is_refused(exports: ExportsWorld, body: bytes, status: int) -> None:
    response = exports.call("POST", "", data=body)

    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert exports.rows("service", "select count(*) from exports") == [(0,)]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        pytest.param({"columns": ["name", "passwd"]}, "columns[1]", id="columns"),
        pytest.param(
            {"filters": [{"column": "name", "operator": "eq", "value": "x"}] * 10_000}, "filters", id="filters"
        ),
        pytest.param({"source": "users; drop table products"}, "source", id="source"),
        pytest.param({"file_type": "PDF"}, "file_type", id="file_type"),
        pytest.param({"parents": {"supplier_uuid": "x"}}, "parents[...]", id="parents"),
        pytest.param({"surprise": 1}, "surprise", id="unknown field"),
    ],
)
def test_an_invalid_request_creates_no_export(
    exports: ExportsWorld, request_fields: dict[str, Any], field: str
) -> None:
    """The response names the field that is wrong. Nothing is recorded and nothing is sent."""
    response = exports.ask(**request_fields)

    assert (response.status_code, response.json.get("field", "")) == (422, field)
    assert len(response.json["detail"]) < 1000
    assert exports.rows("service", "select count(*) from exports") == [(0,)]
    assert exports.broker.sent == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param('Ünïcödé "prices" / 2026\r\nX-Evil: 1 ../../x', id="header and path injection"),
        pytest.param("\x00", id="NUL"),
        pytest.param("..", id="parent folder"),
        pytest.param("a" * 300, id="300 characters"),
        pytest.param("", id="empty"),
        pytest.param("価格", id="Japanese"),
    ],
)
def test_any_file_name_is_made_safe(exports: ExportsWorld, name: str) -> None:
    """The object's name is one part of its path. The stored request has the name that the user typed."""
    response = exports.ask(file_name=name)

    export = response.json
    assert response.status_code == 201, export
    *folder, file = export["file_uri"].removeprefix(exports.storage.uri("")).split("/")
    assert folder == ["exports", str(exports.webshop), export["uuid"], "1"]
    assert file == export["name"]
    assert ".." not in file
    headers = exports.download(export["uuid"]).headers
    assert "X-Evil" not in headers
    stored_request = msgspec.json.decode(exports.row(export["uuid"])["request"], type=CreateExport)
    assert stored_request.file_name == name


def test_the_list_shows_the_history_in_pages(exports: ExportsWorld) -> None:
    """The newest export comes first. An export that is added later does not shift the items of the next pages."""
    uuids = [exports.ask(file_name=f"number {number}").json["uuid"] for number in range(5)]
    exports.run()

    first = exports.call("GET", "?limit=2").json
    exports.ask(file_name="meanwhile")
    exports.run()
    second = exports.call("GET", f"?limit=2&cursor={first['next_cursor']}").json
    third = exports.call("GET", f"?limit=2&cursor={second['next_cursor']}").json

    pages = [[item["uuid"] for item in page["items"]] for page in (first, second, third)]
    assert pages == [uuids[:2:-1], uuids[2:0:-1], uuids[:1]]
    assert third["next_cursor"] is None
    assert set(first["items"][0]) == FIELDS


def test_the_list_can_be_filtered(exports: ExportsWorld) -> None:
    """The filters are state, source, user and time."""
    suppliers = exports.ask().json
    promotions = exports.ask_later(source="promotions", file_name="p")
    exports.broker.take(ExportRequest)
    exports.run()

    def list_uuids(**query: str) -> list[str]:
        response = exports.call("GET", "", query_string=query)
        assert response.status_code == 200, response.json
        return [item["uuid"] for item in response.json["items"]]

    assert list_uuids() == [promotions["uuid"], suppliers["uuid"]]
    assert list_uuids(status="COMPLETED") == [suppliers["uuid"]]
    assert list_uuids(status="PENDING", source="promotions") == [promotions["uuid"]]
    assert list_uuids(user_uuid=str(exports.user), source="suppliers") == [suppliers["uuid"]]
    assert list_uuids(user_uuid=str(uuid.uuid4())) == []
    assert list_uuids(created_from=promotions["created_at"]) == [promotions["uuid"]]
    assert list_uuids(created_before=promotions["created_at"]) == [suppliers["uuid"]]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "status=DONE",
        "cursor=nonsense",
        pytest.param("cursor=é", id="cursor not ASCII"),
        "nonsense=1",
        "created_from=may",
    ],
)
def test_an_invalid_query_is_refused(exports: ExportsWorld, query: str) -> None:
    response = exports.call("GET", f"?{query}")

    assert response.status_code == 422
    assert response.content_type == "application/problem+json"


def test_an_export_is_found_before_the_history_has_it(exports: ExportsWorld) -> None:
    """An export is found by its own row. The list shows it as soon as the history has it."""
    export = exports.ask().json

    assert exports.get(export["uuid"])["status"] == "COMPLETED"
    assert exports.call("GET", "").json["items"] == []
    exports.run()
    assert [item["uuid"] for item in exports.call("GET", "").json["items"]] == [export["uuid"]]


def test_a_deleted_export_stays_in_the_history(exports: ExportsWorld) -> None:
    """The file is deleted and the export is not found any more. The history has the time of the deletion."""
    export_uuid = exports.ask().json["uuid"]
    exports.run()

    assert exports.call("DELETE", f"/{export_uuid}").status_code == 204

    assert exports.files() == set()
    assert exports.call("GET", f"/{export_uuid}").status_code == 404
    assert exports.download(export_uuid).status_code == 404
    assert exports.call("DELETE", f"/{export_uuid}").status_code == 404
    assert exports.call("GET", "").json["items"] == []
    exports.recover()
    exports.assert_settled()
    ((deleted_at,),) = exports.rows("service", "select deleted_at from export_history")
    assert deleted_at is not None


def test_an_export_that_is_deleted_during_the_rendering_has_no_file(exports: ExportsWorld) -> None:
    """The worker notices the deletion when it completes the export. Its client gets 404."""

    def delete_export() -> None:
        ((export_uuid,),) = exports.rows("service", "select uuid from exports")
        exports.call("DELETE", f"/{export_uuid}")

    exports.storage.before_publish = delete_export

    response = exports.ask()

    assert response.status_code == 404
    assert exports.files() == set()
    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select status, error from exports") == [
        ("FAILED", "The export was deleted before it was finished.")
    ]


def test_an_export_that_is_deleted_before_the_rendering_has_no_file(exports: ExportsWorld) -> None:
    """The request arrives later, and the worker has nothing to do."""
    export_uuid = exports.ask_later()["uuid"]

    assert exports.call("DELETE", f"/{export_uuid}").status_code == 204
    exports.recover()

    assert exports.files() == set()
    exports.assert_settled()


def test_the_key_of_a_deleted_export_still_finds_it(exports: ExportsWorld) -> None:
    """The request was fulfilled once, and the response shows that the export was deleted."""
    key = {"Idempotency-Key": "k"}
    export_uuid = exports.ask(key).json["uuid"]
    exports.call("DELETE", f"/{export_uuid}")

    again = exports.ask(key)

    assert again.json["uuid"] == export_uuid
    assert again.json["deleted_at"] is not None
    assert again.json["download_url"] is None


def test_every_listed_source_can_be_exported(exports: ExportsWorld) -> None:
    """A request may name every listed column, and sort by every sortable one."""
    response = exports.call("GET", "", collection="export-sources")

    sources = {source["key"]: source for source in response.json["items"]}
    assert set(sources) == set(SOURCES)
    for key, source in sources.items():
        columns = [column["key"] for column in source["columns"]]
        sorts = [{"column": column["key"]} for column in source["columns"] if column["sortable"]]
        export = exports.ask(source=key, file_type=source["file_types"][0], columns=columns, sorts=sorts)
        assert export.status_code == 201, export.json


def test_filters_that_are_nested_too_deeply_are_refused(exports: ExportsWorld) -> None:
    """Ten thousand nested filters are a mistake of the client, and the response says so."""
    body = b'{"source":"suppliers","file_type":"CSV","file_name":"x","filters":[' + b'{"any":[' * 10_000

    response = exports.call("POST", "", data=body)

    assert 400 <= response.status_code < 500
    assert response.content_type == "application/problem+json"


def test_without_the_product_database_an_export_is_unavailable(
    exports: ExportsWorld, fresh_databases: Databases
) -> None:
    """The response is 503."""
    proxy = Proxy(urlsplit(fresh_databases.product_url).netloc.rpartition("@")[2])
    exports.connect_through(proxy, "product", fresh_databases.product_url)
    proxy.close()

    response = exports.ask()

    assert (response.status_code, response.content_type) == (503, "application/problem+json")
