"""buy_order_email: mails a buy order to its supplier, as CSV, XLSX and PDF.

It holds the send's lease while it works. A delivery that meets a live lease, or a mail that was handed over, has
nothing to do; if the holder died before it handed the mail over, sweep sends the message again.

The files come out of one snapshot; one email is handed over at most once.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from functions.buy_orders import email_content, files, jobs, orders
from functions.buy_orders.addresses import one_line
from functions.exports.identifiers import find_identifiers
from functions.exports.queries import begin_snapshot
from shared import clients
from shared.clients.mailer import Mail, MailDeferred, MailRejected, MailStatusUnknown
from shared.delivery import kafka_function
from shared.errors import NothingToDo, PermanentError
from shared.messages import BuyOrderEmail
from shared.problems import Problem

if TYPE_CHECKING:
    from functions.buy_orders.jobs import Claim
    from shared.clients.bucket import Storage
    from shared.clients.mailer import Mailer


log = logging.getLogger(__name__)

# Where the mail service does not say when to come back: after 1, 2, 4, 8 minutes.
FIRST_WAIT_SECONDS = 30


@kafka_function(BuyOrderEmail)
def buy_order_email(wanted: BuyOrderEmail) -> None:
    """Called for `webshop.buy-order.email`."""
    mail_service = clients.mail_service()
    with clients.service_database().begin() as service:
        jobs.add(service, wanted, wanted.recipient)  # of another service: there is no record of it yet
        held = jobs.claim(service, wanted)
    Attempt(clients.service_database(), clients.product_database(), clients.storage(), mail_service).make(held)


@dataclass(frozen=True)
class Attempt:
    """What an attempt needs of the outside."""

    service: Engine
    product: Engine
    storage: Storage
    mailer: Mailer

    def make(self, held: Claim) -> None:
        """Makes the files and hands the mail over.

        Until SENDING is committed, whatever fails lets the next attempt in after a while, and is raised. After that
        nothing is tried again unless the mail service says that it does not have the mail. Raises NothingToDo when the
        attempt is over, PermanentError, with a sentence for the merchant, when no attempt can succeed.
        """
        try:
            mail = self.prepared(held)
            with self.service.begin() as service:
                jobs.sending(service, held)
        except NothingToDo:
            raise
        except (PermanentError, Problem) as error:
            sentence = error.detail if isinstance(error, Problem) else str(error)
            self.fail(held, sentence)
            raise PermanentError(sentence) from error
        except Exception:
            reference = uuid.uuid4()
            log.exception("Attempt %s at send %s failed, reference %s", held.attempts, held.uuid, reference)
            self.back_off(held, f"Something went wrong on our side. Reference: {reference}")
            raise
        self.hand_over(held, mail)

    def prepared(self, held: Claim) -> Mail:
        """The mail of the order as it is now, its files stored and attached to the send."""
        mail = self.written(held)
        uris = []
        for file in mail.files:
            self.renew(held)
            with self.storage.writing(held.path(file.name), file.content_type) as sink:
                sink.write(file.content)
            uris.append(self.storage.uri(held.path(file.name)))
        with self.service.begin() as service:
            jobs.files_ready(service, held, mail.recipient, uris)
        return mail

    def written(self, held: Claim) -> Mail:
        """The mail, everything in it read in one snapshot."""
        wanted = held.wanted
        with self.service.connect() as service:
            identifiers = find_identifiers(service, held.webshop_uuid)
        with self.product.connect() as product:
            try:
                begin_snapshot(product)
                order = orders.find(product, held.webshop_uuid, wanted.buy_order_uuid)
                addressees = orders.addressees(order, wanted.recipient, wanted.cc)
                words = email_content.write(order, wanted.message, wanted.language)
                of_order = (held.webshop_uuid, wanted.buy_order_uuid, order.number)
                made = files.make(product, *of_order, identifiers=identifiers, progress=lambda _rows: self.renew(held))
            except BaseException:
                product.invalidate()
                raise
        return Mail(
            reference=str(held.uuid),
            sender_name=one_line(order.webshop_name),
            reply_to=addressees.reply_to,
            recipient=addressees.recipient,
            recipient_name=one_line(order.supplier_name) if wanted.recipient is None else "",
            cc=addressees.cc,
            subject=words.subject,
            text=words.text,
            html=words.html,
            files=made,
        )

    def hand_over(self, held: Claim, mail: Mail) -> None:
        """Hands the mail over, once, and writes what came of it. Raises PermanentError when it was refused for good."""
        try:
            message_id = self.mailer.send(mail)
        except MailDeferred as busy:
            seconds = busy.retry_after_seconds
            if seconds is None:
                seconds = FIRST_WAIT_SECONDS * 2**held.attempts
            log.warning("%s Send %s is tried again in %s s", busy, held.uuid, seconds)
            with self.service.begin() as service:
                jobs.postpone(service, held, str(busy), seconds)
        except MailRejected as refusal:
            with self.service.begin() as service:
                jobs.fail(service, held, str(refusal))
            raise PermanentError(str(refusal)) from refusal
        except MailStatusUnknown as silence:
            log.exception("Send %s is UNCERTAIN", held.uuid)
            with self.service.begin() as service:
                jobs.uncertain(service, held, str(silence))
        else:
            with self.service.begin() as service:
                jobs.sent(service, held, message_id)

    def renew(self, held: Claim) -> None:
        """Raises NothingToDo when the claim is somebody else's, or over."""
        with self.service.begin() as service:
            jobs.renew(service, held)

    def fail(self, held: Claim, sentence: str) -> None:
        """Ends the send. Raises NothingToDo when it was over already."""
        with self.service.begin() as service:
            jobs.fail(service, held, sentence)

    def back_off(self, held: Claim, reason: str) -> None:
        """Shortens the lease. Where that cannot be written, it just runs out."""
        try:
            with self.service.begin() as service:
                jobs.back_off(service, held, reason)
        except (NothingToDo, SQLAlchemyError):
            log.warning("The lease of send %s could not be shortened; it runs out", held.uuid, exc_info=True)
