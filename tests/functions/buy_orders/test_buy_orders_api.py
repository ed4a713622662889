"""buy_orders_api: how orders are exported, asking for their mail, and what became of it."""

from __future__ import annotations

import csv
import io
import itertools
import uuid
from pathlib import Path

import openpyxl
import pypdf
import pytest

from functions.buy_orders.operations import check_identifiers
from functions.exports.identifiers import IDENTIFIERS
from functions.exports.source import FileType
from functions.exports.sources import SOURCES
from shared.messages import BuyOrderEmail
from tests.buy_orders_world import event

SETTINGS = "/buy-order-export-settings"
DEFAULTS = ["WEBSHOP_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_ARTICLE_CODE"]
SEND_FIELDS = {
    "uuid", "status", "reason", "recipient", "file_uris", "events", "created_at", "updated_at", "sent_at",
}  # fmt: skip


def case_table():
    """Every choice of identifiers, and the headings that follow from it."""
    lines = (Path(__file__).parents[2] / "data" / "buy_order_columns.txt").read_text().splitlines()
    for line in lines:
        if not line.startswith("#"):
            saved, headings = ([part.strip() for part in side.split(",")] for side in line.split("|"))
            yield saved, headings


def headings_of(identifiers, file_type):
    """The identifying columns of a buy order that is exported without naming columns."""
    columns = SOURCES["buy_orders"].find_default_columns(file_type, tuple(identifiers))
    return [column.heading for column in columns if column.identifier]


# Settings


def test_settings_start_with_the_defaults(buying):
    """A webshop that never chose gets its own SKU, EAN and article code."""
    answer = buying.api("GET", SETTINGS)

    assert (answer.status_code, answer.json) == (200, {"identifiers": DEFAULTS})


def test_the_table_has_every_choice():
    """Eight identifiers, one to three of them: 8 + 28 + 56."""
    chosen = [frozenset(saved) for saved, _ in case_table()]

    assert sorted(map(sorted, chosen)) == sorted(
        sorted(choice) for size in (1, 2, 3) for choice in itertools.combinations(IDENTIFIERS, size)
    )


def test_columns_stand_in_their_order_whatever_order_was_saved(buying):
    """SKU, EAN, article code, name, and the webshop's before the supplier's: every choice, every file type."""
    for saved, headings in case_table():
        answer = buying.save_identifiers(*saved)

        assert answer.status_code == 200
        kept = buying.api("GET", SETTINGS).json["identifiers"]
        assert answer.json["identifiers"] == kept
        assert sorted(kept) == sorted(saved)
        for file_type in FileType:
            assert headings_of(kept, file_type) == headings


def test_the_order_of_saving_means_nothing():
    """All orders of each choice are kept alike."""
    for saved, _ in case_table():
        assert len({check_identifiers(order) for order in itertools.permutations(saved)}) == 1


@pytest.mark.parametrize("file_type", ["CSV", "XLSX", "PDF"])
def test_settings_shape_an_export_of_buy_orders(buying, file_type):
    """An export that names no columns has those of the settings, in their order; one that names some has these."""
    buying.save_identifiers("SUPPLIER_PRODUCT_NAME", "SUPPLIER_PRODUCT_EAN_CODE", "WEBSHOP_PRODUCT_EAN_CODE")
    asked = {"source": "buy_orders", "file_type": file_type, "parents": {"buy_order_uuid": str(buying.order)}}

    shaped = words_in(file_type, buying.download(buying.ask(**asked).json["uuid"]).data)
    asked["columns"] = ["webshop_product_sku_code"]
    named = words_in(file_type, buying.download(buying.ask(**asked).json["uuid"]).data)

    assert "EAN code Supplier EAN code Supplier product name" in shaped
    assert "SKU code" not in shaped
    assert "SKU code" in named
    assert "EAN code" not in named


