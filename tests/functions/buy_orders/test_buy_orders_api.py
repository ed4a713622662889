"""buy_orders_api: the identifiers of a webshop's buy orders, and the request and list of their emails."""

from __future__ import annotations

import csv
import io
import itertools
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pypdf
import pytest

from functions.buy_orders.operations import check_identifiers
from functions.exports.identifiers import IDENTIFIERS
from functions.exports.source import FileType
from functions.exports.sources import SOURCES
from shared.messages import BuyOrderEmail
from tests.buy_orders_world import BuyOrdersWorld, event

if TYPE_CHECKING:
    from tests.exports_world import Response

SETTINGS = "/buy-order-export-settings"
DEFAULTS = ["WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_ARTICLE_CODE"]
DELIVERY_FIELDS = {
    "uuid", "status", "reason", "recipient", "file_uris", "events", "created_at", "updated_at", "sent_at",
}  # fmt: skip


def read_choices() -> Iterator[tuple[list[str], list[str]]]:
    """Yields every choice of identifiers with the headings of its columns."""
    lines = (Path(__file__).parents[2] / "data" / "buy_order_columns.txt").read_text().splitlines()
    for line in lines:
        if not line.startswith("#"):
            choice, headings = ([part.strip() for part in side.split(",")] for side in line.split("|"))
            yield choice, headings


def find_headings(identifiers: Iterable[str], file_type: FileType) -> list[str]:
    """Returns the headings of the identifiers in an export of buy orders that does not name its columns."""
    columns = SOURCES["buy_orders"].find_default_columns(file_type, tuple(identifiers))
    return [column.heading for column in columns if column.identifier]


# Settings


def test_the_default_settings_are_the_webshop_s_own_codes(buy_orders: BuyOrdersWorld) -> None:
    """A webshop that never saved settings gets its SKU, EAN and article codes."""
    response = buy_orders.call_api("GET", SETTINGS)

    assert (response.status_code, response.json) == (200, {"identifiers": DEFAULTS})


def test_the_table_has_every_choice() -> None:
    """There are 8 + 28 + 56 choices of one, two or three of the eight identifiers."""
    choices = [sorted(choice) for choice, _ in read_choices()]

    assert sorted(choices) == sorted(
        sorted(choice) for size in (1, 2, 3) for choice in itertools.combinations(IDENTIFIERS, size)
    )


def test_the_order_of_the_columns_is_fixed(buy_orders: BuyOrdersWorld) -> None:
    """It is SKU, EAN, article code, name, and the webshop's before the supplier's, for every choice and file type."""
    for choice, headings in read_choices():
        response = buy_orders.save_identifiers(*choice)

        assert response.status_code == 200
        saved = buy_orders.call_api("GET", SETTINGS).json["identifiers"]
        assert response.json["identifiers"] == saved
        assert sorted(saved) == sorted(choice)
        for file_type in FileType:
            assert find_headings(saved, file_type) == headings


def test_the_order_in_a_request_does_not_matter() -> None:
    """All permutations of a choice give the same settings."""
    for choice, _ in read_choices():
        assert len({check_identifiers(permutation) for permutation in itertools.permutations(choice)}) == 1


@pytest.mark.parametrize("file_type", ["CSV", "XLSX", "PDF"])
def test_the_settings_are_the_default_columns_of_an_export(buy_orders: BuyOrdersWorld, file_type: str) -> None:
    """An export that does not name columns has those of the settings, in their order. Named columns win."""
    buy_orders.save_identifiers("SUPPLIER_PRODUCT_NAME", "SUPPLIER_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_EAN_CODE")
    parents = {"buy_order_uuid": str(buy_orders.order)}
    request: dict[str, Any] = {"source": "buy_orders", "file_type": file_type, "parents": parents}

    default = buy_orders.ask(**request).json
    named = buy_orders.ask(**request, columns=["webshop_product_sku_code"]).json

    default_text = read_first_row(file_type, buy_orders.download(default["uuid"]).data)
    named_text = read_first_row(file_type, buy_orders.download(named["uuid"]).data)
    assert "EAN code Supplier EAN code Supplier product name" in default_text
    assert "SKU code" not in default_text
    assert "SKU code" in named_text
    assert "EAN code" not in named_text


