"""Mails of buy orders on the running stack: a mail service that fails, processes that die, and the events that tell."""

from __future__ import annotations

import email
import email.policy
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.local.mail_catcher import FAULTS_FILE
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.shop import Shop
    from tests.integration.stack import LocalStack


class Mails:
    """The mails of the first webshop's order, at the API and at the mail service."""

    def __init__(self, stack: LocalStack, shop: Shop) -> None:
        self._shop = shop
        self._order = f"buy-orders/{stack.env['BUY_ORDER_UUID']}"
        self._folder = Path(stack.env["MAIL_DIR"])
        self._taken_before = set(self._folder.glob("*.eml"))

    def ask(self, **body: Any) -> str:
        """Asks for the mail; returns its uuid."""
        answer = self._shop.call("POST", f"{self._order}/email", body)
        assert answer.status == 202, answer.body
        return str(answer.json["uuid"])

    def find(self, send_uuid: str) -> dict[str, Any]:
        items = self._shop.call("GET", f"{self._order}/emails?limit=200").json["items"]
        return next(item for item in items if item["uuid"] == send_uuid)

    def wait(self, send_uuid: str, *statuses: str) -> dict[str, Any]:
        """The mail once it is in one of these states."""
        wait_until(lambda: self.find(send_uuid)["status"] in statuses, f"{send_uuid} to be {' or '.join(statuses)}")
        return self.find(send_uuid)

    def switch_on(self, *faults: dict[str, Any]) -> None:
        """What happens to the next mails."""
        (self._folder / FAULTS_FILE).write_text(json.dumps(faults))

    def taken(self) -> list[Any]:
        """The mails that the mail service took since the test began."""
        files = set(self._folder.glob("*.eml")) - self._taken_before
        return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]


@pytest.fixture
def mails(stack: LocalStack, shop: Shop) -> Iterator[Mails]:
    """No fault is switched on before a test nor after it."""
    made = Mails(stack, shop)
    made.switch_on()
    yield made
    made.switch_on()


@pytest.mark.parametrize(
    ("recipient", "told"),
    [
        pytest.param("orders@supplier.example", ["processed", "delivered"], id="delivered"),
        pytest.param("bounce@supplier.example", ["processed", "bounced"], id="bounced"),
        pytest.param("drop@supplier.example", ["processed", "dropped"], id="dropped"),
        pytest.param("defer@supplier.example", ["processed", "deferred", "delivered"], id="deferred"),
    ],
)
def test_what_becomes_of_a_mail_is_shown(mails: Mails, recipient: str, told: list[str]) -> None:
    """Taken, and what happened at the other end, by events signed as SendGrid signs them."""
    send_uuid = mails.ask(recipient=recipient)

    send = mails.wait(send_uuid, "SENT")
    wait_until(lambda: len(mails.find(send_uuid)["events"]) == len(told), "every event")

    assert sorted(event["event"] for event in mails.find(send_uuid)["events"]) == sorted(told)
    assert send["recipient"] == recipient
    (mail,) = mails.taken()
    assert len(list(mail.iter_attachments())) == len(send["file_uris"]) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_mail_service_is_asked_again_when_it_says(mails: Mails, status: int) -> None:
    """It did not take the mail, so the mail goes out once, later."""
    mails.switch_on({"status": status, "headers": {"Retry-After": "2"}})

    send_uuid = mails.ask()

    send = mails.wait(send_uuid, "SENT")
    waited = datetime.fromisoformat(send["sent_at"]) - datetime.fromisoformat(send["created_at"])
    assert waited >= timedelta(seconds=2)
    assert len(mails.taken()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 502}, id="502"),
        pytest.param({"status": 504}, id="504"),
        pytest.param({"status": 0}, id="closed connection"),
    ],
)
def test_a_mail_service_that_took_it_and_failed_tells_by_an_event(mails: Mails, fault: dict[str, Any]) -> None:
    """Never sent again; the event makes SENT of it."""
    mails.switch_on({**fault, "taken": True})

    send_uuid = mails.ask()

    mails.wait(send_uuid, "SENT")
    assert len(mails.taken()) == 1


def test_a_mail_service_that_failed_leaves_it_uncertain(mails: Mails) -> None:
    """Not sent again, however often sweep looks."""
    mails.switch_on({"status": 500})

    send = mails.wait(mails.ask(), "UNCERTAIN")
    mails.wait(mails.ask(message="The second"), "SENT")

    assert "is not known" in send["reason"]
    assert mails.find(send["uuid"])["status"] == "UNCERTAIN"
    (mail,) = mails.taken()
    assert "The second" in mail.get_body(("plain",)).get_content()


def test_a_function_that_dies_at_the_mail_leaves_one_mail(stack: LocalStack, mails: Mails) -> None:
    """Killed while the mail service has the mail and has not answered: its event tells."""
    mails.switch_on({"taken": True, "hang_seconds": 600, "status": 202})

    send_uuid = mails.ask()
    wait_until(mails.taken, "the mail to be taken")
    stack.kill("buy_order_email")

    mails.wait(send_uuid, "SENT")
    assert len(mails.taken()) == 1


def test_events_wait_for_the_function_that_takes_them(stack: LocalStack, mails: Mails) -> None:
    """The mail service tells again until somebody listens."""
    stack.kill("email_events")

    send_uuid = mails.ask()

    wait_until(lambda: len(mails.find(send_uuid)["events"]) == 2, "both events")
    assert mails.find(send_uuid)["status"] == "SENT"
