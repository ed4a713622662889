"""imports_api, through the framework: what a merchant's frontend sees."""

import base64
import csv
import io
import json
import uuid

import pytest

from functions.imports.states import Status
from shared.errors import Unavailable
from shared.settings import settings
from tests.world import World, table


@pytest.fixture
def api(world: World, api_of):
    """Calls imports_api as the first webshop's user."""
    return api_of("imports_api", world.user)


def errors_of(api, world, import_uuid) -> list[list[str]]:
    """The error report as a second program reads it."""
    answer = api.get(f"/webshops/{world.webshop}/imports/{import_uuid}/errors")
    assert answer.status_code == 200
    return list(csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"), newline="")))


def test_starting_an_import_gives_an_upload_that_the_client_cannot_change(api, world):
    """The upload's path and metadata are the server's; the import exists when its file does, not before."""
    answer = api.post(
        f"/webshops/{world.webshop}/imports",
        json={"file_name": "../März/prices.csv", "on_error": "abort"},
        headers={"Origin": "https://app.example.com"},
    )

    assert answer.status_code == 201
    made = answer.json
    path, metadata, origin = json.loads(base64.urlsafe_b64decode(made["upload_url"].rsplit("/", 1)[1]))
    assert path == f"imports/{world.webshop}/{made['uuid']}/März-prices.csv"
    assert metadata == {"user-uuid": str(world.user), "operation": "UPDATE", "on-error": "abort"}
    assert origin == "https://app.example.com"
    assert (made["upload_method"], made["upload_headers"]) == ("PUT", {"Content-Type": "text/csv"})
    assert api.get(f"/webshops/{world.webshop}/imports/{made['uuid']}").status_code == 404


def test_a_second_import_is_refused_by_the_name_of_the_first(api, world):
    """One import a webshop at a time, and the answer says which one is in the way."""
    active = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(active)

    answer = api.post(f"/webshops/{world.webshop}/imports", json={"file_name": "more.csv"})

    assert answer.status_code == 409
    assert answer.content_type == "application/problem+json"
    assert answer.json["active_import_uuid"] == str(active)
    assert "products.csv" in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
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
def test_refused_input_says_what_is_wrong(api, world, body, status, says):
    """Refused input is 422, what cannot be parsed 400, and each names the fault."""
    answer = api.post(f"/webshops/{world.webshop}/imports", data=body)

    assert answer.status_code == status
    assert says in answer.json["detail"]
    assert answer.json["type"].startswith("/problems/")


def test_only_who_works_for_a_webshop_learns_that_it_is_there(api_of, world):
    """404, not 403: an answer must not tell that something exists."""
    found = world.import_file("identifier,price\r\nA,1\r\n")
    stranger = api_of("imports_api", world.tenants.other_user_uuid)
    imports = f"/webshops/{world.webshop}/imports"
    theirs = f"/webshops/{world.tenants.other_webshop_uuid}/imports"

    answers = [
        stranger.get(imports),
        stranger.post(imports, json={"file_name": "a.csv"}),
        stranger.get(f"{imports}/{found.uuid}"),
        stranger.post(f"{imports}/{found.uuid}/retry"),
        stranger.get(f"{imports}/{found.uuid}/errors"),
        stranger.get(f"{imports}/template"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert stranger.get(f"{theirs}/{found.uuid}").status_code == 404
    assert stranger.get(theirs).status_code == 200


def test_a_token_is_needed_and_must_be_ours(api_of, world, token):
    """Every way a token can be wrong is 401 with a challenge."""
    wrong = {
        "none": "",
        "no bearer": "Basic abc",
        "rubbish": "Bearer rubbish",
        "expired": f"Bearer {token(world.user, exp=1)}",
        "another audience": f"Bearer {token(world.user, aud='somebody-else')}",
        "another issuer": f"Bearer {token(world.user, iss='https://evil.example')}",
        "no user": f"Bearer {token('nobody')}",
        "unsigned": f"Bearer {unsigned(world.user)}",
    }
    for what, header in wrong.items():
        answer = api_of("imports_api", None).get(
            f"/webshops/{world.webshop}/imports", headers={"Authorization": header}
        )
        assert (what, answer.status_code) == (what, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), what


def unsigned(user) -> str:
    """A token that says it needs no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, {"sub": str(user), "exp": 9_999_999_999})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{'.'.join(encoded)}."


def test_the_list_pages_newest_first_and_filters_by_status(api, world):
    """Keyset paging: every import once, in order, whatever page size."""
    made = [str(world.import_file("identifier,price\r\nA,1\r\n").uuid) for _ in range(4)]
    good = str(world.import_file(table([["identifier", "price"], [world.identifiers(1)[0], "1"]])).uuid)

    pages, cursor = [], ""
    while cursor is not None:
        page = api.get(f"/webshops/{world.webshop}/imports?limit=2&cursor={cursor}").json
        pages.append([item["uuid"] for item in page["items"]])
        cursor = page["next_cursor"]

    assert pages == [[good, made[3]], [made[2], made[1]], [made[0]]]
    completed = api.get(f"/webshops/{world.webshop}/imports?status=COMPLETED").json
    assert [item["uuid"] for item in completed["items"]] == [good]
    for query in ("limit=0", "limit=201", "status=DONE", "cursor=x", "colour=red"):
        assert api.get(f"/webshops/{world.webshop}/imports?{query}").status_code == 422, query


def test_an_import_tells_all_about_itself(api, world):
    """Every field of the contract is there, with what was read."""
    found = world.import_file("Identifier;Price;Created at\r\nA;1,50;x\r\n".encode("utf-16"))

    seen = api.get(f"/webshops/{world.webshop}/imports/{found.uuid}").json

    assert set(seen) == {
        "uuid", "webshop_uuid", "user_uuid", "file_name", "operation", "on_error", "status", "reason", "run",
        "skipped_columns", "total_rows", "updated_rows", "unchanged_rows", "failed_rows", "progress_percent",
        "processing_step", "processing_offset", "encoding", "delimiter", "created_at", "updated_at", "finished_at",
    }  # fmt: skip
    assert (seen["encoding"], seen["delimiter"], seen["skipped_columns"]) == ("UTF-16", ";", ["Created at"])
    assert (seen["status"], seen["progress_percent"], seen["processing_offset"]) == (
        Status.FAILED_WITH_VALIDATION_ERRORS,
        100,
        1,
    )
    assert seen["created_at"].endswith("Z")


def test_the_error_report_mended_goes_back_in(api, world):
    """Every failed row once, its cells as they stand in the file, what was wrong behind them."""
    one, two, three, four = world.identifiers(4)
    found = world.import_file(
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

    heading, *lines = errors_of(api, world, found.uuid)

    assert heading == ["identifier", "price", "name", "Row number", "Error columns", "Error codes", "Errors"]
    assert [line[:6] for line in lines] == [
        [two, "cheap", "'=1+1", "3", "price", "not_a_number"],
        ["nowhere", "1.00", "-5", "4", "identifier", "not_found"],
        [three, "1.234", "'@risk", "5", "price", "ambiguous_number"],
        [four, "7", "two", "many", "6", ""],
    ]
    assert "cheap" in lines[0][6]

    lines[0][1], lines[2][1], lines[1][0] = "2.00", "3.00", four
    again = world.import_file(table([heading, *lines]))
    assert (again.status, again.updated_rows, again.failed_rows) == (Status.COMPLETED_WITH_ERRORS, 3, 1)
    assert world.products("name")[two] == "=1+1"
    assert world.products("name")[four] == "-5"
    assert again.skipped_columns == ("Row number", "Error columns", "Error codes", "Errors")
    assert errors_of(api, world, again.uuid)[0] == heading


def test_the_error_report_of_a_file_that_is_gone_has_rows_and_reasons(api, world):
    """What we know is still told."""
    found = world.import_file("identifier,price\r\nnowhere,1\r\n")
    world.bucket.objects.clear()

    heading, line = errors_of(api, world, found.uuid)

    assert heading == ["Row number", "Error columns", "Error codes", "Errors"]
    assert line[:3] == ["2", "identifier", "not_found"]


def test_the_error_report_of_a_refused_file_gives_the_reason(api, world):
    """No row is at fault: one line says what is."""
    found = world.import_file("identifier,prise\r\nA,1\r\n")

    _, line = errors_of(api, world, found.uuid)

    assert line[3] == found.reason
    assert "price" in found.reason


def test_the_template_is_a_file_that_imports(api, world):
    """It shows every column; with its identifiers replaced it is imported as it is."""
    answer = api.get(f"/webshops/{world.webshop}/imports/template")
    text = answer.get_data().decode("utf-8-sig")
    one, two = world.identifiers(2)

    found = world.import_file(text.replace("P-1001", one).replace("P-1002", two))

    assert "attachment" in answer.headers["Content-Disposition"]
    assert (found.status, found.updated_rows) == (Status.COMPLETED, 2), found.reason


def test_what_can_be_retried(api, world):
    """A completed import cannot, an unknown one is 404, an active one 409, and while another is active 409 names it."""
    done = world.import_file(table([["identifier", "price"], [world.identifiers(1)[0], "1"]]))
    failed = world.import_file("identifier,price\r\nnowhere,1\r\n")
    active = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(active)
    imports = f"/webshops/{world.webshop}/imports"

    assert api.post(f"{imports}/{done.uuid}/retry").status_code == 409
    assert api.post(f"{imports}/{uuid.uuid4()}/retry").status_code == 404
    assert api.post(f"{imports}/{active}/retry").status_code == 409
    refused = api.post(f"{imports}/{failed.uuid}/retry")
    assert (refused.status_code, refused.json["active_import_uuid"]) == (409, str(active))

    world.run()
    answer = api.post(f"{imports}/{failed.uuid}/retry")
    assert (answer.status_code, answer.json["status"], answer.json["run"]) == (202, "IN_QUEUE", 2)
    assert answer.json["total_rows"] == 0
    world.run()
    assert world.find(failed.uuid).status == Status.FAILED_WITH_VALIDATION_ERRORS


def test_a_fault_of_ours_is_a_problem_with_a_reference(api, world, caplog):
    """Never a traceback, always something to ask about."""
    world.change("service", "drop table imports cascade")

    answer = api.get(f"/webshops/{world.webshop}/imports")

    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    reference = answer.json["detail"].rsplit(" ", 1)[1]
    assert reference in caplog.text
    assert "imports" not in answer.json["detail"].replace("reference", "")


@pytest.mark.parametrize(("method", "path", "status"), [("DELETE", "imports", 405), ("GET", "nothing", 404)])
def test_unknown_addresses_and_methods_are_problems(api, world, method, path, status):
    """Also what no route answers is told in the same form."""
    answer = api.open(f"/webshops/{world.webshop}/{path}", method=method)

    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"


def test_the_error_report_of_a_file_that_is_too_large_does_not_read_it(api, world, monkeypatch):
    """Somebody may put gigabytes into the bucket; nobody takes them into memory."""
    found = world.import_file(b"identifier,price\r\n" + b"x" * 5_300_000)

    def read(*_: object) -> bytes:
        raise AssertionError("it was read")

    monkeypatch.setattr(world.bucket, "read", read)

    _, line = errors_of(api, world, found.uuid)

    assert line[3] == found.reason


def test_the_error_report_of_many_rows_is_whole(api, world):
    """It is made in pages, and no row is lost or told twice between them."""
    found = world.import_file("identifier,price\r\n" + "".join(f"A-{number},x\r\n" for number in range(4500)))

    _, *lines = errors_of(api, world, found.uuid)

    assert [int(line[2]) for line in lines] == list(range(2, 4502))


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
def test_a_number_goes_through_the_error_report_as_it_is(api, world, cell):
    """Mended in another column, the row is uploaded again as it stands in the report."""
    (one,) = world.identifiers(1)
    found = world.import_file(table([["identifier", "stock_on_hand", "price"], [one, cell, "cheap"]]))

    heading, line = errors_of(api, world, found.uuid)
    line[2] = "1"
    again = world.import_file(table([heading, line]))

    assert (again.status, again.failed_rows) == (Status.COMPLETED, 0), world.errors(again.uuid)


def test_the_error_report_says_why_no_row_was_judged(api, world):
    """The file is in order, the import was not: the report gives the reason instead of nothing."""
    found = world.import_file("identifier,price\r\nA,1\r\n", operation="INSERT")

    heading, line = errors_of(api, world, found.uuid)

    assert (heading[0], line[-1]) == ("identifier", found.reason)


def test_a_retry_while_the_broker_is_down_is_taken(api, world):
    """It is recorded, and sweep sends the trigger: the merchant need not know."""
    failed = world.import_file("identifier,price\r\nnowhere,1\r\n")
    world.broker.down = True

    answer = api.post(f"/webshops/{world.webshop}/imports/{failed.uuid}/retry")

    assert (answer.status_code, answer.json["status"]) == (202, "IN_QUEUE")
    world.broker.down = False
    world.recover()
    assert world.find(failed.uuid).run == 2


def test_a_system_that_is_away_is_503(api, world, monkeypatch):
    """Try again in a moment, and a reference that stands in the log."""

    def away(*_: object) -> str:
        raise Unavailable("no answer")

    monkeypatch.setattr(world.bucket, "open_upload", away)

    answer = api.post(f"/webshops/{world.webshop}/imports", json={"file_name": "a.csv"})

    assert (answer.status_code, answer.json["type"]) == (503, "/problems/unavailable")
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    ("jwks_url", "status"),
    [pytest.param("http://127.0.0.1:1/jwks.json", 503, id="unreachable"), pytest.param("", 500, id="not set")],
)
def test_an_identity_provider_that_is_away_is_no_fault_of_the_token(api, world, monkeypatch, jwks_url, status):
    """A merchant must not be sent to log in again because our settings or our provider are at fault."""
    monkeypatch.setenv("TOKEN_JWKS_URL", jwks_url)
    settings.cache_clear()

    answer = api.get(f"/webshops/{world.webshop}/imports")

    assert answer.status_code == status


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2020-01-01T00:00:00"])
def test_a_crafted_cursor_spoils_nothing(api, world, moment):
    """Whatever a client makes of a cursor, the answers after it are the right ones."""
    found = world.import_file("identifier,price\r\nnowhere,1\r\n")
    cursor = base64.urlsafe_b64encode(json.dumps([moment, str(uuid.uuid4())]).encode()).decode().rstrip("=")

    for _ in range(5):
        assert api.get(f"/webshops/{world.webshop}/imports?cursor={cursor}").status_code in (200, 422)
        assert api.get(f"/webshops/{world.webshop}/imports/{found.uuid}").json["uuid"] == str(found.uuid)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({}, "file_name", id="missing"),
        pytest.param({"file_name": "a", "colour": 1}, "colour", id="unknown"),
    ],
)
def test_the_field_at_fault_is_named(api, world, body, field):
    """Also where it is missing, or should not be there."""
    assert api.post(f"/webshops/{world.webshop}/imports", json=body).json["field"] == field