def words_in(file_type, content):
    """The first row of a file, or the first page, as one line."""
    if file_type == "CSV":
        words = next(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    elif file_type == "XLSX":
        words = [str(cell.value) for cell in openpyxl.load_workbook(io.BytesIO(content)).worksheets[0][1]]
    else:
        words = pypdf.PdfReader(io.BytesIO(content)).pages[0].extract_text().split()
    return " ".join(words)


@pytest.mark.parametrize(
    ("identifiers", "at", "named"),
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
def test_settings_that_are_not_allowed_are_refused_by_name(buying, identifiers, at, named):
    """Unknown, repeated, too many, none: 422 that says which, and nothing is saved."""
    answer = buying.api("PUT", SETTINGS, json={"identifiers": identifiers})

    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert answer.json["field"] == at
    assert named in answer.json["detail"]
    assert buying.api("GET", SETTINGS).json["identifiers"] == DEFAULTS


def test_settings_are_a_webshop_s_own(buying):
    """Another webshop keeps its defaults."""
    buying.save_identifiers("SUPPLIER_PRODUCT_NAME")

    other = {"user": buying.tenants.other_user_uuid, "webshop": buying.tenants.other_webshop_uuid}
    assert buying.api("GET", SETTINGS, **other).json["identifiers"] == DEFAULTS


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
def test_who_may_not_see_the_webshop_learns_nothing(buying, method, path):
    """404 for another's webshop, 403 where the feature is off, 401 without a token."""
    path = path.format(order=buying.order)
    body = {"json": {"identifiers": ["WEBSHOP_PRODUCT_NAME"]} if method == "PUT" else {}} if method != "GET" else {}

    foreign = buying.api(method, path, user=buying.tenants.other_user_uuid, **body)
    off = buying.api(method, path, webshop=buying.tenants.featureless_webshop_uuid, **body)

    assert foreign.status_code == 404
    assert (off.status_code, off.json["detail"][:40]) == (403, "This webshop has not booked buy orders. ")
    assert buying.broker.waiting == type(buying.broker.waiting)()


# Asking for a mail


def test_a_mail_goes_to_the_supplier_unless_another_is_named(buying):
    """The supplier's address by default; a recipient, copies and words of one's own where they are given."""
    ((address,),) = buying.rows(
        "product",
        "select email_address from suppliers where uuid = (select supplier_uuid from buy_orders where uuid = :order)",
        order=buying.order,
    )

    buying.ask_for_mail()
    buying.ask_for_mail(recipient=" Orders@Müller.example ", cc=["a@b.example"], message="Hello")
    buying.run()

    first, second = buying.mail_service.taken
    assert (first.recipient, first.cc) == (address, ())
    assert (second.recipient, second.cc) == ("Orders@xn--mller-kva.example", ("a@b.example",))
    assert "Hello" in second.text
    assert [item["recipient"] for item in buying.mails()["items"]] == [second.recipient, address]


@pytest.mark.parametrize(
    ("body", "at"),
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
def test_what_cannot_be_mailed_is_refused_at_once(buying, body, at):
    """422 that names the field; nothing is recorded, nothing is sent."""
    answer = buying.ask_for_mail(**body)

    assert answer.status_code == 422
    assert answer.json.get("field", "") == at
    assert answer.json["detail"].isprintable()
    assert buying.mails()["items"] == []
    assert not buying.broker.waiting


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        pytest.param("delete from buy_order_lines", 422, "Buy order BO-10001 has no lines.", id="no lines"),
        pytest.param(
            "update suppliers set email_address = null",
            422,
            "has no email address. Add one, or name a recipient.",
            id="no address",
        ),
        pytest.param("update buy_orders set deleted_at = now()", 404, "There is no such buy order.", id="deleted"),
    ],
)
def test_an_order_that_cannot_be_mailed_is_refused(buying, change, status, sentence):
    """The reason says what to do; an order that was deleted is not there."""
    buying.change("product", change)

    answer = buying.ask_for_mail()

    assert answer.status_code == status
    assert sentence in answer.json["detail"]


def test_a_supplier_without_an_address_gets_a_mail_at_the_one_that_is_named(buying):
    """The seeded order 4 has such a supplier."""
    order = buying.order_called("BO-10004")

    assert buying.ask_for_mail(order).status_code == 422
    assert buying.ask_for_mail(order, recipient="a@b.example").status_code == 202
    buying.run()
    assert [mail.recipient for mail in buying.mail_service.taken] == ["a@b.example"]


def test_an_order_of_another_webshop_is_not_there(buying):
    """404, as for one that never was, for its mails too."""
    other = buying.tenants.other_webshop_uuid
    ((foreign,),) = buying.rows("product", "select uuid from buy_orders where webshop_uuid = :w limit 1", w=other)

    for order in (foreign, uuid.uuid4()):
        assert buying.ask_for_mail(order).status_code == 404
        assert buying.api("GET", f"/buy-orders/{order}/emails").status_code == 404
    assert buying.ask_for_mail("not-a-uuid").status_code == 404


def test_one_key_is_one_mail(buying):
    """Asked for ten times at once with one key: one send, and every answer names it."""
    answers = []

    buying.at_once(*[lambda: answers.append(buying.ask_for_mail(key="k"))] * 10)
    buying.run()

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["uuid"] for answer in answers}) == 1
    assert len(buying.mail_service.taken) == 1
    again = buying.ask_for_mail(key="k")
    assert (again.status_code, again.json["status"]) == (202, "SENT")
    assert len(buying.mails()["items"]) == 1


