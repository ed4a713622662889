"""The world of tests/exports_world.py with the mail of buy orders in it: the API, the mail service, its events."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from werkzeug.test import TestResponse

from functions.buy_orders.states import UNFINISHED
from shared import clients
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends
from tests.exports_world import ExportsWorld
from tests.world import MailService, app

SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC_KEY = base64.b64encode(
    SIGNING_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
MOMENTS = ("wake_at", "lease_until", "tidy_at")


class BuyOrdersWorld(ExportsWorld):
    """One webshop's buy orders and their mails, under the test's control."""

    def __init__(self, databases: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(databases, bucket, monkeypatch)
        self.order = self.tenants.buy_order_uuid
        self.mail_service = MailService(self.boundaries)
        monkeypatch.setattr(clients, "mail_service", lambda: self.mail_service)
        self.configure("functions.buy_orders.email_events", SENDGRID_WEBHOOK_PUBLIC_KEY=PUBLIC_KEY)

    # What a client does

    def api(self, method: str, path: str, user: uuid.UUID | None = None, **options: Any) -> TestResponse:
        """Calls the API below the webshop."""
        headers = {"Authorization": f"Bearer {user or self.user}", **options.pop("headers", {})}
        webshop = options.pop("webshop", self.webshop)
        client = app("buy_orders_api").application.test_client()
        return client.open(f"/webshops/{webshop}{path}", method=method, headers=headers, **options)

    def ask_for_mail(self, order: uuid.UUID | None = None, key: str | None = None, **body: Any) -> TestResponse:
        """Asks for the mail of an order; its message waits then."""
        headers = {"Idempotency-Key": key} if key else {}
        return self.api("POST", f"/buy-orders/{order or self.order}/email", json=body, headers=headers)

    def mails(self, order: uuid.UUID | None = None, query: str = "") -> dict[str, Any]:
        """The order's list of mails."""
        return dict(self.api("GET", f"/buy-orders/{order or self.order}/emails{query}").json)

    def only_send(self) -> dict[str, Any]:
        """The one mail of the order, as the API shows it."""
        (send,) = self.mails()["items"]
        return dict(send)

    def save_identifiers(self, *identifiers: str) -> TestResponse:
        return self.api("PUT", "/buy-order-export-settings", json={"identifiers": identifiers})

    def message(self, **fields: Any) -> BuyOrderEmail:
        """A message that another service sends."""
        return BuyOrderEmail(
            **{
                "webshop_uuid": self.webshop,
                "send_uuid": uuid.uuid4(),
                "buy_order_uuid": self.order,
                **fields,
            }
        )

    def order_called(self, number: str) -> uuid.UUID:
        """The webshop's order of that number."""
        statement = "select uuid from buy_orders where number = :number and webshop_uuid = :w"
        ((found,),) = self.rows("product", statement, number=number, w=self.webshop)
        return uuid.UUID(str(found))

    # What the mail service does

    def tell(self, *events: dict[str, Any], age_seconds: int = 0, key: ec.EllipticCurvePrivateKey = SIGNING_KEY) -> int:
        """Posts events to the webhook, signed `age_seconds` ago; returns the status of the answer."""
        return self.post_events(json.dumps(events).encode(), age_seconds, key).status_code

    def post_events(
        self, body: bytes, age_seconds: int = 0, key: ec.EllipticCurvePrivateKey = SIGNING_KEY
    ) -> TestResponse:
        timestamp = str(int(time.time()) - age_seconds)
        signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        client = app("email_events").application.test_client()
        return client.post("/email-events", data=body, headers=headers)

    # Time

    def let_time_pass(self) -> None:
        super().let_time_pass()
        passed = ", ".join(f"{moment} = {moment} - interval '10 min'" for moment in MOMENTS)
        self.change("service", f"update buy_order_sends set {passed}")

    def unfinished(self) -> list[Any]:
        """What ExportsWorld knows, mails that are not over, and files to look for."""
        rows = self.rows(
            "service",
            "select uuid, status, attempts from buy_order_sends where status = any(:unfinished) or tidy_at is not null",
            unfinished=list(UNFINISHED),
        )
        return super().unfinished() + rows

    # What is there

    def send_row(self, send_uuid: uuid.UUID | str) -> dict[str, Any]:
        with self.looking["service"].connect() as service:
            return dict(
                service.execute(select(buy_order_sends).where(buy_order_sends.c.uuid == send_uuid)).mappings().one()
            )

    def mailed_files(self) -> dict[str, bytes]:
        """Every file of a mail that is stored, by its URI."""
        return {
            self.storage.uri(stored.path): b"".join(self.storage.download(stored.path).pieces)
            for stored in self.storage.list("buy-orders/")
        }

    def assert_settled(self) -> None:
        """Every mail is over and was handed over once at the most, and exactly the files of the mails are stored."""
        sends = self.rows("service", "select uuid, status, file_uris from buy_order_sends")
        assert not [send for send in sends if send[1] in UNFINISHED]
        assert set(self.mailed_files()) == {uri for send in sends for uri in send[2]}
        references = [mail.reference for mail in self.mail_service.taken]
        assert len(references) == len(set(references))


def event(send_uuid: object, kind: str = "delivered", **fields: Any) -> dict[str, Any]:
    """An event as the mail service words it."""
    return {
        "email": "orders@supplier.example",
        "timestamp": 1_780_000_000,
        "event": kind,
        "sg_event_id": uuid.uuid4().hex,
        "sg_message_id": "abc.local",
        "send_uuid": str(send_uuid),
        **fields,
    }
