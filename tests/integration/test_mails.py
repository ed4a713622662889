"""Emails of buy orders on the running stack: failures of the email service, killed processes, and events."""

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


class Emails:
    """The emails of the first webshop's order, at the API and at the email service."""

    def __init__(self, stack: LocalStack, shop: Shop) -> None:
        self._shop = shop
        self._order = f"buy-orders/{stack.env['BUY_ORDER_UUID']}"
        self._folder = Path(stack.env["MAIL_DIR"])
        self._earlier_files = set(self._folder.glob("*.eml"))

    def request(self, **body: Any) -> str:
        """Requests an email. Returns the uuid of its delivery."""
        response = self._shop.call("POST", f"{self._order}/email", body)
        assert response.status == 202, response.body
        return str(response.json["uuid"])

    def find(self, delivery_uuid: str) -> dict[str, Any]:
        """Returns a delivery as it is now."""
        items = self._shop.call("GET", f"{self._order}/emails?limit=200").json["items"]
        return next(item for item in items if item["uuid"] == delivery_uuid)

    def wait(self, delivery_uuid: str, *statuses: str) -> dict[str, Any]:
        """Waits until the delivery is in one of these states, and returns it."""
        wait_until(
            lambda: self.find(delivery_uuid)["status"] in statuses, f"{delivery_uuid} to be {' or '.join(statuses)}"
        )
        return self.find(delivery_uuid)

    def set_faults(self, *faults: dict[str, Any]) -> None:
        """Sets the faults of the next emails, one per email."""
        (self._folder / FAULTS_FILE).write_text(json.dumps(faults))

    def accepted(self) -> list[Any]:
        """Returns the emails that the email service has accepted since the test began."""
        files = set(self._folder.glob("*.eml")) - self._earlier_files
        return [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]


@pytest.fixture
def emails(stack: LocalStack, shop: Shop) -> Iterator[Emails]:
    """The emails of the order. No fault of one test is left for the next."""
    order_emails = Emails(stack, shop)
    order_emails.set_faults()
    yield order_emails
    order_emails.set_faults()


@pytest.mark.parametrize(
    ("recipient", "events"),
    [
        pytest.param("orders@supplier.example", ["processed", "delivered"], id="delivered"),
        pytest.param("bounce@supplier.example", ["processed", "bounced"], id="bounced"),
        pytest.param("drop@supplier.example", ["processed", "dropped"], id="dropped"),
        pytest.param("defer@supplier.example", ["processed", "deferred", "delivered"], id="deferred"),
    ],
)
def test_a_delivery_shows_what_became_of_its_email(emails: Emails, recipient: str, events: list[str]) -> None:
    """The email service accepts the email, and reports its events with SendGrid's kind of signature."""
    delivery_uuid = emails.request(recipient=recipient)

    delivery = emails.wait(delivery_uuid, "SENT")
    wait_until(lambda: len(emails.find(delivery_uuid)["events"]) == len(events), "every event")

    assert sorted(event["event"] for event in emails.find(delivery_uuid)["events"]) == sorted(events)
    assert delivery["recipient"] == recipient
    (accepted,) = emails.accepted()
    assert len(list(accepted.iter_attachments())) == len(delivery["file_uris"]) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_email_service_gets_the_email_later(emails: Emails, status: int) -> None:
    """It did not accept the email, so the email is sent again after the time that it named."""
    emails.set_faults({"status": status, "headers": {"Retry-After": "2"}})

    delivery_uuid = emails.request()

    delivery = emails.wait(delivery_uuid, "SENT")
    duration = datetime.fromisoformat(delivery["sent_at"]) - datetime.fromisoformat(delivery["created_at"])
    assert duration >= timedelta(seconds=2)
    assert len(emails.accepted()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 502}, id="502"),
        pytest.param({"status": 504}, id="504"),
        pytest.param({"status": 0}, id="closed connection"),
    ],
)
def test_an_event_proves_that_an_email_was_accepted(emails: Emails, fault: dict[str, Any]) -> None:
    """The email service accepts the email and fails. The email is not sent again, and the event makes it SENT."""
    emails.set_faults({**fault, "taken": True})

    delivery_uuid = emails.request()

    emails.wait(delivery_uuid, "SENT")
    assert len(emails.accepted()) == 1


def test_without_an_event_a_failed_email_stays_uncertain(emails: Emails) -> None:
    """The email service fails and sends no event. The email is not sent again."""
    emails.set_faults({"status": 500})

    uncertain = emails.wait(emails.request(), "UNCERTAIN")
    emails.wait(emails.request(message="The second"), "SENT")

    assert "is not known" in uncertain["reason"]
    assert emails.find(uncertain["uuid"])["status"] == "UNCERTAIN"
    (accepted,) = emails.accepted()
    assert "The second" in accepted.get_body(("plain",)).get_content()


def test_a_worker_that_dies_while_it_sends_leaves_one_email(stack: LocalStack, emails: Emails) -> None:
    """The worker is killed before the email service responds. The event makes the delivery SENT."""
    emails.set_faults({"taken": True, "hang_seconds": 600, "status": 202})

    delivery_uuid = emails.request()
    wait_until(emails.accepted, "the email service to accept the email")
    stack.kill("buy_order_email")

    emails.wait(delivery_uuid, "SENT")
    assert len(emails.accepted()) == 1


def test_events_are_sent_until_the_function_receives_them(stack: LocalStack, emails: Emails) -> None:
    """The email service sends its events again while email_events is dead."""
    stack.kill("email_events")

    delivery_uuid = emails.request()

    wait_until(lambda: len(emails.find(delivery_uuid)["events"]) == 2, "both events")
    assert emails.find(delivery_uuid)["status"] == "SENT"
