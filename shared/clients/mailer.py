"""The mail service: hands over one mail, and says what is known of it afterwards."""

from __future__ import annotations

import base64
import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from shared.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30  # that the service may be silent; the SDK itself would wait for ever
MAX_RETRY_AFTER_SECONDS = 24 * 3600  # a mail that is asked to wait longer is not a mail of today any more

ACCEPTED = 202
PROVES_NOTHING_WAS_TAKEN = (429, 503)  # too many requests; the API is not available


class MailDeferred(Exception):
    """The service certainly does not have the mail, and may take it later: after `retry_after_seconds`, if it said."""

    def __init__(self, reason: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class MailRejected(Exception):
    """The service certainly does not have the mail, and will never take it as it is. The text says what it said."""


class MailStatusUnknown(Exception):
    """The service may have the mail or not: it answered nothing that would tell."""


@dataclass(frozen=True)
class File:
    """One attachment."""

    name: str  # ASCII: the service does not encode it
    content_type: str  # without parameters
    content: bytes


@dataclass(frozen=True)
class Mail:
    """One mail. Names and subject are single lines."""

    reference: str  # comes back with every event of this mail
    sender_name: str
    reply_to: str
    recipient: str
    recipient_name: str  # "" where it is not known
    cc: tuple[str, ...]  # no address twice, the recipient's included
    subject: str
    text: str
    html: str
    files: tuple[File, ...]


class Mailer:
    """SendGrid's own client, with a time-out."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet. Raises InvalidSettings naming the settings that are missing."""
        settings.require("sendgrid_api_key", "mail_from_address")
        from sendgrid import SendGridAPIClient

        self._sdk = SendGridAPIClient(settings.sendgrid_api_key, host=settings.sendgrid_host)
        self._sdk.client.timeout = TIMEOUT_SECONDS
        self._from_address = settings.mail_from_address

    def send(self, mail: Mail) -> str:
        """Hands `mail` over once and returns the id that the service gave it.

        Raises MailDeferred, MailRejected, or MailStatusUnknown. Any other exception is raised before the mail is sent.
        """
        from python_http_client.exceptions import HTTPError

        request = self._request(mail)
        try:
            response = self._sdk.send(request)
        except HTTPError as answer:
            raise meaning_of(answer.status_code, answer.headers or {}, answer.body or b"") from answer
        except Exception as error:
            if was_never_connected(error):
                raise MailDeferred("The mail service cannot be reached.") from error
            raise MailStatusUnknown(f"The mail service gave no answer ({type(error).__name__}).") from error
        if response.status_code != ACCEPTED:
            raise MailStatusUnknown(f"The mail service gave an answer that is not expected ({response.status_code}).")
        return str(response.headers.get("X-Message-Id", ""))

    def _request(self, mail: Mail) -> dict[str, Any]:
        """https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send .

        Written out: the SDK's own classes refuse every text that looks like one of its keys.
        """
        recipient = {"email": mail.recipient}
        if name := without_separators(mail.recipient_name):
            recipient["name"] = name
        people: dict[str, Any] = {"to": [recipient]}
        if mail.cc:
            people["cc"] = [{"email": address} for address in mail.cc]
        return {
            "personalizations": [people],
            "from": {"email": self._from_address, "name": mail.sender_name},
            "reply_to": {"email": mail.reply_to, "name": mail.sender_name},
            "subject": mail.subject,
            "content": [{"type": "text/plain", "value": mail.text}, {"type": "text/html", "value": mail.html}],
            "attachments": [
                {
                    "content": base64.b64encode(file.content).decode(),
                    "type": file.content_type,
                    "filename": file.name,
                    "disposition": "attachment",
                }
                for file in mail.files
            ],
            "custom_args": {"send_uuid": mail.reference},
            # A business letter: no links of the mail service in place of ours, no picture that counts who reads it.
            "tracking_settings": {"click_tracking": {"enable": False}, "open_tracking": {"enable": False}},
        }


def without_separators(name: str) -> str:
    """The service takes no comma and no semicolon in the name of somebody who gets a mail."""
    return " ".join(name.replace(",", " ").replace(";", " ").split())


def was_never_connected(error: Exception) -> bool:
    """Whether no byte of the mail can have left: nobody listens there, or there is no such host."""
    return isinstance(getattr(error, "reason", error), (ConnectionRefusedError, socket.gaierror))


def meaning_of(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """What an answer other than yes says about the mail."""
    if status in PROVES_NOTHING_WAS_TAKEN:
        return MailDeferred(
            f"The mail service is busy ({status}).", retry_after_seconds(headers.get("Retry-After", ""))
        )
    if 400 <= status < 500:
        return MailRejected(f"The mail service refused the mail ({status}): {said(body)}")
    return MailStatusUnknown(f"The mail service failed ({status}).")


def retry_after_seconds(value: str) -> int | None:
    """A Retry-After header, seconds or a date, as seconds from now; None where it says nothing.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    try:
        seconds = int(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = round((moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS)


def said(body: bytes) -> str:
    """The sentences in a refusal, or as much of it as can be shown."""
    try:
        errors = json.loads(body)["errors"]
        return " ".join(
            f"{error['message']}" + (f" ({error['field']})" if error.get("field") else "") for error in errors
        )[:1000]
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode("utf-8", "replace")[:200] or "it said no more."
