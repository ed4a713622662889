"""The email service: the part of SendGrid's API that the project uses. Every accepted email becomes an .eml file.

It validates an email as SendGrid does, and reports through the signed event webhook what happened to it: an email to an
address that begins with `bounce`, `drop` or `defer` is bounced, dropped or deferred; any other email is delivered.

To simulate failures, write a list of faults to `faults.json` in the folder of the emails. Each email uses the first
fault of the list and removes it:

`{"status": 429, "headers": {"Retry-After": "2"}}` returns this response instead of a 202.
`{"status": 0}` closes the connection without a response.
`"taken": true` accepts the email nevertheless.
`"hang_seconds": 60` waits before the response.
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
from infra.local.state import write_atomically
from infra.local.supervisor import Child

API_KEY = "SG.local"
SENDER = "orders@shop.example"
SEND_PATH = "/v3/mail/send"
FAULTS_FILE = "faults.json"
MAX_EMAIL_BYTES = 30 * 1024 * 1024  # SendGrid's limit

OUTCOMES = {"bounce": ("bounce",), "drop": ("dropped",), "defer": ("deferred", "delivered")}
REASONS = {"bounce": "550 5.1.1 The mailbox does not exist.", "dropped": "Bounced Address"}
RESPONSES = {"deferred": "451 4.7.1 Try again later.", "delivered": "250 OK"}
WEBHOOK_ATTEMPTS = 20  # over a minute and a half: the function that receives the events may be starting
WEBHOOK_TIMEOUT_SECONDS = 10
MAX_BACKOFF_SECONDS = 5.0


def signing_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    """Returns the key that signs the event webhook. Creates it where it is missing."""
    path = directory / "mail-key.pem"
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, pem, secret=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} does not contain an elliptic-curve key. Delete it: a new key will be created.")
    return key


def public_key(directory: Path) -> str:
    """Returns the key that verifies the webhook's signatures, as SendGrid shows it: DER in base64."""
    der = (
        signing_key(directory)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return base64.b64encode(der).decode()


@dataclass(frozen=True)
class Fault:
    """A simulated failure, which one email gets instead of a 202."""

    status: int = 0  # of the response; 0 closes the connection without one
    headers: dict[str, str] = field(default_factory=dict)
    taken: bool = False  # True: the email is accepted nevertheless
    hang_seconds: float = 0.0  # before the response


@dataclass(frozen=True)
class Webhook:
    """The receiver of the events, and the key that signs them."""

    url: str
    key: ec.EllipticCurvePrivateKey

    def post(self, events: list[dict[str, Any]]) -> None:
        """Posts `events` in the background, and again until they are accepted."""
        threading.Thread(target=self._post, args=(json.dumps(events).encode(),), daemon=True).start()

    def _post(self, body: bytes) -> None:
        for attempt in range(WEBHOOK_ATTEMPTS):
            try:
                with urllib.request.urlopen(self.sign(body), timeout=WEBHOOK_TIMEOUT_SECONDS):
                    return
            except (OSError, http.client.HTTPException) as error:
                print(f"The events were not accepted: {error}", flush=True)
                time.sleep(min(0.1 * 2**attempt, MAX_BACKOFF_SECONDS))

    def sign(self, body: bytes) -> urllib.request.Request:
        """Returns the request that posts `body`, signed at this moment."""
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
    """Accepts emails, and knows the faults of the next ones."""

    directory: Path  # of the emails
    webhook: Webhook | None = None  # None: no events are sent
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, request: dict[str, Any]) -> str:
        """Writes the email to its file, and sends its events. Returns the message id."""
        message_id = uuid.uuid4().hex
        write_atomically(self.directory / f"{message_id}.eml", make_email(request, message_id).as_bytes())
        if self.webhook:
            self.webhook.post(list(make_events(request, message_id)))
        return message_id

    def use_next_fault(self) -> Fault | None:
        """Returns the first fault and removes it from the list. Returns None when there are no faults."""
        path = self.directory / FAULTS_FILE
        with self._lock:
            if not path.exists():
                return None
            faults = json.loads(path.read_bytes())
            if not faults:
                return None
            write_atomically(path, json.dumps(faults[1:]).encode())
            return Fault(**faults[0])


def make_events(request: dict[str, Any], message_id: str) -> Iterator[dict[str, Any]]:
    """Yields the events of an email for each of its recipients."""
    for recipient in recipients_of(request):
        local_part = recipient["email"].partition("@")[0]
        outcome = next((names for prefix, names in OUTCOMES.items() if local_part.startswith(prefix)), ("delivered",))
        for name in ("processed", *outcome):
            yield {
                **request.get("custom_args", {}),
                "email": recipient["email"],
                "timestamp": int(time.time()),
                "event": name,
                "sg_event_id": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
                "sg_message_id": f"{message_id}.local",
                **({"reason": REASONS[name]} if name in REASONS else {}),
                **({"response": RESPONSES[name]} if name in RESPONSES else {}),
            }


