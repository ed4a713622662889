"""The client of the email service against an HTTP server: each response means exactly one thing for the email."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra.local import mail_catcher, ports
from shared.clients import mailer
from shared.clients.mailer import File, Mail, MailDeferred, Mailer, MailRejected, MailStatusUnknown
from shared.settings import InvalidSettings, from_environment
from tests.infra.conftest import serving

MAIL = Mail(
    reference="6e5f6ac9-208b-49c8-b96d-b623e926b20b",
    sender_name='Müller "& Söhne"',
    reply_to="shop@shop.example",
    recipient="orders@supplier.example",
    recipient_name="Supplier, Ltd; 株式会社",
    cc=("a@b.example",),
    subject="Bestellung für Ελλάδα",
    text="A key: SG.abc.def\n",
    html="<p>A key</p>\n",
    files=(File("a.csv", "text/csv", "a,ü\r\n".encode()), File("a.pdf", "application/pdf", b"%PDF-")),
)


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A mail catcher that sends no events: its folder and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(mail_catcher.Handler, mail_catcher.Post(tmp_path)))
    with serving(server):
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"


def make_mailer(host: str, key: str = mail_catcher.API_KEY) -> Mailer:
    environment = {"SENDGRID_HOST": host, "SENDGRID_API_KEY": key, "MAIL_FROM_ADDRESS": mail_catcher.SENDER}
    return Mailer(from_environment(environment))


def switch_on(folder: Path, *faults: dict[str, object]) -> None:
    """Makes the catcher respond to the next emails with these faults, in this order."""
    (folder / mail_catcher.FAULTS_FILE).write_text(json.dumps(faults))


def read_accepted(folder: Path) -> list[EmailMessage]:
    """Reads the accepted emails as an email program does."""
    return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in folder.glob("*.eml")]


def test_an_email_arrives_unchanged(catcher: tuple[Path, str]) -> None:
    """It keeps names in any script, copies, reply-to, both texts, and every attachment byte for byte."""
    folder, host = catcher

    message_id = make_mailer(host).send(MAIL)

    (mail,) = read_accepted(folder)
    assert message_id in mail["Message-ID"]
    assert mail["From"] == f'"Müller \\"& Söhne\\"" <{mail_catcher.SENDER}>'
    assert (mail["To"], mail["Cc"]) == ("Supplier Ltd 株式会社 <orders@supplier.example>", "a@b.example")
    assert mail["Reply-To"].addresses[0].addr_spec == "shop@shop.example"
    assert mail["Subject"] == MAIL.subject
    bodies: list[Any] = [mail.get_body((kind,)) for kind in ("plain", "html")]
    assert [body.get_content().replace("\r\n", "\n") for body in bodies] == [MAIL.text, MAIL.html]
    assert [(part.get_filename(), part.get_payload(decode=True)) for part in mail.iter_attachments()] == [
        (file.name, file.content) for file in MAIL.files
    ]


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (429, MailDeferred),
        (503, MailDeferred),
        *((status, MailRejected) for status in (400, 401, 403, 404, 405, 408, 413, 415, 422)),
        *((status, MailStatusUnknown) for status in (200, 201, 204, 304, 307, 500, 501, 502, 504, 520, 599)),
    ],
)
def test_a_response_means_one_thing(catcher: tuple[Path, str], status: int, meaning: type[Exception]) -> None:
    """429 and 503: not accepted. Other 4xx: never accepted. Anything else but 202: unknown."""
    folder, host = catcher
    switch_on(folder, {"status": status})

    with pytest.raises(meaning, match=str(status)):
        make_mailer(host).send(MAIL)

    assert read_accepted(folder) == []


def test_a_rejection_includes_the_messages_of_the_service(catcher: tuple[Path, str]) -> None:
    """Only the service knows the reason."""
    folder, host = catcher
    without_recipient = replace(MAIL, recipient="nobody")

    with pytest.raises(MailRejected, match=r"refused the email \(400\): Does not contain a valid address"):
        make_mailer(host).send(without_recipient)
    with pytest.raises(MailRejected, match=r"\(401\): The provided authorization grant is invalid"):
        make_mailer(host, "SG.other").send(MAIL)
    assert read_accepted(folder) == []


def test_a_connection_that_breaks_proves_nothing(catcher: tuple[Path, str]) -> None:
    """The client cannot see whether the service accepted the email before."""
    folder, host = catcher
    switch_on(folder, {"taken": True}, {"taken": False})

    for _ in range(2):
        with pytest.raises(MailStatusUnknown):
            make_mailer(host).send(MAIL)

    assert len(read_accepted(folder)) == 1


def test_a_service_that_hangs_times_out(catcher: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK has no timeout of its own."""
    folder, host = catcher
    monkeypatch.setattr(mailer, "TIMEOUT_SECONDS", 0.2)
    switch_on(folder, {"taken": True, "hang_seconds": 600, "status": 500})

    with pytest.raises(MailStatusUnknown, match="TimeoutError"):
        make_mailer(host).send(MAIL)


