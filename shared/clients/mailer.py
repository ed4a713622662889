"""The client of the email service: it sends one email, and says whether the service has it."""

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

TIMEOUT_SECONDS = 30  # for each response; the SDK has no timeout of its own
MAX_RETRY_AFTER_SECONDS = 24 * 3600  # the email of an order must not wait for longer than a day

ACCEPTED = 202
# "Too many requests" and "service unavailable" prove that the service did not accept the email.
NOT_ACCEPTED = (429, 503)

MAX_MESSAGES_LENGTH = 1000  # characters of a rejection's messages: the reason stays readable
MAX_BODY_LENGTH = 200  # characters of a rejection's body, if it has no messages


class MailDeferred(Exception):
    """The service does not have the email and may accept it later: after `retry_after_seconds`, unless that is None."""

    def __init__(self, reason: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class MailRejected(Exception):
    """The service does not have the email and will never accept it. The text includes the service's own messages."""


class MailStatusUnknown(Exception):
    """The service may or may not have the email: there is no response, or one that does not prove either."""


@dataclass(frozen=True)
class File:
    """One attachment."""

    name: str  # in ASCII: the service does not encode it
    content_type: str  # without parameters
    content: bytes


@dataclass(frozen=True)
class Mail:
    """One email. Names and subject are single lines."""

    reference: str  # every webhook event of this email repeats it
    sender_name: str
    reply_to: str
    recipient: str
    recipient_name: str  # "" if it is not known
    cc: tuple[str, ...]  # each address once, and not the recipient's
    subject: str
    text: str
    html: str
    files: tuple[File, ...]


class Mailer:
    """SendGrid's own client, with a timeout."""

    def __init__(self, settings: Settings) -> None:
        """Makes no connection yet. Raises InvalidSettings, which names the settings that are missing."""
        settings.require("sendgrid_api_key", "mail_from_address")
        from sendgrid import SendGridAPIClient

        self._sdk = SendGridAPIClient(settings.sendgrid_api_key, host=settings.sendgrid_host)
        self._sdk.client.timeout = TIMEOUT_SECONDS
        self._from_address = settings.mail_from_address

    def send(self, mail: Mail) -> str:
        """Sends `mail` once and returns the message id that the service gave it.

        Raises MailDeferred, MailRejected or MailStatusUnknown. Any other exception is raised before the email is sent.
        """
        from python_http_client.exceptions import HTTPError

        request = self._request(mail)
        try:
            response = self._sdk.send(request)
        except HTTPError as error:
            raise interpret_response(error.status_code, error.headers or {}, error.body or b"") from error
        except Exception as error:
            if is_connection_refused(error):
                raise MailDeferred("The email service cannot be reached.") from error
            raise MailStatusUnknown(f"The email service did not respond ({type(error).__name__}).") from error
        if response.status_code != ACCEPTED:
            raise MailStatusUnknown(f"The email service gave an unexpected response ({response.status_code}).")
        return str(response.headers.get("X-Message-Id", ""))

    def _request(self, mail: Mail) -> dict[str, Any]:
        """Builds the request: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send .

        It does not use the SDK's own classes: they refuse every text that looks like one of SendGrid's API keys.
        """
        recipient = {"email": mail.recipient}
        if name := remove_separators(mail.recipient_name):
            recipient["name"] = name
        personalization: dict[str, Any] = {"to": [recipient]}
        if mail.cc:
            personalization["cc"] = [{"email": address} for address in mail.cc]
        return {
            "personalizations": [personalization],
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
            # This is business correspondence: its links stay as they are, and no hidden picture reports who opens it.
            "tracking_settings": {"click_tracking": {"enable": False}, "open_tracking": {"enable": False}},
        }


def remove_separators(name: str) -> str:
    """Replaces commas and semicolons, which the service refuses in the name of a recipient."""
    return " ".join(name.replace(",", " ").replace(";", " ").split())


def is_connection_refused(error: Exception) -> bool:
    """Whether no byte of the email can have been sent: the host refused the connection or does not exist."""
    return isinstance(getattr(error, "reason", error), (ConnectionRefusedError, socket.gaierror))


def interpret_response(status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """Returns the exception that says what a response other than 202 means for the email."""
    if status in NOT_ACCEPTED:
        retry_after_seconds = parse_retry_after(headers.get("Retry-After", ""))
        return MailDeferred(f"The email service is busy ({status}).", retry_after_seconds)
    if 400 <= status < 500:
        return MailRejected(f"The email service refused the email ({status}): {extract_messages(body)}")
    return MailStatusUnknown(f"The email service failed ({status}).")


def parse_retry_after(value: str) -> int | None:
    """Returns a Retry-After header, which is a number of seconds or a date, as seconds from now. None: it is invalid.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    try:
        seconds = int(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = round((date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS)


def extract_messages(body: bytes) -> str:
    """Returns the messages in the body of a rejection, or the start of the body if it has none."""
    try:
        errors = json.loads(body)["errors"]
        return " ".join(
            f"{error['message']}" + (f" ({error['field']})" if error.get("field") else "") for error in errors
        )[:MAX_MESSAGES_LENGTH]
    except (ValueError, KeyError, TypeError, AttributeError):
        return body.decode("utf-8", "replace")[:MAX_BODY_LENGTH] or "it gave no reason."
