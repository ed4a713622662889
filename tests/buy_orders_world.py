"""The world of tests/exports_world.py with emails of buy orders: the API, the email service and its events."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from functions.buy_orders.states import UNFINISHED
from shared import clients
from shared.clients.mailer import Mail
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends as deliveries
from tests.exports_world import ExportsWorld
from tests.world import MailService, app

if TYPE_CHECKING:
    from tests.exports_world import Response

SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = base64.b64encode(
    SIGNING_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
DUE_COLUMNS = ("wake_at", "lease_until", "tidy_at")


class BuyOrdersWorld(ExportsWorld):
    """The buy orders of one webshop and their emails, controlled by the test."""

    def __init__(self, databases: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(databases, bucket, monkeypatch)
        self.order = self.tenants.buy_order_uuid
        self.email_service = MailService(self.boundaries)
        monkeypatch.setattr(clients, "email_service", lambda: self.email_service)
        self.configure("functions.buy_orders.email_events", SENDGRID_WEBHOOK_PUBLIC_KEY=PUBLIC_KEY)

    # What a client does

    def call_api(self, method: str, path: str, user: uuid.UUID | None = None, **options: Any) -> Response:
        """Calls a path below the webshop."""
        headers = {"Authorization": f"Bearer {user or self.user}", **options.pop("headers", {})}
        webshop = options.pop("webshop", self.webshop)
        client = app("buy_orders_api").application.test_client()
        return cast("Response", client.open(f"/webshops/{webshop}{path}", method=method, headers=headers, **options))

    def request_email(self, order: uuid.UUID | str | None = None, key: str | None = None, **body: Any) -> Response:
        """Requests the email of an order. Its message waits in the broker then. `key` is the idempotency key."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.call_api("POST", f"/buy-orders/{order or self.order}/email", json=body, headers=headers)

    def list_deliveries(self, query: str = "") -> dict[str, Any]:
        """Returns a page of the order's email deliveries, newest first."""
        return dict(self.call_api("GET", f"/buy-orders/{self.order}/emails{query}").json)

    def only_delivery(self) -> dict[str, Any]:
        """Returns the order's only email delivery, as the API shows it."""
        (delivery,) = self.list_deliveries()["items"]
        return dict(delivery)

    def save_identifiers(self, *identifiers: str) -> Response:
        return self.call_api("PUT", "/buy-order-export-settings", json={"identifiers": identifiers})

    def message(self, **fields: Any) -> BuyOrderEmail:
        """Returns a message as another service sends it."""
        defaults = {"webshop_uuid": self.webshop, "send_uuid": uuid.uuid4(), "buy_order_uuid": self.order}
        return BuyOrderEmail(**{**defaults, **fields})

    def find_order(self, number: str) -> uuid.UUID:
        """Returns the uuid of the webshop's order with this number."""
        statement = "select uuid from buy_orders where number = :number and webshop_uuid = :w"
        ((order_uuid,),) = self.rows("product", statement, number=number, w=self.webshop)
        return uuid.UUID(str(order_uuid))

    def find_order_of_another_webshop(self) -> uuid.UUID:
        statement = "select uuid from buy_orders where webshop_uuid = :w limit 1"
        ((order_uuid,),) = self.rows("product", statement, w=self.tenants.other_webshop_uuid)
        return uuid.UUID(str(order_uuid))

    # What the email service does

    def accepted_emails(self) -> list[Mail]:
        """Returns the emails that the email service has accepted, oldest first."""
        return self.email_service.taken

    def fail_next_emails(self, *errors: Exception) -> None:
        """Makes the email service respond to the next emails with these errors. It does not accept those emails."""
        self.email_service.answers.extend(errors)

    def post_events(
        self, *events: dict[str, Any], age_seconds: int = 0, key: ec.EllipticCurvePrivateKey = SIGNING_KEY
    ) -> int:
        """Posts events to the webhook, signed `age_seconds` ago. Returns the HTTP status."""
        return self.post_body(json.dumps(events).encode(), age_seconds, key).status_code

    def post_body(self, body: bytes, age_seconds: int = 0, key: ec.EllipticCurvePrivateKey = SIGNING_KEY) -> Response:
        """Posts a signed body to the webhook."""
        timestamp = str(int(time.time()) - age_seconds)
        signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        client = app("email_events").application.test_client()
        return cast("Response", client.post("/email-events", data=body, headers=headers))

    # Time

    def let_time_pass(self) -> None:
        super().let_time_pass()
        assignments = ", ".join(f"{column} = {column} - interval '10 min'" for column in DUE_COLUMNS)
        self.change("service", f"update buy_order_sends set {assignments}")

    def unfinished(self) -> list[Any]:
        """Adds unfinished deliveries, and files that may have to be deleted."""
        rows = self.rows(
            "service",
            "select uuid, status, attempts from buy_order_sends where status = any(:unfinished) or tidy_at is not null",
            unfinished=list(UNFINISHED),
        )
        return super().unfinished() + rows

    # State

    def delivery_row(self, delivery_uuid: uuid.UUID | str) -> dict[str, Any]:
        """Returns the row of a delivery."""
        with self.own_engines["service"].connect() as conn:
            return dict(conn.execute(select(deliveries).where(deliveries.c.uuid == delivery_uuid)).mappings().one())

    def stored_files(self) -> dict[str, bytes]:
        """Returns the content of all stored files of emails, by URI."""
        return {
            self.storage.uri(stored.path): b"".join(self.storage.download(stored.path).chunks)
            for stored in self.storage.list("buy-orders/")
        }

    def assert_settled(self) -> None:
        """Checks that deliveries are final, that only their files exist, and that no email was accepted twice."""
        rows = self.rows("service", "select uuid, status, file_uris from buy_order_sends")
        assert not [row for row in rows if row[1] in UNFINISHED]
        assert set(self.stored_files()) == {uri for row in rows for uri in row[2]}
        references = [email.reference for email in self.accepted_emails()]
        assert len(references) == len(set(references))


def event(delivery_uuid: object, kind: str = "delivered", **fields: Any) -> dict[str, Any]:
    """Returns an event in the form of the email service."""
    return {
        "email": "orders@supplier.example",
        "timestamp": 1_780_000_000,
        "event": kind,
        "sg_event_id": uuid.uuid4().hex,
        "sg_message_id": "abc.local",
        "send_uuid": str(delivery_uuid),
        **fields,
    }
