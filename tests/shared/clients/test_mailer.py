"""The mail service's client against an HTTP server: every answer means exactly one thing for the mail."""

from __future__ import annotations

import email
import email.policy
import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import ThreadingHTTPServer

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
def catcher(tmp_path):
    """The mail catcher with nobody to tell; its folder and its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(mail_catcher.Handler, mail_catcher.Post(tmp_path)))
    with serving(server):
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"


def client(host, key=mail_catcher.API_KEY):
    environment = {"SENDGRID_HOST": host, "SENDGRID_API_KEY": key, "MAIL_FROM_ADDRESS": mail_catcher.SENDER}
    return Mailer(from_environment(environment))


def switch_on(folder, *faults):
    (folder / mail_catcher.FAULTS_FILE).write_text(json.dumps(faults))


def taken(folder):
    """The mails that were taken, read by a mail program."""
    return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in folder.glob("*.eml")]


def test_a_mail_is_taken_as_it_was_written(catcher):
    """Names in any script, copies, reply-to, both texts, and every attachment byte for byte."""
    folder, host = catcher

    message_id = client(host).send(MAIL)

    (mail,) = taken(folder)
    assert message_id in mail["Message-ID"]
    assert mail["From"] == f'"Müller \\"& Söhne\\"" <{mail_catcher.SENDER}>'
    assert (mail["To"], mail["Cc"]) == ("Supplier Ltd 株式会社 <orders@supplier.example>", "a@b.example")
    assert mail["Reply-To"].addresses[0].addr_spec == "shop@shop.example"
    assert mail["Subject"] == MAIL.subject
    texts = [mail.get_body((kind,)).get_content().replace("\r\n", "\n") for kind in ("plain", "html")]
    assert texts == [MAIL.text, MAIL.html]
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
def test_an_answer_means_one_thing(catcher, status, meaning):
    """429 and 503: it was not taken. Other 4xx: it never will be. Anything else but 202: nobody can tell."""
    folder, host = catcher
    switch_on(folder, {"status": status})

    with pytest.raises(meaning, match=str(status)):
        client(host).send(MAIL)

    assert taken(folder) == []


def test_a_refusal_says_why(catcher):
    """In the mail service's own words."""
    folder, host = catcher
    broken = Mail(**{**vars(MAIL), "recipient": "nobody"})

    with pytest.raises(MailRejected, match=r"refused the mail \(400\): Does not contain a valid address"):
        client(host).send(broken)
    with pytest.raises(MailRejected, match=r"\(401\): The provided authorization grant is invalid"):
        client(host, "SG.other").send(MAIL)
    assert taken(folder) == []


def test_a_connection_that_breaks_tells_nothing(catcher):
    """Whether the mail was taken or not, both look the same from here."""
    folder, host = catcher
    switch_on(folder, {"taken": True}, {"taken": False})

    for _ in range(2):
        with pytest.raises(MailStatusUnknown):
            client(host).send(MAIL)

    assert len(taken(folder)) == 1


def test_a_service_that_hangs_is_not_waited_for(catcher, monkeypatch):
    """The SDK alone would wait for ever."""
    folder, host = catcher
    monkeypatch.setattr(mailer, "TIMEOUT_SECONDS", 0.2)
    switch_on(folder, {"taken": True, "hang_seconds": 600, "status": 500})

    with pytest.raises(MailStatusUnknown, match="TimeoutError"):
        client(host).send(MAIL)


def test_where_nobody_listens_nothing_was_taken(catcher):
    """A refused connection, or no such host, proves it."""
    [port] = ports.free_ports(1)

    for host in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        with pytest.raises(MailDeferred):
            client(host).send(MAIL)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nab", id="cut off"),
        pytest.param(b"rubbish\r\n\r\n", id="not HTTP"),
    ],
)
def test_half_an_answer_tells_nothing(answer):
    """Not even half a yes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()

        with pytest.raises(MailStatusUnknown):
            client(f"http://127.0.0.1:{listener.getsockname()[1]}").send(MAIL)


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
def test_retry_after_is_read(catcher, value, seconds):
    """Seconds or a date; what says nothing is left to the caller."""
    folder, host = catcher
    switch_on(folder, {"status": 429, "headers": {"Retry-After": value}})

    with pytest.raises(MailDeferred) as busy:
        client(host).send(MAIL)

    assert busy.value.retry_after_seconds == seconds


def test_retry_after_may_be_a_date():
    """In an hour, less what it took to get here."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    assert 3_000 <= mailer.retry_after_seconds(date) <= 3_600


def test_settings_that_are_missing_are_named():
    """Before anything is begun."""
    with pytest.raises(InvalidSettings, match=r"SENDGRID_API_KEY is not set.*\nMAIL_FROM_ADDRESS is not set"):
        Mailer(from_environment({}))