def read_first_row(file_type: str, content: bytes) -> str:
    """Returns the text of a file's first row, or of a PDF's first page."""
    if file_type == "CSV":
        words = next(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    elif file_type == "XLSX":
        words = [str(cell.value) for cell in openpyxl.load_workbook(io.BytesIO(content)).worksheets[0][1]]
    else:
        words = pypdf.PdfReader(io.BytesIO(content)).pages[0].extract_text().split()
    return " ".join(words)


@pytest.mark.parametrize(
    ("identifiers", "field", "message"),
    [
        pytest.param(["WEBSHOP_PRODUCT_COLOUR"], "identifiers[0]", "WEBSHOP_PRODUCT_COLOUR", id="unknown"),
        pytest.param(
            ["WEBSHOP_PRODUCT_NAME", "webshop_product_name"],
            "identifiers[1]",
            "webshop_product_name",
            id="unknown beside a known one",
        ),
        pytest.param(["WEBSHOP_PRODUCT_NAME"] * 2, "identifiers", "Repeated: WEBSHOP_PRODUCT_NAME", id="repeated"),
        pytest.param([*DEFAULTS, "SUPPLIER_PRODUCT_NAME"], "identifiers", "SUPPLIER_PRODUCT_NAME", id="four"),
        pytest.param([], "identifiers", "1 to 3", id="none"),
        pytest.param([None], "identifiers[0]", "str", id="null"),
        pytest.param("WEBSHOP_PRODUCT_NAME", "identifiers", "array", id="not a list"),
    ],
)
def test_invalid_settings_are_refused(buy_orders: BuyOrdersWorld, identifiers: Any, field: str, message: str) -> None:
    """422 names the field and the identifiers that are unknown, repeated or too many. Nothing is saved."""
    response = buy_orders.call_api("PUT", SETTINGS, json={"identifiers": identifiers})

    assert (response.status_code, response.content_type) == (422, "application/problem+json")
    assert response.json["field"] == field
    assert message in response.json["detail"]
    assert buy_orders.call_api("GET", SETTINGS).json["identifiers"] == DEFAULTS


def test_each_webshop_has_its_own_settings(buy_orders: BuyOrdersWorld) -> None:
    """Saving the settings of one webshop does not change those of another."""
    buy_orders.save_identifiers("SUPPLIER_PRODUCT_NAME")

    other = {"user": buy_orders.tenants.other_user_uuid, "webshop": buy_orders.tenants.other_webshop_uuid}
    assert buy_orders.call_api("GET", SETTINGS, **other).json["identifiers"] == DEFAULTS


# Access


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", SETTINGS),
        ("PUT", SETTINGS),
        ("POST", "/buy-orders/{order}/email"),
        ("GET", "/buy-orders/{order}/emails"),
    ],
)
def test_a_user_without_access_learns_nothing(buy_orders: BuyOrdersWorld, method: str, path: str) -> None:
    """404 for a webshop of other users, 403 for a webshop without the feature."""
    path = path.format(order=buy_orders.order)
    bodies: dict[str, Any] = {
        "PUT": {"json": {"identifiers": ["WEBSHOP_PRODUCT_NAME"]}},
        "POST": {"json": {}},
        "GET": {},
    }
    body = bodies[method]

    foreign = buy_orders.call_api(method, path, user=buy_orders.tenants.other_user_uuid, **body)
    featureless = buy_orders.call_api(method, path, webshop=buy_orders.tenants.featureless_webshop_uuid, **body)

    assert foreign.status_code == 404
    assert featureless.status_code == 403
    assert featureless.json["detail"][:40] == "This webshop has not booked buy orders. "
    assert buy_orders.broker.waiting == deque()


# Requests


