"""email_events: each signed event is stored once, and proves that the email service accepted the email."""

from __future__ import annotations

import base64
import random
import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared.clients.mailer import MailDeferred, MailRejected, MailStatusUnknown
from tests.buy_orders_world import BuyOrdersWorld, event
from tests.world import app

# A state, and the errors of the email service that lead to it.
STATES: dict[str, list[Exception]] = {
    "SENT": [],
    "UNCERTAIN": [MailStatusUnknown("No answer.")],
    "FILES_READY": [MailDeferred("busy", 60)],
    "FAILED": [MailRejected("No.")],
}


def create_delivery(buy_orders: BuyOrdersWorld, status: str = "SENT") -> str:
    """Creates an email delivery with this status and returns its uuid."""
    buy_orders.fail_next_emails(*STATES[status])
    delivery_uuid = str(buy_orders.request_email().json["uuid"])
    buy_orders.run()
    assert buy_orders.list_deliveries()["items"][0]["status"] == status
    return delivery_uuid


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("processed", "processed"),
        ("delivered", "delivered"),
        ("bounce", "bounced"),
        ("dropped", "dropped"),
        ("deferred", "deferred"),
    ],
)
def test_an_event_is_listed_with_its_delivery(buy_orders: BuyOrdersWorld, kind: str, name: str) -> None:
    """The list shows the address, the reason and the time of the event."""
    delivery_uuid = create_delivery(buy_orders)

    assert buy_orders.post_events(event(delivery_uuid, kind, email="x@y.example", reason="550 no")) == 204

    assert buy_orders.only_delivery()["events"] == [
        {"event": name, "recipient": "x@y.example", "reason": "550 no", "occurred_at": "2026-05-28T20:26:40Z"}
    ]
    assert buy_orders.only_delivery()["status"] == "SENT"


@pytest.mark.parametrize("kind", ["delivered", "bounce", "spamreport"])
@pytest.mark.parametrize(
    ("before", "after"), [("SENT", "SENT"), ("UNCERTAIN", "SENT"), ("FILES_READY", "SENT"), ("FAILED", "FAILED")]
)
def test_any_event_proves_that_the_email_was_accepted(
    buy_orders: BuyOrdersWorld, before: str, after: str, kind: str
) -> None:
    """Only a FAILED delivery stays as it is: the email service itself responded that it refused that email."""
    delivery_uuid = create_delivery(buy_orders, before)

    assert buy_orders.post_events(event(delivery_uuid, kind)) == 204

    delivery = buy_orders.only_delivery()
    assert delivery["status"] == after
    assert (delivery["sent_at"] is not None) == (after == "SENT")
    assert (delivery["reason"] == "") == (after == "SENT")
    buy_orders.recover()
    assert len(buy_orders.accepted_emails()) == (before == "SENT")
    buy_orders.assert_settled()


def test_an_event_may_arrive_before_the_response(buy_orders: BuyOrdersWorld) -> None:
    """The email service may send an event before the worker has recorded that the email was accepted."""
    buy_orders.request_email()
    delivery_uuid = buy_orders.only_delivery()["uuid"]
    statuses: list[int] = []
    buy_orders.email_service.before_answer = lambda: statuses.append(buy_orders.post_events(event(delivery_uuid)))

    buy_orders.run()

    assert statuses == [204]
    assert buy_orders.only_delivery()["status"] == "SENT"
    assert len(buy_orders.accepted_emails()) == 1
    buy_orders.recover()
    buy_orders.assert_settled()


def test_a_duplicate_event_changes_nothing(buy_orders: BuyOrdersWorld) -> None:
    """The email service may send an event again, with the same id."""
    delivery_uuid = create_delivery(buy_orders)
    delivered = event(delivery_uuid)

    statuses = [
        buy_orders.post_events(delivered, delivered),
        buy_orders.post_events(delivered),
        buy_orders.post_events(event(delivery_uuid, "open"), delivered),
    ]

    assert statuses == [204] * 3
    assert sorted(item["event"] for item in buy_orders.only_delivery()["events"]) == ["delivered", "open"]


