"""exports_api: what a client of the API meets."""

import uuid
from urllib.parse import urlsplit

import pytest

from functions.exports.requests import CreateExport
from functions.exports.sources import SOURCES
from shared.messages import ExportHistory, ExportRequest
from tests.exports_world import Proxy, csv_rows

FIELDS = {
    "uuid", "name", "created_at", "updated_at", "deleted_at", "status", "webshop_uuid", "user_uuid", "source",
    "file_uri", "file_type", "rows", "size_bytes", "progress_rows", "download_url", "error",
}  # fmt: skip
ASKED = {"source": "suppliers", "file_type": "CSV", "file_name": "suppliers"}


def test_an_export_is_made_while_the_client_waits(exports):
    """201 with the finished export: its file is there, under the name that was typed."""
    answer = exports.ask(file_name="All suppliers")

    made = answer.json
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/webshops/{exports.webshop}/exports/{made['uuid']}"
    assert set(made) == FIELDS
    assert (made["status"], made["name"], made["error"]) == ("COMPLETED", "All suppliers.csv", "")
    file = exports.call("GET", made["download_url"].partition("/exports")[2])
    assert file.status_code == 200
    assert len(file.data) == made["size_bytes"]
    assert len(csv_rows(file.data)) == made["rows"] + 1 > 1


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
def test_each_type_of_file_is_called_what_it_is(exports, file_type, name, content_type):
    """Asked for in any case, with its ending or without."""
    made = exports.ask(source="buy_orders", file_type=file_type, file_name=name.upper()).json

    file = exports.download(made["uuid"])

    assert (made["file_type"], made["name"]) == (file_type.upper(), name.replace("orders", "ORDERS"))
    assert (file.status_code, file.content_type) == (200, content_type)


def test_an_export_is_made_later_where_the_client_prefers_that(exports):
    """202 at once, and the file comes with the request's delivery."""
    answer = exports.ask({"Prefer": "wait=10, Respond-Async"})

    asked = answer.json
    assert (answer.status_code, asked["status"], asked["download_url"]) == (202, "PENDING", None)
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert exports.download(asked["uuid"]).status_code == 409
    exports.run()
    assert exports.get(asked["uuid"])["status"] == "COMPLETED"
    assert exports.download(asked["uuid"]).status_code == 200
    exports.assert_settled()


def test_every_change_goes_to_the_history_with_a_higher_version(exports):
    """Asked for, claimed, completed, deleted: the record is whole each time."""
    asked = exports.ask_later()
    exports.run()
    exports.call("DELETE", f"/{asked['uuid']}")

    records = exports.broker.of(ExportHistory)

    assert [record.version for record in records] == [1, 2, 3, 4]
    assert [record.status for record in records] == ["PENDING", "RENDERING", "COMPLETED", "COMPLETED"]
    assert [record.file_uri is not None for record in records] == [False, False, True, False]
    assert [record.deleted_at is not None for record in records] == [False, False, False, True]


def test_the_same_key_gives_the_same_export(exports):
    """A client that did not hear the answer asks again, and is not charged twice."""
    key = {"Idempotency-Key": str(uuid.uuid4())}

    first, second = exports.ask(key), exports.ask(key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["uuid"] == second.json["uuid"]
    assert exports.rows("service", "select count(*) from exports") == [(1,)]


def test_the_same_key_while_the_first_is_rendered_is_accepted(exports):
    """202 with the one that is being made."""
    key = {"Idempotency-Key": "k"}
    meanwhile = []

    def ask_again() -> None:
        if not meanwhile:
            meanwhile.append(exports.ask(key))

    exports.storage.before_publish = ask_again
    first = exports.ask(key)

    (second,) = meanwhile
    assert (second.status_code, second.json["status"], second.json["uuid"]) == (202, "RENDERING", first.json["uuid"])
    assert (first.status_code, first.json["status"]) == (201, "COMPLETED")


def test_the_same_key_at_the_same_moment_makes_one_export(exports):
    """Two clicks, one row: the database decides."""
    answers = []

    exports.at_once(*[lambda: answers.append(exports.ask({"Idempotency-Key": "k"}))] * 4)

    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.json["uuid"] for answer in answers}) == 1
    exports.recover()
    exports.assert_settled()
    assert len(exports.files()) == 1


def test_the_same_key_with_another_body_is_refused(exports):
    """The key names one request; a change in it is a mistake of the client's."""
    exports.ask({"Idempotency-Key": "k"})

    answer = exports.ask({"Idempotency-Key": "k"}, file_name="other")

    assert answer.status_code == 422
    assert answer.json["type"].endswith("/idempotency-key-reused")
    assert answer.json["field"] == "Idempotency-Key"