def test_an_email_goes_to_the_supplier_by_default(buy_orders: BuyOrdersWorld) -> None:
    """A request may name another recipient, copies and a message."""
    ((address,),) = buy_orders.rows(
        "product",
        "select email_address from suppliers where uuid = (select supplier_uuid from buy_orders where uuid = :order)",
        order=buy_orders.order,
    )

    buy_orders.request_email()
    buy_orders.request_email(recipient=" Orders@Müller.example ", cc=["a@b.example"], message="Hello")
    buy_orders.run()

    first, second = buy_orders.accepted_emails()
    assert (first.recipient, first.cc) == (address, ())
    assert (second.recipient, second.cc) == ("Orders@xn--mller-kva.example", ("a@b.example",))
    assert "Hello" in second.text
    assert [item["recipient"] for item in buy_orders.list_deliveries()["items"]] == [second.recipient, address]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"recipient": "nobody"}, "recipient", id="no domain"),
        pytest.param({"recipient": ""}, "recipient", id="empty recipient"),
        pytest.param({"recipient": "a@b"}, "recipient", id="no top-level domain"),
        pytest.param({"recipient": "a b@c.example"}, "recipient", id="space"),
        pytest.param({"recipient": "a@b.example, c@d.example"}, "recipient", id="two addresses"),
        pytest.param({"recipient": "Ann <a@b.example>"}, "recipient", id="name and address"),
        pytest.param({"recipient": "a@b.example\r\nBcc: c@d.example"}, "recipient", id="header injection"),
        pytest.param({"recipient": "a@b.example\n"}, "recipient", id="line break at the end"),
        pytest.param({"recipient": "a\0@b.example"}, "recipient", id="NUL"),
        pytest.param({"recipient": f"{'a' * 250}@b.example"}, "recipient", id="long recipient"),
        pytest.param({"recipient": 7}, "recipient", id="number"),
        pytest.param({"cc": ["a@b.example", "nobody"]}, "cc[1]", id="malformed copy"),
        pytest.param({"cc": [f"a{n}@b.example" for n in range(11)]}, "cc", id="eleven copies"),
        pytest.param({"message": "x" * 5_001}, "message", id="long message"),
        pytest.param({"message": "a\0b"}, "message", id="NUL in the message"),
        pytest.param({"language": "xx"}, "language", id="unknown language"),
        pytest.param({"subject": "mine"}, "subject", id="unknown field"),
    ],
)
def test_an_invalid_request_is_refused(buy_orders: BuyOrdersWorld, body: dict[str, Any], field: str) -> None:
    """422 names the field. Nothing is recorded and nothing is sent."""
    response = buy_orders.request_email(**body)

    assert response.status_code == 422
    assert response.json.get("field", "") == field
    assert response.json["detail"].isprintable()
    assert buy_orders.list_deliveries()["items"] == []
    assert not buy_orders.broker.waiting


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        pytest.param("delete from buy_order_lines", 422, "Buy order BO-10001 has no lines.", id="no lines"),
        pytest.param(
            "update suppliers set email_address = null",
            422,
            "has no email address. Add one, or name a recipient.",
            id="no address",
        ),
        pytest.param(
            "update buy_orders set deleted_at = now()",
            404,
            "The buy order was not found. Check its uuid.",
            id="deleted",
        ),
    ],
)
def test_an_order_that_cannot_be_emailed_is_refused(
    buy_orders: BuyOrdersWorld, change: str, status: int, detail: str
) -> None:
    """The reason says what to do. A deleted order is not found."""
    buy_orders.change("product", change)

    response = buy_orders.request_email()

    assert response.status_code == status
    assert detail in response.json["detail"]


def test_a_supplier_without_an_address_needs_a_recipient(buy_orders: BuyOrdersWorld) -> None:
    """The supplier of the seeded order 4 has no email address."""
    order = buy_orders.find_order("BO-10004")

    assert buy_orders.request_email(order).status_code == 422
    assert buy_orders.request_email(order, recipient="a@b.example").status_code == 202
    buy_orders.run()
    assert [email.recipient for email in buy_orders.accepted_emails()] == ["a@b.example"]