def test_only_events_that_the_email_service_signed_are_stored(buy_orders: BuyOrdersWorld) -> None:
    """401 without a signature, with another key, or with a timestamp that is too old or in the future."""
    delivery_uuid = create_delivery(buy_orders, "UNCERTAIN")
    delivered = event(delivery_uuid)
    other_key = ec.generate_private_key(ec.SECP256R1())
    client = app("email_events").application.test_client()
    invalid_headers: list[dict[str, str]] = [
        {},
        {"X-Twilio-Email-Event-Webhook-Signature": "???", "X-Twilio-Email-Event-Webhook-Timestamp": "now"},
        {"X-Twilio-Email-Event-Webhook-Signature": "AAAA", "X-Twilio-Email-Event-Webhook-Timestamp": "1780000000"},
    ]

    statuses = [
        buy_orders.post_events(delivered, key=other_key),
        buy_orders.post_events(delivered, age_seconds=900),
        buy_orders.post_events(delivered, age_seconds=-900),
        *(client.post("/email-events", json=[delivered], headers=headers).status_code for headers in invalid_headers),
    ]

    assert statuses == [401] * 6
    assert buy_orders.only_delivery()["events"] == []
    assert buy_orders.only_delivery()["status"] == "UNCERTAIN"
    assert buy_orders.post_events(delivered, age_seconds=120) == 204


def test_a_signature_is_valid_for_one_body(buy_orders: BuyOrdersWorld) -> None:
    """A signature of another body is refused."""
    delivery_uuid = create_delivery(buy_orders, "UNCERTAIN")
    accepted = buy_orders.post_body(b"[]")
    client = app("email_events").application.test_client()
    signature = {name: value for name, value in accepted.request.headers.items() if name.startswith("X-Twilio")}

    refused = client.post("/email-events", json=[event(delivery_uuid)], headers=signature)

    assert (accepted.status_code, len(signature), refused.status_code) == (204, 2, 401)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no json", id="not JSON"),
        pytest.param(b"{}", id="an object"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"[", id="cut off"),
        pytest.param(b"\xff", id="not text"),
    ],
)
def test_a_body_that_is_not_a_list_is_malformed(buy_orders: BuyOrdersWorld, body: bytes) -> None:
    """The response is 400 although the body is signed, so that the email service logs the mistake."""
    assert buy_orders.post_body(body).status_code == 400


def test_other_items_in_the_list_are_skipped(buy_orders: BuyOrdersWorld) -> None:
    """Events of other emails and deliveries, and malformed items, do not prevent that the rest is stored."""
    delivery_uuid = create_delivery(buy_orders)
    other_items = [
        {},
        event(delivery_uuid, timestamp=-1),
        event(delivery_uuid, timestamp=10**20),
        event(delivery_uuid, sg_event_id=None),
        {key: value for key, value in event("x").items() if key != "send_uuid"},
        event("not-a-uuid"),
        event(uuid.uuid4()),
        event(uuid.UUID(int=0), "delivered"),
    ]

    assert buy_orders.post_events(*other_items, event(delivery_uuid, "delivered", reason="a\0b")) == 204

    (stored,) = buy_orders.only_delivery()["events"]
    assert (stored["event"], stored["reason"]) == ("delivered", "ab")


def test_concurrent_requests_do_not_deadlock(buy_orders: BuyOrdersWorld) -> None:
    """The requests name the deliveries in different order. Every event is stored once."""
    delivery_uuids = [create_delivery(buy_orders) for _ in range(6)]
    events = [event(delivery_uuid, kind) for delivery_uuid in delivery_uuids for kind in ("processed", "delivered")]
    statuses: list[int] = []

    def post_shuffled() -> None:
        statuses.append(buy_orders.post_events(*random.sample(events, len(events))))

    for _ in range(5):
        buy_orders.at_once(*[post_shuffled] * 4)

    assert set(statuses) == {204}
    assert all(len(item["events"]) == 2 for item in buy_orders.list_deliveries()["items"])


def test_without_a_public_key_no_event_is_accepted(
    buy_orders: BuyOrdersWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The response is 500, and the log names the missing setting."""
    buy_orders.configure("functions.buy_orders.email_events")

    assert buy_orders.post_events(event(uuid.uuid4())) == 500
    assert "SENDGRID_WEBHOOK_PUBLIC_KEY" in caplog.text


def test_a_public_key_of_another_kind_is_named(buy_orders: BuyOrdersWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Someone pasted an RSA key. The response is 500, and the log names the setting."""
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    der = rsa_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    public_key = base64.b64encode(der).decode()
    buy_orders.configure("functions.buy_orders.email_events", SENDGRID_WEBHOOK_PUBLIC_KEY=public_key)

    assert buy_orders.post_events(event(uuid.uuid4())) == 500
    assert "SENDGRID_WEBHOOK_PUBLIC_KEY is not an elliptic curve key." in caplog.text