def test_an_unreachable_service_has_not_accepted_the_email() -> None:
    """A refused connection and an unknown host name both prove it."""
    [port] = ports.free_ports(1)

    for host in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        with pytest.raises(MailDeferred):
            make_mailer(host).send(MAIL)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nab", id="cut off"),
        pytest.param(b"rubbish\r\n\r\n", id="not HTTP"),
    ],
)
def test_an_incomplete_response_proves_nothing(response: bytes) -> None:
    """This is so even if its status is 202."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(response)

        threading.Thread(target=serve, daemon=True).start()

        with pytest.raises(MailStatusUnknown):
            make_mailer(f"http://127.0.0.1:{listener.getsockname()[1]}").send(MAIL)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("0", 0, id="now"),
        pytest.param("120", 120, id="two minutes"),
        pytest.param("-5", 0, id="negative"),
        pytest.param("999999999", 24 * 3600, id="more than a day"),
        pytest.param("soon", None, id="a word"),
        pytest.param("", None, id="empty"),
        pytest.param("Mon, 01 Jan 2024 00:00:00 GMT", 0, id="a date that is past"),
    ],
)
def test_retry_after_is_read(catcher: tuple[Path, str], value: str, seconds: int | None) -> None:
    """It is a number of seconds or a date. If it is invalid, the caller chooses the time."""
    folder, host = catcher
    switch_on(folder, {"status": 429, "headers": {"Retry-After": value}})

    with pytest.raises(MailDeferred) as busy:
        make_mailer(host).send(MAIL)

    assert busy.value.retry_after_seconds == seconds


def test_retry_after_may_be_a_date() -> None:
    """It is one hour from now, less the time that this test takes."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    seconds = mailer.parse_retry_after(date)

    assert seconds is not None
    assert 3_000 <= seconds <= 3_600


def test_missing_settings_are_named() -> None:
    """The error comes before the client does anything."""
    with pytest.raises(InvalidSettings, match=r"SENDGRID_API_KEY is not set.*\nMAIL_FROM_ADDRESS is not set"):
        Mailer(from_environment({}))


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        pytest.param(b"<html>Bad Request</html>", "<html>Bad Request</html>", id="HTML"),
        pytest.param(b'{"error": "no list"}', '{"error": "no list"}', id="other JSON"),
        pytest.param(b'{"errors": ["a text"]}', '{"errors": ["a text"]}', id="other errors"),
        pytest.param(b"", "it gave no reason.", id="nothing"),
    ],
)
def test_a_rejection_in_another_form_includes_what_the_service_responded(body: bytes, messages: str) -> None:
    """A proxy in between responds in its own form. The reason of the delivery still says something."""
    assert mailer.extract_messages(body) == messages