def test_a_key_belongs_to_its_user_and_webshop(exports):
    """Somebody else's key never shows somebody else's export."""
    first = exports.ask({"Idempotency-Key": "k"})
    asked = {"json": ASKED, "headers": {"Idempotency-Key": "k"}}
    other = {"user": exports.tenants.other_user_uuid, "webshop": exports.tenants.other_webshop_uuid}

    second = exports.call("POST", "", **asked, **other)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["uuid"] != second.json["uuid"]


@pytest.mark.parametrize("key", [pytest.param("", id="empty"), pytest.param("k" * 256, id="256 characters")])
def test_a_key_that_is_none_is_refused(exports, key):
    answer = exports.ask({"Idempotency-Key": key})

    assert (answer.status_code, answer.json["field"]) == (422, "Idempotency-Key")


def test_another_webshop_does_not_exist(exports):
    """Who has nothing to do with it learns nothing of it: 404 before anything else is looked at."""
    made = exports.ask().json
    stranger = {"user": exports.tenants.other_user_uuid}

    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{made['uuid']}"), ("DELETE", f"/{made['uuid']}")):
        assert exports.call(method, path, data=b"no json", **stranger).status_code == 404
    assert exports.call("GET", f"/{made['uuid']}/download", **stranger).status_code == 404
    there = {**stranger, "webshop": exports.tenants.other_webshop_uuid}
    for method, path in (
        ("GET", f"/{made['uuid']}"),
        ("DELETE", f"/{made['uuid']}"),
        ("GET", f"/{made['uuid']}/download"),
    ):
        assert exports.call(method, path, **there).status_code == 404
    assert exports.call("GET", "", **there).json["items"] == []
    assert exports.get(made["uuid"])["status"] == "COMPLETED"


def test_a_webshop_without_the_feature_is_told_so(exports):
    """403 with a sentence, for every address."""
    webshop = {"webshop": exports.tenants.featureless_webshop_uuid}
    for method, path in (("POST", ""), ("GET", ""), ("GET", f"/{uuid.uuid4()}"), ("GET", f"/{uuid.uuid4()}/download")):
        answer = exports.call(method, path, json=ASKED if method == "POST" else None, **webshop)

        assert answer.status_code == 403
        assert "exports" in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"", 422),
        (b" " * 10_000_000, 413),
    ],
    ids=["broken", "no text", "a list", "nothing", "10 MB"],
)
def test_a_body_that_is_no_request_is_refused(exports, body, status):
    answer = exports.call("POST", "", data=body)

    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert exports.rows("service", "select count(*) from exports") == [(0,)]


