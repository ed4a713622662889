"""An email delivery as a job: its row, its claim, and its transitions.

The number of the attempt is the fencing token. Once SENDING is committed no worker can claim the delivery any more, so
no worker sends the email a second time. The email service's response or one of its events ends the delivery; if neither
arrives, it ends as UNCERTAIN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from functions.buy_orders.states import MAX_ATTEMPTS, SENDING_LEASE_SECONDS, UNFINISHED, UNSENT, Status
from shared.leases import (
    MAX_ROWS_PER_SWEEP,
    ORPHANED_AFTER_SECONDS,
    REQUEUE_AFTER_SECONDS,
    LeasedTable,
    now,
)
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends as deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence

DELIVERIES = LeasedTable(
    deliveries,
    claimable=UNSENT,
    unfinished=UNFINISHED,
    max_attempts=MAX_ATTEMPTS,
    on_write={"updated_at": now()},
)

# Set with every final state: a worker that died in an earlier attempt may have left files.
CHECK_FILES_LATER: dict[str, Any] = {"tidy_at": now(ORPHANED_AFTER_SECONDS)}

UNCERTAIN_REASON = (
    "It is not known whether the email service accepted this email. If it did, its events will say so and this delivery"
    " becomes SENT. Ask the supplier before you send the order again."
)


class DeliveryClaim(msgspec.Struct, frozen=True):
    """An email delivery as it was when this worker claimed it."""

    uuid: UUID
    webshop_uuid: UUID
    request: str  # BuyOrderEmail as JSON
    attempts: int  # this one included: the fencing token

    @property
    def attempts_so_far(self) -> int:
        """See shared.leases.Claim."""
        return self.attempts

    @property
    def message(self) -> BuyOrderEmail:
        """The message that requested the delivery."""
        return BuyOrderEmail.decode(self.request.encode())

    def file_path(self, file_name: str) -> str:
        """Returns the path of one of this attempt's files. Two attempts never write the same object."""
        return f"{folder_path(self.webshop_uuid, self.uuid)}{self.attempts}/{file_name}"


def folder_path(webshop_uuid: UUID, delivery_uuid: UUID) -> str:
    """Returns the folder that holds the files of all attempts of a delivery."""
    return f"buy-orders/{webshop_uuid}/{delivery_uuid}/"


def insert_delivery(
    conn: Connection, message: BuyOrderEmail, recipient: str | None, idempotency_key: str | None = None
) -> bool:
    """Inserts a pending delivery. Returns False if a delivery with its uuid or its idempotency key exists."""
    statement = (
        insert(deliveries)
        .values(
            uuid=message.send_uuid,
            webshop_uuid=message.webshop_uuid,
            buy_order_uuid=message.buy_order_uuid,
            user_uuid=message.user_uuid,
            request=message.encode().decode(),
            idempotency_key=idempotency_key,
            recipient=recipient,
            status=Status.PENDING,
            wake_at=now(REQUEUE_AFTER_SECONDS),
        )
        .on_conflict_do_nothing()
    )
    return conn.execute(statement).rowcount == 1


def claim_delivery(conn: Connection, message: BuyOrderEmail) -> DeliveryClaim:
    """Claims the delivery. Its row, not the message, says which email to send.

    Raises NothingToDo when it cannot be claimed: the email was or may have been sent, the delivery has used up its
    attempts, it is postponed, or another worker's lease has not ended.
    """
    of_webshop = deliveries.c.webshop_uuid == message.webshop_uuid
    columns = tuple(deliveries.c[name] for name in DeliveryClaim.__struct_fields__)
    row = DELIVERIES.claim(conn, message.send_uuid, of_webshop, returning=columns)
    return msgspec.convert(row, DeliveryClaim, from_attributes=True)


def mark_files_ready(conn: Connection, claim: DeliveryClaim, recipient: str, file_uris: Sequence[str]) -> None:
    """Replaces the files of the delivery by those of this attempt. Raises NothingToDo when the lease was lost."""
    values = {"status": Status.FILES_READY, "reason": "", "recipient": recipient, "file_uris": list(file_uris)}
    DELIVERIES.renew(conn, claim, **values)