def recipients_of(request: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Yields every recipient of the email."""
    for personalization in request["personalizations"]:
        for kind in ("to", "cc", "bcc"):
            yield from personalization.get(kind, ())


def find_errors(request: Any) -> Iterator[tuple[str, str]]:
    """Yields what SendGrid would refuse: the message and the field.

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
    yield from find_address_errors(request)
    if not request.get("subject"):
        yield "The subject is required.", "subject"
    contents = request.get("content") or []
    if not contents or not all(content.get("value") for content in contents):
        yield "The content value must be a string at least one character in length.", "content.0.value"
    if [content.get("type") for content in contents] == ["text/html", "text/plain"]:
        yield "If present, text/plain must be first, followed by text/html.", "content"
    for position, attachment in enumerate(request.get("attachments", ())):
        yield from find_attachment_errors(attachment, f"attachments.{position}")


def find_address_errors(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields invalid and repeated addresses, and names and subjects that are not allowed in a header."""
    seen = set()
    for recipient in recipients_of(request):
        address = recipient.get("email", "")
        if address.count("@") != 1 or not address.isascii() or any(mark in address for mark in " \r\n\t,;<>"):
            yield "Does not contain a valid address.", "personalizations.0.to.0.email"
        if address.lower() in seen:
            yield (
                f"Each email address should be unique between to, cc, and bcc. Repeated: {address}",
                "personalizations.0",
            )
        if any(mark in recipient.get("name", "") for mark in "\r\n,;"):
            yield "The name may not contain a comma, a semicolon or a line break.", "personalizations.0.to.0.name"
        seen.add(address.lower())
    for name, person in (("from", request.get("from", {})), ("reply_to", request.get("reply_to"))):
        if person is not None and "@" not in person.get("email", ""):
            yield "The email must be a string and a valid address.", f"{name}.email"
    if any(mark in request.get("subject", "") for mark in "\r\n"):
        yield "The subject may not contain a line break.", "subject"


def find_attachment_errors(attachment: dict[str, Any], at: str) -> Iterator[tuple[str, str]]:
    """Yields missing content, a missing name, and characters that would end a header."""
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


def make_email(request: dict[str, Any], message_id: str) -> EmailMessage:
    """Makes the email that SendGrid would send for a request."""
    message = EmailMessage(policy=SMTP)
    message["Message-ID"] = f"<{message_id}@local>"
    message["From"] = format_address(request["from"])
    for header, kind in (("To", "to"), ("Cc", "cc")):
        if addresses := [
            format_address(person) for part in request["personalizations"] for person in part.get(kind, ())
        ]:
            message[header] = ", ".join(addresses)
    if reply_to := request.get("reply_to"):
        message["Reply-To"] = format_address(reply_to)
    message["Subject"] = request["personalizations"][0].get("subject") or request.get("subject", "")
    texts = {content["type"]: content["value"] for content in request.get("content", ())}
    message.set_content(texts.get("text/plain", ""))
    if "text/html" in texts:
        message.add_alternative(texts["text/html"], subtype="html")
    for attachment in request.get("attachments", ()):
        maintype, _, subtype = attachment.get("type", "application/octet-stream").partition("/")
        message.add_attachment(
            base64.b64decode(attachment["content"]),
            maintype,
            subtype or "octet-stream",
            filename=attachment["filename"],
            params={"charset": "utf-8"} if maintype == "text" else None,
        )
    return message


def format_address(person: dict[str, str]) -> str:
    """Formats an email address, with the name where the person has one."""
    name = person.get("name", "").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{person["email"]}>' if name else person["email"]


class Handler(BaseHTTPRequestHandler):
    """Handles POST /v3/mail/send. Every other request is refused."""

    protocol_version = "HTTP/1.1"

    def __init__(self, post: Post, *arguments: Any) -> None:
        """Gives the emails to `post`."""
        self.post = post
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """Handles one email. The response to an accepted email is a 202 with its X-Message-Id."""
        size_bytes = int(self.headers.get("Content-Length") or 0)
        if size_bytes > MAX_EMAIL_BYTES:
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
            self.handle_email(body)

    def handle_email(self, body: bytes) -> None:
        """Refuses the email, applies the next fault, or accepts the email."""
        try:
            request = json.loads(body)
        except ValueError:
            self.refuse(400, [("Bad Request", "")])
            return
        if errors := list(find_errors(request)):
            self.refuse(400, errors)
        elif fault := self.post.use_next_fault():
            self.apply_fault(request, fault)
        else:
            self.reply(202, headers={"X-Message-Id": self.post.accept(request)})

    def apply_fault(self, request: dict[str, Any], fault: Fault) -> None:
        """Simulates the failure that `fault` describes."""
        if fault.taken:
            self.post.accept(request)
        time.sleep(fault.hang_seconds)
        if fault.status:
            self.refuse(fault.status, [("Simulated by faults.json.", "")], fault.headers)
        else:
            self.close_connection = True

    def refuse(self, status: int, errors: list[tuple[str, str]], headers: dict[str, str] | None = None) -> None:
        """Sends a response in the form of SendGrid's errors."""
        body = {"errors": [{"message": message, "field": field or None, "help": None} for message, field in errors]}
        self.reply(status, json.dumps(body).encode(), headers)

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Sends a response."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(child: Child, port: int, directory: Path, keys: Path, webhook_url: str) -> None:
    """Serves until the process is killed. `keys` is the folder of the key that signs events."""
    directory.mkdir(exist_ok=True)
    post = Post(directory, Webhook(webhook_url, signing_key(keys)))
    server = ThreadingHTTPServer((HOST, port), partial(Handler, post))
    child.ready()
    server.serve_forever()
