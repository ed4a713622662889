"""buy_order_email: emails a buy order to its supplier, as CSV, XLSX and PDF.

The files are read in one snapshot, and the email is sent at most once. If the email was sent, or another worker has the
lease, there is nothing to do. If a worker dies before it sends the email, sweep requeues the delivery.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine

from functions.buy_orders import email_content, files, orders
from functions.buy_orders.addresses import to_one_line
from functions.buy_orders.jobs import (
    DELIVERIES,
    DeliveryClaim,
    claim_delivery,
    fail_delivery,
    insert_delivery,
    mark_files_ready,
    mark_sending,
    mark_sent,
    mark_uncertain,
    postpone,
)
from functions.exports.identifiers import find_identifiers
from functions.exports.queries import begin_snapshot
from shared import clients
from shared.clients.mailer import Mail, MailDeferred, MailRejected, MailStatusUnknown
from shared.delivery import kafka_function
from shared.errors import NothingToDo, PermanentError
from shared.messages import BuyOrderEmail
from shared.problems import Problem

if TYPE_CHECKING:  # loaded at run time by the function that makes the clients
    from shared.clients.bucket import Storage
    from shared.clients.mailer import Mailer

log = logging.getLogger(__name__)

# If the email service does not say when to try again: doubled with every attempt, so 1, 2, 4, 8 minutes.
POSTPONEMENT_SECONDS = 30


@kafka_function(BuyOrderEmail)
def buy_order_email(message: BuyOrderEmail) -> None:
    """Handles `webshop.buy-order.email`."""
    service_db, email_service = clients.service_database(), clients.email_service()
    with service_db.begin() as conn:
        insert_delivery(conn, message, message.recipient)  # other services send a message without inserting a row
        claim = claim_delivery(conn, message)
    EmailSender(claim, service_db, clients.product_database(), clients.storage(), email_service).run()


@dataclass(frozen=True)
class EmailSender:
    """One attempt at a claimed email delivery."""

    claim: DeliveryClaim
    service_db: Engine
    product_db: Engine
    storage: Storage
    email_service: Mailer

    def run(self) -> None:
        """Renders the files and sends the email.

        After a failure before SENDING is committed, the next attempt may start soon; the exception is raised. After
        that, the email is sent again only if the email service responds that it did not accept it. Raises NothingToDo
        when the lease was lost, and PermanentError, with a sentence for the merchant, when no attempt can succeed.
        """
        try:
            email = self.render_email()
            self.store_files(email)
            with self.service_db.begin() as conn:
                mark_sending(conn, self.claim)
        except NothingToDo:
            raise
        except (PermanentError, Problem) as error:
            reason = error.detail if isinstance(error, Problem) else str(error)
            with self.service_db.begin() as conn:
                fail_delivery(conn, self.claim, reason)
            raise PermanentError(reason) from error
        except Exception:
            reference = uuid.uuid4()
            log.exception(
                "Attempt %s at delivery %s failed, reference %s", self.claim.attempts, self.claim.uuid, reference
            )
            reason = f"Something went wrong on our side. Reference: {reference}"
            DELIVERIES.back_off_if_possible(self.service_db, self.claim, reason=reason)
            raise
        self.send(email)

    def render_email(self) -> Mail:
        """Returns the email of the order as it is now, with its files. All of it is read in one snapshot."""
        with self.service_db.connect() as conn:
            identifiers = find_identifiers(conn, self.claim.webshop_uuid)
        with self.product_db.connect() as conn:
            try:
                begin_snapshot(conn)
                return self.render_from_snapshot(conn, identifiers)
            except BaseException:
                conn.invalidate()
                raise

    def render_from_snapshot(self, conn: Connection, identifiers: tuple[str, ...]) -> Mail:
        """Renders the email and its files in the transaction of `conn`."""
        message, webshop_uuid = self.claim.message, self.claim.webshop_uuid
        order = orders.find_order(conn, webshop_uuid, message.buy_order_uuid)
        addressees = orders.find_addressees(order, message.recipient, message.cc)
        content = email_content.render_content(order, message.message, message.language)
        attachments = files.render_files(
            conn,
            webshop_uuid,
            message.buy_order_uuid,
            order.number,
            identifiers=identifiers,
            progress=lambda _rows: self.renew_lease(),
        )
        return Mail(
            reference=str(self.claim.uuid),
            sender_name=to_one_line(order.webshop_name),
            reply_to=addressees.reply_to,
            recipient=addressees.recipient,
            recipient_name=to_one_line(order.supplier_name) if message.recipient is None else "",
            cc=addressees.cc,
            subject=content.subject,
            text=content.text,
            html=content.html,
            files=attachments,
        )

    def store_files(self, email: Mail) -> None:
        """Stores the email's files in the bucket and attaches their URIs to the delivery."""
        uris = []
        for file in email.files:
            self.renew_lease()
            path = self.claim.file_path(file.name)
            with self.storage.open_writer(path, file.content_type) as sink:
                sink.write(file.content)
            uris.append(self.storage.uri(path))
        with self.service_db.begin() as conn:
            mark_files_ready(conn, self.claim, email.recipient, uris)

    def send(self, email: Mail) -> None:
        """Sends the email once and records the result. Raises PermanentError when the email was rejected."""
        try:
            message_id = self.email_service.send(email)
        except MailDeferred as deferral:
            seconds = deferral.retry_after_seconds
            if seconds is None:
                seconds = POSTPONEMENT_SECONDS * 2**self.claim.attempts
            log.warning("%s The next attempt at delivery %s is in %s s", deferral, self.claim.uuid, seconds)
            with self.service_db.begin() as conn:
                postpone(conn, self.claim, str(deferral), seconds)
        except MailRejected as rejection:
            with self.service_db.begin() as conn:
                fail_delivery(conn, self.claim, str(rejection))
            raise PermanentError(str(rejection)) from rejection
        except MailStatusUnknown as error:
            log.exception("Delivery %s is UNCERTAIN", self.claim.uuid)
            with self.service_db.begin() as conn:
                mark_uncertain(conn, self.claim, str(error))
        else:
            with self.service_db.begin() as conn:
                mark_sent(conn, self.claim, message_id)

    def renew_lease(self) -> None:
        """Renews the lease. Raises NothingToDo when it was lost."""
        with self.service_db.begin() as conn:
            DELIVERIES.renew(conn, self.claim)