def test_a_key_that_comes_again_is_answered_even_when_the_order_is_gone(buying):
    """The client asks what became of its request, not for a new one."""
    first = buying.ask_for_mail(key="k").json
    buying.change("product", "update buy_orders set deleted_at = now()")

    assert buying.ask_for_mail(key="k").json["uuid"] == first["uuid"]
    assert buying.mails()["items"][0]["uuid"] == first["uuid"]


def test_a_key_belongs_to_its_request(buying):
    """Another body, or another order, with the same key is 422; another user's same key is another key."""
    buying.ask_for_mail(key="k")
    second = buying.order_called("BO-10002")

    assert buying.ask_for_mail(key="k", message="other").status_code == 422
    assert buying.ask_for_mail(second, key="k").status_code == 422
    assert buying.ask_for_mail(key="x" * 256).status_code == 422
    assert buying.ask_for_mail().status_code == 202


def test_a_request_is_kept_when_kafka_is_down(buying):
    """202 all the same: sweep sends what could not be sent."""
    buying.broker.down = True
    assert buying.ask_for_mail().status_code == 202
    buying.broker.down = False
    assert buying.broker.of(BuyOrderEmail) == []

    buying.recover()

    assert buying.only_send()["status"] == "SENT"


# What became of it


def test_mails_are_listed_with_their_events(buying):
    """Newest first, in pages, each with what the mail service told, oldest first."""
    for _ in range(3):
        buying.ask_for_mail()
        buying.run()
    newest = buying.mails()["items"][0]["uuid"]
    buying.tell(
        event(newest, "delivered", timestamp=1_780_000_100, response="250 OK"),
        event(newest, "deferred", timestamp=1_780_000_000, response="451 later"),
    )

    first = buying.mails(query="?limit=2")
    second = buying.mails(query=f"?limit=2&cursor={first['next_cursor']}")

    items = [*first["items"], *second["items"]]
    assert second["next_cursor"] is None
    assert {frozenset(item) for item in items} == {frozenset(SEND_FIELDS)}
    assert [item["uuid"] for item in items] == [item["uuid"] for item in buying.mails()["items"]]
    assert len({item["uuid"] for item in items}) == 3
    assert [item["created_at"] for item in items] == sorted((item["created_at"] for item in items), reverse=True)
    to = {"recipient": "orders@supplier.example"}
    assert items[0]["events"] == [
        {"event": "deferred", "reason": "451 later", "occurred_at": "2026-05-28T20:26:40Z", **to},
        {"event": "delivered", "reason": "250 OK", "occurred_at": "2026-05-28T20:28:20Z", **to},
    ]
    assert items[1]["events"] == []
    assert buying.api("GET", f"/buy-orders/{buying.order}/emails?cursor=x").status_code == 422
