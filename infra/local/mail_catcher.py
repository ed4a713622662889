"""The mail service: SendGrid's API as far as it is used. Every mail that it takes becomes an .eml file.

It checks a mail as SendGrid does, and tells by its signed event webhook what became of it: an address that begins with
`bounce`, `drop` or `defer` meets that, any other is delivered to.

Faults are switched on by a file `faults.json` beside the mails, a list that is used up from its start, one a mail:
`{"status": 429, "headers": {"Retry-After": "2"}}` answers so, `{"status": 0}` closes the connection instead, with
`"taken": true` after the mail was taken all the same, with `"hang_seconds": 60` only then.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local.ports import HOST
from infra.local.state import write_whole
from infra.local.supervisor import Child

API_KEY = "SG.local"
SENDER = "orders@shop.example"
SEND_PATH = "/v3/mail/send"
FAULTS_FILE = "faults.json"
MAX_MAIL_BYTES = 30 * 1024 * 1024  # SendGrid's limit

OUTCOMES = {"bounce": ("bounce",), "drop": ("dropped",), "defer": ("deferred", "delivered")}
REASONS = {"bounce": "550 5.1.1 There is no such mailbox.", "dropped": "Bounced Address"}
RESPONSES = {"deferred": "451 4.7.1 Try again later.", "delivered": "250 OK"}
WEBHOOK_TRIES = 20  # over a minute and a half: the function that takes the events may be starting
WEBHOOK_TIMEOUT_SECONDS = 10
LONGEST_WAIT_SECONDS = 5.0


def signing_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The key that signs the event webhook; made where it is missing."""
    path = directory / "mail-key.pem"
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(path, pem, secret=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is not the key of a mail service.")
    return key


def public_key(directory: Path) -> str:
    """What the webhook's signatures are checked with, as SendGrid shows it: base64 of its DER."""
    der = (
        signing_key(directory)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(der).decode()


@dataclass(frozen=True)
class Fault:
    """What happens to one mail instead of a 202."""

    status: int = 0  # to answer; 0: the connection is closed
    headers: dict[str, str] = field(default_factory=dict)
    taken: bool = False  # whether the mail goes out all the same
    hang_seconds: float = 0.0  # before the answer


@dataclass(frozen=True)
class Webhook:
    """Where events go, and who signs them."""

    url: str
    key: ec.EllipticCurvePrivateKey

    def tell(self, events: list[dict[str, Any]]) -> None:
        """Posts `events` in the background, again until they are taken."""
        threading.Thread(target=self._tell, args=(json.dumps(events).encode(),), daemon=True).start()

    def _tell(self, body: bytes) -> None:
        for attempt in range(WEBHOOK_TRIES):
            try:
                with urllib.request.urlopen(self.signed(body), timeout=WEBHOOK_TIMEOUT_SECONDS):
                    return
            except (OSError, http.client.HTTPException) as error:
                print(f"The events were not taken: {error}", flush=True)
                time.sleep(min(0.1 * 2**attempt, LONGEST_WAIT_SECONDS))

    def signed(self, body: bytes) -> urllib.request.Request:
        """The request that posts `body`, signed now."""
        timestamp = str(int(time.time()))
        signature = base64.b64encode(self.key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256())))
        headers = {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": signature.decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        return urllib.request.Request(self.url, body, headers)


@dataclass
class Post:
    """The mails that were taken, the faults that are still to come, and who is told of each mail."""

    directory: Path  # of the mails
    webhook: Webhook | None = None  # None: nobody is told
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: dict[str, Any]) -> str:
        """Writes the mail down and tells what becomes of it; returns its id."""
        message_id = uuid.uuid4().hex
        write_whole(self.directory / f"{message_id}.eml", as_mail(request, message_id).as_bytes())
        if self.webhook:
            self.webhook.tell(list(events_of(request, message_id)))
        return message_id

    def next_fault(self) -> Fault | None:
        """The fault that is meant for this mail, which uses it up."""
        path = self.directory / FAULTS_FILE
        with self._lock:
            if not path.exists():
                return None
            faults = json.loads(path.read_bytes())
            if not faults:
                return None
            write_whole(path, json.dumps(faults[1:]).encode())
            return Fault(**faults[0])


