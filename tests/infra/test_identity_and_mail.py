from __future__ import annotations

import base64
import email
import email.policy
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import jwt
import sendgrid
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sendgrid.helpers.mail import Attachment, Mail

from infra.local import identity, mail_catcher
from tests.infra.conftest import serving

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "http://localhost:8080"


def test_a_token_is_checked_with_the_published_keys(tmp_path: Path) -> None:
    """Any service that has the key set can verify a token, also after a restart of the stack."""
    token = identity.token(identity.signing_key(tmp_path), ISSUER, "user-1")

    [key] = jwt.PyJWKSet.from_dict(identity.key_set(identity.signing_key(tmp_path))).keys
    claims = jwt.decode(token, key, ["RS256"], issuer=ISSUER, audience=identity.AUDIENCE)

    assert claims["sub"] == "user-1"
    assert jwt.get_unverified_header(token)["kid"] == key.key_id


def test_an_email_becomes_a_file_with_its_attachments(tmp_path: Path) -> None:
    """The file of an email from SendGrid's own client can be opened with an email program."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(mail_catcher.Handler, mail_catcher.Post(tmp_path)))
    message = Mail(("a@shop.example", "Ann"), "b@supplier.example", "Bestellung für Müller", "Hi")
    data = base64.b64encode(b"%PDF-").decode()
    message.attachment = Attachment(data, "Bestellung für Müller.pdf", "application/pdf")
    client = sendgrid.SendGridAPIClient(mail_catcher.API_KEY, host=f"http://127.0.0.1:{server.server_port}")

    with serving(server):
        response = client.send(message)

    [file] = tmp_path.glob("*.eml")
    stored = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    [attachment] = stored.iter_attachments()
    assert (response.status_code, response.headers["X-Message-Id"]) == (202, file.stem)
    assert (stored["Subject"], stored["To"]) == ("Bestellung für Müller", "b@supplier.example")
    assert (attachment.get_filename(), attachment.get_content()) == ("Bestellung für Müller.pdf", b"%PDF-")


def test_the_webhook_key_is_stable_and_has_sendgrids_format(tmp_path: Path) -> None:
    """Like SendGrid's key, it is the base64 of a public key in DER."""
    key = mail_catcher.public_key(tmp_path)

    load_der_public_key(base64.b64decode(key))
    assert mail_catcher.public_key(tmp_path) == key
