"""email_events: what the mail service tells is kept once, believed only with its signature, and proves acceptance."""

from __future__ import annotations

import random
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.clients.mailer import MailDeferred, MailRejected, MailStatusUnknown
from tests.buy_orders_world import event
from tests.world import app

STATES = {
    "SENT": [],
    "UNCERTAIN": [MailStatusUnknown("No answer.")],
    "FILES_READY": [MailDeferred("busy", 60)],
    "FAILED": [MailRejected("No.")],
}


def a_send(buying, state="SENT"):
    """A mail in `state`; its uuid."""
    buying.mail_service.answers.extend(STATES[state])
    send_uuid = buying.ask_for_mail().json["uuid"]
    buying.run()
    assert buying.mails()["items"][0]["status"] == state
    return send_uuid


def events_of(buying):
    return [told["event"] for told in buying.only_send()["events"]]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("processed", "processed"),
        ("delivered", "delivered"),
        ("bounce", "bounced"),
        ("dropped", "dropped"),
        ("deferred", "deferred"),
    ],
)
def test_an_event_appears_on_its_mail(buying, kind, shown):
    """With the address that it is about, the reason and the time."""
    send_uuid = a_send(buying)

    assert buying.tell(event(send_uuid, kind, email="x@y.example", reason="550 no")) == 204

    (told,) = buying.only_send()["events"]
    assert told == {
        "event": shown,
        "recipient": "x@y.example",
        "reason": "550 no",
        "occurred_at": "2026-05-28T20:26:40Z",
    }
    assert buying.only_send()["status"] == "SENT"


@pytest.mark.parametrize("kind", ["delivered", "bounce", "spamreport"])
@pytest.mark.parametrize(
    ("before", "after"), [("SENT", "SENT"), ("UNCERTAIN", "SENT"), ("FILES_READY", "SENT"), ("FAILED", "FAILED")]
)
def test_any_event_proves_that_the_mail_was_taken(buying, before, after, kind):
    """Of every state but FAILED, of which the mail service said itself that it refused the mail."""
    send_uuid = a_send(buying, before)

    assert buying.tell(event(send_uuid, kind)) == 204

    send = buying.only_send()
    assert send["status"] == after
    assert (send["sent_at"] is not None) == (after == "SENT")
    assert (send["reason"] == "") == (after == "SENT")
    buying.recover()
    assert len(buying.mail_service.taken) == (before == "SENT")
    buying.assert_settled()


def test_an_event_that_comes_before_the_answer_is_enough(buying):
    """The mail service may tell of a mail before the function has written its yes."""
    buying.ask_for_mail()
    send_uuid = buying.only_send()["uuid"]
    buying.mail_service.before_answer = lambda: buying.tell(event(send_uuid))

    buying.run()

    assert buying.only_send()["status"] == "SENT"
    assert len(buying.mail_service.taken) == 1
    buying.recover()
    buying.assert_settled()


def test_an_event_that_comes_again_changes_nothing(buying):
    """The service repeats itself; its id of the event tells."""
    send_uuid = a_send(buying)
    told = event(send_uuid)

    assert [buying.tell(told, told), buying.tell(told), buying.tell(event(send_uuid, "open"), told)] == [204] * 3

    assert sorted(events_of(buying)) == ["delivered", "open"]


def test_only_the_mail_service_is_believed(buying):
    """No signature, another's key, another body, an old or future timestamp: 401, and nothing is kept."""
    send_uuid = a_send(buying, "UNCERTAIN")
    told = event(send_uuid)
    other_key = ec.generate_private_key(ec.SECP256R1())
    client = app("email_events").application.test_client()
    bad_headers = [
        {},
        {"X-Twilio-Email-Event-Webhook-Signature": "???", "X-Twilio-Email-Event-Webhook-Timestamp": "now"},
        {"X-Twilio-Email-Event-Webhook-Signature": "AAAA", "X-Twilio-Email-Event-Webhook-Timestamp": "1780000000"},
    ]

    statuses = [
        buying.tell(told, key=other_key),
        buying.tell(told, age_seconds=900),
        buying.tell(told, age_seconds=-900),
        *(client.post("/email-events", json=[told], headers=headers).status_code for headers in bad_headers),
    ]

    assert statuses == [401] * 6
    assert buying.only_send()["events"] == []
    assert buying.only_send()["status"] == "UNCERTAIN"
    assert buying.tell(told, age_seconds=120) == 204


def test_a_signature_is_of_one_body(buying):
    """What was signed for one body is not taken for another."""
    send_uuid = a_send(buying, "UNCERTAIN")
    answer = buying.post_events(b"[]")
    client = app("email_events").application.test_client()
    signed = {name: value for name, value in answer.request.headers.items() if name.startswith("X-Twilio")}

    told = client.post("/email-events", json=[event(send_uuid)], headers=signed)

    assert (answer.status_code, len(signed), told.status_code) == (204, 2, 401)


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
def test_a_body_that_is_no_list_is_malformed(buying, body):
    """Though signed: 400, so that the service's own log shows it."""
    assert buying.post_events(body).status_code == 400


def test_what_is_no_event_of_ours_is_left_out(buying):
    """Other mails of the account, unknown sends and strange members do not keep the rest from being taken."""
    send_uuid = a_send(buying)
    strange = [
        {},
        event(send_uuid, timestamp=-1),
        event(send_uuid, timestamp=10**20),
        event(send_uuid, sg_event_id=None),
        {key: value for key, value in event("x").items() if key != "send_uuid"},
        event("not-a-uuid"),
        event(uuid.uuid4()),
        event(uuid.UUID(int=0), "delivered"),
    ]

    assert buying.tell(*strange, event(send_uuid, "delivered", reason="a\0b")) == 204

    (told,) = buying.only_send()["events"]
    assert (told["event"], told["reason"]) == ("delivered", "ab")


def test_two_deliveries_at_once_do_not_wait_for_each_other(buying):
    """Whatever order they name the mails in: every event is kept once."""
    sends = [a_send(buying) for _ in range(6)]
    told = [event(send_uuid, kind) for send_uuid in sends for kind in ("processed", "delivered")]
    statuses = []

    def deliver():
        shuffled = random.sample(told, len(told))
        statuses.append(buying.tell(*shuffled))

    for _ in range(5):
        buying.at_once(*[deliver] * 4)

    assert set(statuses) == {204}
    assert all(len(item["events"]) == 2 for item in buying.mails()["items"])


def test_the_key_has_to_be_set(buying, caplog):
    """Without it nothing is believed: 500, and the log names the setting."""
    buying.configure("functions.buy_orders.email_events")

    assert buying.tell(event(uuid.uuid4())) == 500
    assert "SENDGRID_WEBHOOK_PUBLIC_KEY" in caplog.text