def test_an_order_of_another_webshop_is_not_found(buy_orders: BuyOrdersWorld) -> None:
    """The response is 404, as for an order that does not exist, also for the list of emails."""
    for order in (buy_orders.find_order_of_another_webshop(), uuid.uuid4()):
        assert buy_orders.request_email(order).status_code == 404
        assert buy_orders.call_api("GET", f"/buy-orders/{order}/emails").status_code == 404
    assert buy_orders.request_email("not-a-uuid").status_code == 404


def test_concurrent_requests_with_one_key_send_one_email(buy_orders: BuyOrdersWorld) -> None:
    """Ten responses name the same delivery, and so does the response to a later request."""
    responses: list[Response] = []

    buy_orders.at_once(*[lambda: responses.append(buy_orders.request_email(key="k"))] * 10)
    buy_orders.run()

    assert {response.status_code for response in responses} == {202}
    assert len({response.json["uuid"] for response in responses}) == 1
    assert len(buy_orders.accepted_emails()) == 1
    again = buy_orders.request_email(key="k")
    assert (again.status_code, again.json["status"]) == (202, "SENT")
    assert len(buy_orders.list_deliveries()["items"]) == 1


def test_a_key_finds_its_delivery_also_after_the_order_was_deleted(buy_orders: BuyOrdersWorld) -> None:
    """A repeated request is not a new one, so it does not fail because of a later change."""
    first = buy_orders.request_email(key="k").json
    buy_orders.change("product", "update buy_orders set deleted_at = now()")

    assert buy_orders.request_email(key="k").json["uuid"] == first["uuid"]
    assert buy_orders.list_deliveries()["items"][0]["uuid"] == first["uuid"]


def test_a_key_is_valid_for_one_request(buy_orders: BuyOrdersWorld) -> None:
    """The same key with another body or order, and a key that is too long, are refused."""
    buy_orders.request_email(key="k")
    second = buy_orders.find_order("BO-10002")

    assert buy_orders.request_email(key="k", message="other").status_code == 422
    assert buy_orders.request_email(second, key="k").status_code == 422
    assert buy_orders.request_email(key="x" * 256).status_code == 422
    assert buy_orders.request_email().status_code == 202


def test_a_request_is_accepted_while_kafka_is_down(buy_orders: BuyOrdersWorld) -> None:
    """The response is 202, and sweep sends the message later."""
    buy_orders.broker.down = True
    assert buy_orders.request_email().status_code == 202
    buy_orders.broker.down = False
    assert buy_orders.broker.of(BuyOrderEmail) == []

    buy_orders.recover()

    assert buy_orders.only_delivery()["status"] == "SENT"


# The list


def test_deliveries_are_listed_with_their_events(buy_orders: BuyOrdersWorld) -> None:
    """The pages list the newest delivery first, and the oldest event of each delivery first."""
    for _ in range(3):
        buy_orders.request_email()
        buy_orders.run()
    newest = buy_orders.list_deliveries()["items"][0]["uuid"]
    buy_orders.post_events(
        event(newest, "delivered", timestamp=1_780_000_100, response="250 OK"),
        event(newest, "deferred", timestamp=1_780_000_000, response="451 later"),
    )

    first = buy_orders.list_deliveries("?limit=2")
    second = buy_orders.list_deliveries(f"?limit=2&cursor={first['next_cursor']}")

    items = [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert {frozenset(item) for item in items} == {frozenset(DELIVERY_FIELDS)}
    assert [item["uuid"] for item in items] == [item["uuid"] for item in buy_orders.list_deliveries()["items"]]
    assert len({item["uuid"] for item in items}) == 3
    assert [item["created_at"] for item in items] == sorted((item["created_at"] for item in items), reverse=True)
    recipient = {"recipient": "orders@supplier.example"}
    assert items[0]["events"] == [
        {"event": "deferred", "reason": "451 later", "occurred_at": "2026-05-28T20:26:40Z", **recipient},
        {"event": "delivered", "reason": "250 OK", "occurred_at": "2026-05-28T20:28:20Z", **recipient},
    ]
    assert items[1]["events"] == []
    assert buy_orders.call_api("GET", f"/buy-orders/{buy_orders.order}/emails?cursor=x").status_code == 422