@pytest.mark.parametrize(
    ("asked", "field"),
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
def test_what_cannot_be_given_leaves_no_export(exports, asked, field):
    """A refused request is answered with the part at fault, and recorded nowhere."""
    answer = exports.ask(**asked)

    assert (answer.status_code, answer.json.get("field", "")) == (422, field)
    assert len(answer.json["detail"]) < 1000
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
def test_any_file_name_is_made_safe(exports, name):
    """The object's name is one part of its path, whatever was typed; the request is kept as it was typed."""
    answer = exports.ask(file_name=name)

    made = answer.json
    assert answer.status_code == 201, made
    *folder, file = made["file_uri"].removeprefix(exports.storage.uri("")).split("/")
    assert folder == ["exports", str(exports.webshop), made["uuid"], "1"]
    assert file == made["name"]
    assert ".." not in file
    headers = exports.download(made["uuid"]).headers
    assert "X-Evil" not in headers
    assert (
        CreateExport(**ASKED | {"file_name": name}).file_name in exports.row(made["uuid"])["request"]
        or "\x00" in name
        or '"' in name
    )


def test_the_list_is_the_history_newest_first_in_pages(exports):
    """Pages meet without a gap, and what is added meanwhile shifts nothing."""
    made = [exports.ask(file_name=f"number {number}").json["uuid"] for number in range(5)]
    exports.run()

    first = exports.call("GET", "?limit=2").json
    exports.ask(file_name="meanwhile")
    exports.run()
    second = exports.call("GET", f"?limit=2&cursor={first['next_cursor']}").json
    third = exports.call("GET", f"?limit=2&cursor={second['next_cursor']}").json

    pages = [[item["uuid"] for item in page["items"]] for page in (first, second, third)]
    assert pages == [made[:2:-1], made[2:0:-1], made[:1]]
    assert third["next_cursor"] is None
    assert set(first["items"][0]) == FIELDS


def test_the_list_can_be_narrowed(exports):
    """By state, source, user and time."""
    suppliers = exports.ask().json
    promotions = exports.ask_later(source="promotions", file_name="p")
    for message in exports.broker.take(ExportRequest):
        exports.broker.waiting = type(exports.broker.waiting)(m for m in exports.broker.waiting if m is not message)
    exports.run()

    def listed(**query: str) -> list[str]:
        answer = exports.call("GET", "", query_string=query)
        assert answer.status_code == 200, answer.json
        return [item["uuid"] for item in answer.json["items"]]

    assert listed() == [promotions["uuid"], suppliers["uuid"]]
    assert listed(status="COMPLETED") == [suppliers["uuid"]]
    assert listed(status="PENDING", source="promotions") == [promotions["uuid"]]
    assert listed(user_uuid=str(exports.user), source="suppliers") == [suppliers["uuid"]]
    assert listed(user_uuid=str(uuid.uuid4())) == []
    assert listed(created_from=promotions["created_at"]) == [promotions["uuid"]]
    assert listed(created_before=promotions["created_at"]) == [suppliers["uuid"]]


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
def test_a_query_that_makes_no_sense_is_refused(exports, query):
    answer = exports.call("GET", f"?{query}")

    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"


def test_an_export_is_found_before_its_history_is(exports):
    """Its own row answers at once; the list follows the history."""
    made = exports.ask().json

    assert exports.get(made["uuid"])["status"] == "COMPLETED"
    assert exports.call("GET", "").json["items"] == []
    exports.run()
    assert [item["uuid"] for item in exports.call("GET", "").json["items"]] == [made["uuid"]]


def test_a_deleted_export_is_gone_at_once_and_stays_in_the_history(exports):
    """The file is removed, nobody finds or lists it, and the record says when."""
    made = exports.ask().json
    exports.run()

    assert exports.call("DELETE", f"/{made['uuid']}").status_code == 204

    assert exports.files() == set()
    assert exports.call("GET", f"/{made['uuid']}").status_code == 404
    assert exports.download(made["uuid"]).status_code == 404
    assert exports.call("DELETE", f"/{made['uuid']}").status_code == 404
    assert exports.call("GET", "").json["items"] == []
    exports.recover()
    exports.assert_settled()
    ((deleted_at,),) = exports.rows("service", "select deleted_at from export_history")
    assert deleted_at is not None


def test_an_export_deleted_while_it_is_made_publishes_nothing(exports):
    """The one who makes it finds that out when it is done; its client gets 404, as everybody does."""
    exports.storage.before_publish = lambda: exports.call(
        "DELETE", f"/{exports.rows('service', 'select uuid from exports')[0][0]}"
    )

    answer = exports.ask()

    assert answer.status_code == 404
    assert exports.files() == set()
    exports.recover()
    exports.assert_settled()
    assert exports.rows("service", "select status, error from exports") == [
        ("FAILED", "The export was deleted before it was finished.")
    ]


def test_deleting_what_nobody_has_begun_ends_it(exports):
    """Its request comes later and finds nothing to do."""
    asked = exports.ask_later()

    assert exports.call("DELETE", f"/{asked['uuid']}").status_code == 204
    exports.recover()

    assert exports.files() == set()
    exports.assert_settled()


def test_a_key_of_a_deleted_export_still_names_it(exports):
    """The request was met once; its client learns what became of it."""
    key = {"Idempotency-Key": "k"}
    made = exports.ask(key).json
    exports.call("DELETE", f"/{made['uuid']}")

    again = exports.ask(key)

    assert again.json["uuid"] == made["uuid"]
    assert again.json["deleted_at"] is not None
    assert again.json["download_url"] is None


def test_what_is_offered_can_be_asked_for(exports):
    """Each source by its key, with each column, type and operator that a request may name."""
    answer = exports.call("GET", "", collection="export-sources")

    offered = {source["key"]: source for source in answer.json["items"]}
    assert set(offered) == set(SOURCES)
    for key, source in offered.items():
        columns = [column["key"] for column in source["columns"]]
        sorts = [{"column": column["key"]} for column in source["columns"] if column["sortable"]]
        asked = exports.ask(source=key, file_type=source["file_types"][0], columns=columns, sorts=sorts)
        assert asked.status_code == 201, asked.json


def test_a_request_within_a_request_without_end_is_refused(exports):
    """A filter in a filter, ten thousand deep: a client's fault, and no fault of ours."""
    body = b'{"source":"suppliers","file_type":"CSV","file_name":"x","filters":[' + b'{"any":[' * 10_000

    answer = exports.call("POST", "", data=body)

    assert 400 <= answer.status_code < 500
    assert answer.content_type == "application/problem+json"


def test_a_database_that_is_not_there_is_unavailable(exports, fresh_databases):
    """503 before an export begins: try again in a moment."""
    proxy = Proxy(urlsplit(fresh_databases.product_url).netloc.rpartition("@")[2])
    exports.connect_through(proxy, "product", fresh_databases.product_url)
    proxy.close()

    answer = exports.ask()

    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
