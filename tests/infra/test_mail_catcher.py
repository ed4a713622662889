"""The local email service refuses what SendGrid refuses, and reports the result of an email in signed events."""

from __future__ import annotations

import copy
import json
import urllib.error
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from sendgrid.helpers.eventwebhook import EventWebhook

from infra.local import mail_catcher
from tests.infra.conftest import Receiver, serving

if TYPE_CHECKING:
    from pathlib import Path

VALID: dict[str, Any] = {
    "personalizations": [{"to": [{"email": "a@b.example", "name": "Ann"}], "cc": [{"email": "bounce@b.example"}]}],
    "from": {"email": "shop@shop.example"},
    "reply_to": {"email": "shop@shop.example"},
    "subject": "Order",
    "content": [{"type": "text/plain", "value": "text"}, {"type": "text/html", "value": "<p>html</p>"}],
    "attachments": [{"content": "YQ==", "type": "text/csv", "filename": "a.csv"}],
    "custom_args": {"send_uuid": "1"},
}


def post(
    folder: Path,
    body: bytes,
    headers: dict[str, str] | None = None,
    webhook: mail_catcher.Webhook | None = None,
) -> tuple[int, bytes]:
    """Posts an email to a new email service and returns the status and the body of the response."""
    catcher = mail_catcher.Post(folder, webhook)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(mail_catcher.Handler, catcher))
    defaults = {"Authorization": f"Bearer {mail_catcher.API_KEY}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{server.server_port}/v3/mail/send"
    request = urllib.request.Request(url, body, defaults | (headers or {}))
    with serving(server):
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        pytest.param(("personalizations",), [], "personalizations.0.to", id="no personalization"),
        pytest.param(("personalizations", 0, "to"), [], "personalizations.0.to", id="no recipient"),
        pytest.param(
            ("personalizations", 0, "to", 0, "email"),
            "nobody",
            "personalizations.0.to.0.email",
            id="malformed recipient",
        ),
        pytest.param(
            ("personalizations", 0, "to", 0, "email"),
            "a@b.example\r\nBcc: c@d.example",
            "personalizations.0.to.0.email",
            id="header injection",
        ),
        pytest.param(
            ("personalizations", 0, "to", 0, "name"), "Ann, Ltd", "personalizations.0.to.0.name", id="comma in a name"
        ),
        pytest.param(
            ("personalizations", 0, "cc", 0, "email"), "A@B.example", "personalizations.0", id="repeated address"
        ),
        pytest.param(("from", "email"), "nobody", "from.email", id="malformed sender"),
        pytest.param(("subject",), "", "subject", id="empty subject"),
        pytest.param(("subject",), "a\r\nb", "subject", id="line break in the subject"),
        pytest.param(("content",), [], "content.0.value", id="no content"),
        pytest.param(("content", 0, "value"), "", "content.0.value", id="empty content"),
        pytest.param(("attachments", 0, "content"), "", "attachments.0.content", id="empty attachment"),
        pytest.param(("attachments", 0, "content"), "not base64!", "attachments.0.content", id="attachment not base64"),
        pytest.param(
            ("attachments", 0, "type"), "text/csv; charset=utf-8", "attachments.0.type", id="parameter in a type"
        ),
        pytest.param(("attachments", 0, "filename"), "", "attachments.0.filename", id="empty file name"),
    ],
)
def test_an_email_that_sendgrid_refuses_is_refused(
    tmp_path: Path, path: tuple[Any, ...], value: Any, field: str
) -> None:
    """The response has status 400 and the errors in SendGrid's format, and no email is stored."""
    invalid = copy.deepcopy(VALID)
    *parents, key = path
    member = invalid
    for parent in parents:
        member = member[parent]
    member[key] = value

    status, body = post(tmp_path, json.dumps(invalid).encode())

    assert status == 400
    assert field in [error["field"] for error in json.loads(body)["errors"]]
    assert list(tmp_path.glob("*.eml")) == []


def test_invalid_requests_are_refused(tmp_path: Path) -> None:
    """A request needs valid JSON, the right content type and the API key."""
    valid = json.dumps(VALID).encode()

    assert post(tmp_path, b"{")[0] == 400
    assert post(tmp_path, b"[]")[0] == 400
    assert post(tmp_path, valid, {"Content-Type": "text/plain"})[0] == 415
    assert post(tmp_path, valid, {"Authorization": "Bearer other"})[0] == 401
    assert post(tmp_path, valid) == (202, b"")


def test_each_fault_affects_one_email(tmp_path: Path) -> None:
    """A file beside the emails lists the faults. After the last one, emails are accepted again."""
    (tmp_path / mail_catcher.FAULTS_FILE).write_text('[{"status": 429}, {"status": 500, "taken": true}]')
    valid = json.dumps(VALID).encode()

    assert [post(tmp_path, valid)[0] for _ in range(3)] == [429, 500, 202]
    assert len(list(tmp_path.glob("*.eml"))) == 2


def test_events_are_signed_and_sent_until_they_are_accepted(tmp_path: Path, receiver: Receiver) -> None:
    """SendGrid's own verifier accepts the signature. The prefix of an address selects the events of its email."""
    receiver.statuses = [503, 401]
    webhook = mail_catcher.Webhook(f"{receiver.url}email-events", mail_catcher.signing_key(tmp_path))

    assert post(tmp_path, json.dumps(VALID).encode(), webhook=webhook)[0] == 202

    requests = receiver.wait(3)
    verifier = EventWebhook(mail_catcher.public_key(tmp_path))
    for request in requests:
        headers = {name.lower(): value for name, value in request.headers.items()}
        signature = headers["x-twilio-email-event-webhook-signature"]
        timestamp = headers["x-twilio-email-event-webhook-timestamp"]
        assert verifier.verify_signature(request.body.decode(), signature, timestamp)
    events = requests[-1].json
    assert [(event["email"], event["event"]) for event in events] == [
        ("a@b.example", "processed"),
        ("a@b.example", "delivered"),
        ("bounce@b.example", "processed"),
        ("bounce@b.example", "bounce"),
    ]
    assert {event["send_uuid"] for event in events} == {"1"}
    assert len({event["sg_event_id"] for event in events}) == 4
    assert events == requests[0].json