def mark_sending(conn: Connection, claim: DeliveryClaim) -> None:
    """Records that the email is about to be sent: after this commit the email service may have it.

    Raises NothingToDo when the lease was lost. The email must not be sent then.
    """
    lease_until = now(SENDING_LEASE_SECONDS)
    values: dict[str, Any] = {"status": Status.SENDING, "lease_until": lease_until, "wake_at": lease_until}
    DELIVERIES.write(conn, claim, states=(Status.FILES_READY,), **values)


def mark_sent(conn: Connection, claim: DeliveryClaim, message_id: str) -> None:
    """Records that the email service accepted the email, also if sweep has marked the delivery UNCERTAIN meanwhile.

    Raises NothingToDo when an event already recorded it.
    """
    values = {"reason": "", "sent_at": now(), "message_id": message_id, **CHECK_FILES_LATER}
    DELIVERIES.finish(conn, claim, Status.SENT, states=(Status.SENDING, Status.UNCERTAIN), **values)


def mark_uncertain(conn: Connection, claim: DeliveryClaim, reason: str) -> None:
    """Marks the delivery UNCERTAIN. Raises NothingToDo if a webhook event already settled it."""
    values = {"reason": f"{UNCERTAIN_REASON} {reason}", **CHECK_FILES_LATER}
    DELIVERIES.finish(conn, claim, Status.UNCERTAIN, states=(Status.SENDING,), **values)


def fail_delivery(conn: Connection, claim: DeliveryClaim, reason: str) -> None:
    """Ends a delivery as FAILED: its email was not accepted. `reason` is a sentence for the merchant.

    Raises NothingToDo when the lease was lost.
    """
    states = (*UNFINISHED, Status.UNCERTAIN)
    DELIVERIES.finish(conn, claim, Status.FAILED, states=states, reason=reason, **CHECK_FILES_LATER)


def postpone(conn: Connection, claim: DeliveryClaim, reason: str, seconds: int) -> None:
    """Puts the delivery back to FILES_READY for `seconds`, because the email service did not accept the email."""
    until = now(seconds)
    values: dict[str, Any] = {"status": Status.FILES_READY, "reason": reason, "lease_until": until, "wake_at": until}
    DELIVERIES.write(conn, claim, states=(Status.SENDING,), **values)


def finish_dead_senders(conn: Connection) -> list[UUID]:
    """Marks deliveries as UNCERTAIN whose worker died before recording the response. Returns their uuids."""
    rows = DELIVERIES.finish_stalled(
        conn,
        Status.UNCERTAIN,
        deliveries.c.status == Status.SENDING,
        returning=(deliveries.c.uuid,),
        reason=UNCERTAIN_REASON,
        **CHECK_FILES_LATER,
    )
    return [row.uuid for row in rows]


def give_up_stalled(conn: Connection) -> list[UUID]:
    """Ends the stalled deliveries that have used up their attempts and were not sent. Returns their uuids."""
    sentence = f"The email could not be sent in {MAX_ATTEMPTS} attempts. Send the order again later."
    rows = DELIVERIES.finish_stalled(
        conn,
        Status.FAILED,
        deliveries.c.status.in_(UNSENT),
        deliveries.c.attempts >= MAX_ATTEMPTS,
        returning=(deliveries.c.uuid,),
        reason=func.concat_ws(" ", sentence, func.nullif(deliveries.c.reason, "")),
        **CHECK_FILES_LATER,
    )
    return [row.uuid for row in rows]


def requeue_stalled(conn: Connection) -> list[BuyOrderEmail]:
    """Returns the messages that requeue the stalled deliveries, each at most once in REQUEUE_AFTER_SECONDS."""
    rows = DELIVERIES.requeue_stalled(conn, returning=(deliveries.c.request,))
    return [BuyOrderEmail.decode(row.request.encode()) for row in rows]


def expire_files(conn: Connection, retention_days: int) -> None:
    """Detaches the files of deliveries after the retention. Sweep deletes them later."""
    expired = (
        select(deliveries.c.uuid)
        .where(text("file_uris <> '{}'"), deliveries.c.finished_at <= now(-retention_days * 24 * 3600))
        .order_by(deliveries.c.finished_at)
        .limit(MAX_ROWS_PER_SWEEP)
        .with_for_update(skip_locked=True)
    )
    values = {"file_uris": [], "tidy_at": now(), "updated_at": now()}
    conn.execute(update(deliveries).where(deliveries.c.uuid.in_(expired)).values(**values))
