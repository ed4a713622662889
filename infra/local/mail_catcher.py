"""The mail service: SendGrid's API as far as it is used. Every mail is taken, and becomes an .eml file."""

from __future__ import annotations

import base64
import json
import uuid
from email.message import EmailMessage
from email.policy import SMTP
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local.ports import HOST
from infra.local.state import write_whole
from infra.local.supervisor import Child

API_KEY = "SG.local"
SENDER = "orders@shop.example"
SEND_PATH = "/v3/mail/send"


def public_key(directory: Path) -> str:
    """The key that signs the event webhook, as SendGrid shows it (base64 of its DER); made where it is missing."""
    path = directory / "mail-key.pem"
    if not path.exists():
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(path, pem, secret=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def as_mail(request: dict[str, Any], message_id: str) -> EmailMessage:
    """SendGrid's JSON as the mail it would become."""
    mail = EmailMessage(policy=SMTP)
    mail["Message-ID"] = f"<{message_id}@local>"
    mail["From"] = address(request["from"])
    mail["To"] = ", ".join(address(to) for person in request["personalizations"] for to in person["to"])
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
        )
    return mail


def address(person: dict[str, str]) -> str:
    """A mail address with its name, where it has one."""
    return f'"{person["name"]}" <{person["email"]}>' if person.get("name") else person["email"]


class Handler(BaseHTTPRequestHandler):
    """POST /v3/mail/send, and nothing else."""

    protocol_version = "HTTP/1.1"

    def __init__(self, directory: Path, *arguments: Any) -> None:
        """Mails go to `directory`."""
        self.directory = directory
        super().__init__(*arguments)

    def do_POST(self) -> None:
        """Takes one mail: 202 and its X-Message-Id."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != SEND_PATH:
            self.reply(404)
        elif self.headers.get("Authorization") != f"Bearer {API_KEY}":
            self.reply(401)
        else:
            message_id = uuid.uuid4().hex
            write_whole(self.directory / f"{message_id}.eml", as_mail(json.loads(body), message_id).as_bytes())
            self.reply(202, message_id)

    def reply(self, status: int, message_id: str = "") -> None:
        """An answer without a body."""
        self.send_response(status)
        if message_id:
            self.send_header("X-Message-Id", message_id)
        self.send_header("Content-Length", "0")
        self.end_headers()


def serve(child: Child, port: int, directory: Path) -> None:
    """Serves until it is killed."""
    directory.mkdir(exist_ok=True)
    server = ThreadingHTTPServer((HOST, port), partial(Handler, directory))
    child.ready()
    server.serve_forever()