def events_of(request: dict[str, Any], message_id: str) -> Iterator[dict[str, Any]]:
    """What becomes of a mail at each of its addresses."""
    for person in people(request):
        local_part = person["email"].partition("@")[0]
        outcome = next((names for begin, names in OUTCOMES.items() if local_part.startswith(begin)), ("delivered",))
        for name in ("processed", *outcome):
            yield {
                **request.get("custom_args", {}),
                "email": person["email"],
                "timestamp": int(time.time()),
                "event": name,
                "sg_event_id": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
                "sg_message_id": f"{message_id}.local",
                **({"reason": REASONS[name]} if name in REASONS else {}),
                **({"response": RESPONSES[name]} if name in RESPONSES else {}),
            }


def people(request: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Everybody who gets the mail."""
    for personalization in request["personalizations"]:
        for kind in ("to", "cc", "bcc"):
            yield from personalization.get(kind, ())


def errors_in(request: Any) -> Iterator[tuple[str, str]]:
    """What SendGrid would refuse: sentence and field.

    https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
    """
    if not isinstance(request, dict):
        yield "Bad Request", ""
        return
    if not request.get("personalizations") or not all(part.get("to") for part in request["personalizations"]):
        yield (
            "The to array is required for all personalization objects, and must have at least one email.",
            ("personalizations.0.to"),
        )
        return
    yield from errors_in_addresses(request)
    if not request.get("subject"):
        yield "The subject is required.", "subject"
    contents = request.get("content") or []
    if not contents or not all(content.get("value") for content in contents):
        yield "The content value must be a string at least one character in length.", "content.0.value"
    if [content.get("type") for content in contents] == ["text/html", "text/plain"]:
        yield "If present, text/plain must be first, followed by text/html.", "content"
    for position, attachment in enumerate(request.get("attachments", ())):
        yield from errors_in_attachment(attachment, f"attachments.{position}")


def errors_in_addresses(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Addresses that are none, or that stand twice; names that may not stand in a header."""
    seen = set()
    for person in people(request):
        address = person.get("email", "")
        if address.count("@") != 1 or not address.isascii() or any(mark in address for mark in " \r\n\t,;<>"):
            yield "Does not contain a valid address.", "personalizations.0.to.0.email"
        if address.lower() in seen:
            yield f"Each email address should be unique between to, cc, and bcc. Twice: {address}", "personalizations.0"
        if any(mark in person.get("name", "") for mark in "\r\n,;"):
            yield "The name may not contain a comma, a semicolon or a line break.", "personalizations.0.to.0.name"
        seen.add(address.lower())
    for name, person in (("from", request.get("from", {})), ("reply_to", request.get("reply_to"))):
        if person is not None and "@" not in person.get("email", ""):
            yield "The email must be a string and a valid address.", f"{name}.email"
    if any(mark in request.get("subject", "") for mark in "\r\n"):
        yield "The subject may not contain a line break.", "subject"


def errors_in_attachment(attachment: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
    """An attachment without content or name, or with marks that would end a header."""
    try:
        content = base64.b64decode(attachment.get("content", ""), validate=True)
    except (binascii.Error, TypeError):
        content = b""
    if not content:
        yield "The attachment content is required and must be base64 encoded.", f"{at}.content"
    if any(mark in attachment.get("type", "") for mark in ";\r\n"):
        yield "The attachment type cannot contain ; or CRLF characters.", f"{at}.type"
    if not attachment.get("filename") or any(mark in attachment["filename"] for mark in ";\r\n"):
        yield "The attachment filename is required and cannot contain ; or CRLF characters.", f"{at}.filename"


def as_mail(request: dict[str, Any], message_id: str) -> EmailMessage:
    """SendGrid's JSON as the mail it would become."""
    mail = EmailMessage(policy=SMTP)
    mail["Message-ID"] = f"<{message_id}@local>"
    mail["From"] = address(request["from"])
    for header, kind in (("To", "to"), ("Cc", "cc")):
        if listed := [address(person) for part in request["personalizations"] for person in part.get(kind, ())]:
            mail[header] = ", ".join(listed)
    if reply_to := request.get("reply_to"):
        mail["Reply-To"] = address(reply_to)
    mail["Subject"] = request["personalizations"][0].get("subject") or request.get("subject", "")
    texts = {content["type"]: content["value"] for content in request.get("content", ())}
    mail.set_content(texts.get("text/plain", ""))
    if "text/html" in texts:
        mail.add_alternative(texts["text/html"], subtype="html")
    for attachment in request.get("attachments", ()):
        maintype, _, subtype = attachment.get("type", "application/octet-stream").partition("/")
        mail.add_attachment(
            base64.b64decode(attachment["content"]),
            maintype,
            subtype or "octet-stream",
            filename=attachment["filename"],
            params={"charset": "utf-8"} if maintype == "text" else None,
        )
    return mail


def address(person: dict[str, str]) -> str:
    """A mail address with its name, where it has one."""
    name = person.get("name", "").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{person["email"]}>' if name else person["email"]


class Handler(BaseHTTPRequestHandler):
    """POST /v3/mail/send, and nothing else."""

    protocol_version = "HTTP/1.1"

    def __init__(self, post: Post, *arguments: Any) -> None:
        """Mails go to `post`."""
        self.post = post
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """Takes one mail: 202 and its X-Message-Id."""
        size_bytes = int(self.headers.get("Content-Length") or 0)
        if size_bytes > MAX_MAIL_BYTES:
            self.close_connection = True
            self.refuse(413, [("The JSON payload you have included in your request is too large.", "")])
            return
        body = self.rfile.read(size_bytes)
        if self.path != SEND_PATH:
            self.refuse(404, [("Not found", "")])
        elif self.headers.get("Authorization") != f"Bearer {API_KEY}":
            self.refuse(401, [("The provided authorization grant is invalid, expired, or revoked", "")])
        elif self.headers.get_content_type() != "application/json":
            self.refuse(415, [("Content-Type should be application/json.", "")])
        else:
            self.answer(body)

    def answer(self, body: bytes) -> None:
        """Takes the mail, refuses it, or does what the next fault says."""
        try:
            request = json.loads(body)
        except ValueError:
            self.refuse(400, [("Bad Request", "")])
            return
        if errors := list(errors_in(request)):
            self.refuse(400, errors)
        elif fault := self.post.next_fault():
            self.fail(request, fault)
        else:
            self.reply(202, headers={"X-Message-Id": self.post.take(request)})

    def fail(self, request: dict[str, Any], fault: Fault) -> None:
        """Does what `fault` says."""
        if fault.taken:
            self.post.take(request)
        time.sleep(fault.hang_seconds)
        if fault.status:
            self.refuse(fault.status, [("As faults.json says.", "")], fault.headers)
        else:
            self.close_connection = True

    def refuse(self, status: int, errors: list[tuple[str, str]], headers: dict[str, str] | None = None) -> None:
        """An answer in the form of SendGrid's errors."""
        told = [{"message": message, "field": at or None, "help": None} for message, at in errors]
        self.reply(status, json.dumps({"errors": told}).encode(), headers)

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """An answer."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(child: Child, port: int, directory: Path, keys: Path, webhook_url: str) -> None:
    """Serves until it is killed. `keys` is the folder of the key that signs events."""
    directory.mkdir(exist_ok=True)
    post = Post(directory, Webhook(webhook_url, signing_key(keys)))
    server = ThreadingHTTPServer((HOST, port), partial(Handler, post))
    child.ready()
    server.serve_forever()
