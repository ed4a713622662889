"""A send: the record of one mail, who works on it, and each change of it.

The number of the attempt is the lease's token: it goes up at each claim, and every write of an attempt names it. From
the moment SENDING is committed nobody can claim the send any more, so nobody hands the mail over a second time: it
ends by the mail service's answer, by one of its events, or, when neither comes, UNCERTAIN.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from functions.buy_orders.states import (
    LEASE_SECONDS,
    MAX_ATTEMPTS,
    SENDING_LEASE_SECONDS,
    UNFINISHED,
    UNSENT,
    Status,
)
from shared.errors import NothingToDo
from shared.messages import BuyOrderEmail
from shared.tables.service import buy_order_sends as sends

if TYPE_CHECKING:
    from collections.abc import Sequence

# Sweep asks again after this: twice what a message takes through a busy Kafka.
WAKE_AFTER_SECONDS = 10
# Longer than a lease: an attempt renews its lease before it stores a file, so by then nobody's file appears any more.
TIDY_AFTER_SECONDS = 2 * LEASE_SECONDS
AT_ONCE = 500  # of a kind in one sweep; the next one goes on

UNKNOWN = (
    "Whether the mail service took this mail is not known. If it did, it will say so and this send becomes SENT. Ask"
    " the supplier before you send the order again."
)


class Claim(msgspec.Struct, frozen=True):
    """A send as it was when this claimant took it."""

    uuid: UUID
    webshop_uuid: UUID
    request: str  # shared.messages.BuyOrderEmail as JSON
    attempts: int  # this one included: the token of everything it writes

    @property
    def wanted(self) -> BuyOrderEmail:
        """What was asked for."""
        return BuyOrderEmail.decoded(self.request.encode())

    def path(self, file_name: str) -> str:
        """Where this attempt's file of that name lies: no two attempts ever write the same object."""
        return f"{folder(self.webshop_uuid, self.uuid)}{self.attempts}/{file_name}"


def folder(webshop_uuid: UUID, send_uuid: UUID) -> str:
    """Where the files of all attempts at a send lie."""
    return f"buy-orders/{webshop_uuid}/{send_uuid}/"


def now(plus_seconds: int = 0) -> ColumnElement[datetime]:
    """The database's clock: the only one that leases are measured by."""
    return func.clock_timestamp() + timedelta(seconds=plus_seconds)


def add(service: Connection, wanted: BuyOrderEmail, recipient: str | None, idempotency_key: str | None = None) -> bool:
    """Adds a send that waits to be claimed; False when there is one of its uuid, or of its key, already."""
    statement = (
        insert(sends)
        .values(
            uuid=wanted.send_uuid,
            webshop_uuid=wanted.webshop_uuid,
            buy_order_uuid=wanted.buy_order_uuid,
            user_uuid=wanted.user_uuid,
            request=wanted.encoded().decode(),
            idempotency_key=idempotency_key,
            recipient=recipient,
            status=Status.PENDING,
            wake_at=now(WAKE_AFTER_SECONDS),
        )
        .on_conflict_do_nothing()
    )
    return service.execute(statement).rowcount == 1


def claim(service: Connection, wanted: BuyOrderEmail) -> Claim:
    """Takes the send for LEASE_SECONDS, to mail what its record asks for.

    Raises NothingToDo when there is nothing to take: the mail was, or may have been, handed over; it was tried often
    enough; its time has not come; or somebody holds it. If that one dies, sweep brings the send back.
    """
    statement = (
        update(sends)
        .where(
            sends.c.uuid == wanted.send_uuid,
            sends.c.webshop_uuid == wanted.webshop_uuid,
            sends.c.status.in_(UNSENT),
            sends.c.attempts < MAX_ATTEMPTS,
            func.coalesce(sends.c.lease_until, now()) <= now(),
        )
        .values(attempts=sends.c.attempts + 1, lease_until=now(LEASE_SECONDS), updated_at=now())
        .returning(*(sends.c[field] for field in Claim.__struct_fields__))
    )
    row = service.execute(statement).one_or_none()
    if row is None:
        raise NothingToDo(f"send {wanted.send_uuid} is not to be claimed")
    return msgspec.convert(row._mapping, Claim, from_attributes=True)


def renew(service: Connection, held: Claim) -> None:
    """Renews the lease. Raises NothingToDo when it is somebody else's, or over."""
    write(service, held, UNSENT, lease_until=now(LEASE_SECONDS))


def files_ready(service: Connection, held: Claim, recipient: str, file_uris: Sequence[str]) -> None:
    """Attaches the stored files of this attempt, in place of an earlier one's. Raises NothingToDo."""
    values = {"status": Status.FILES_READY, "reason": "", "recipient": recipient, "file_uris": list(file_uris)}
    write(service, held, UNSENT, lease_until=now(LEASE_SECONDS), **values)


def sending(service: Connection, held: Claim) -> None:
    """Says that from now on the mail service may have the mail. Raises NothingToDo: then nobody may hand it over."""
    lease = now(SENDING_LEASE_SECONDS)
    write(service, held, (Status.FILES_READY,), status=Status.SENDING, lease_until=lease, wake_at=lease)


def sent(service: Connection, held: Claim, message_id: str) -> None:
    """Writes the mail service's yes, which also settles what sweep took for UNCERTAIN meanwhile.

    Raises NothingToDo when one of its events was here first.
    """
    values = {**over(Status.SENT), "reason": "", "sent_at": now(), "message_id": message_id}
    write(service, held, (Status.SENDING, Status.UNCERTAIN), **values)


def uncertain(service: Connection, held: Claim, reason: str) -> None:
    """Writes that nobody can tell. Raises NothingToDo when an event told by now."""
    write(service, held, (Status.SENDING,), **over(Status.UNCERTAIN), reason=f"{UNKNOWN} {reason}")


def fail(service: Connection, held: Claim, reason: str) -> None:
    """Ends the send, which the mail service certainly does not have; `reason` is a sentence for its merchant."""
    write(service, held, (*UNFINISHED, Status.UNCERTAIN), **over(Status.FAILED), reason=reason)


def postpone(service: Connection, held: Claim, reason: str, seconds: int) -> None:
    """The mail service did not take it: back to FILES_READY, for nobody to claim within `seconds`."""
    until = now(seconds)
    values = {"status": Status.FILES_READY, "reason": reason, "lease_until": until, "wake_at": until}
    write(service, held, (Status.SENDING,), **values)


def back_off(service: Connection, held: Claim, reason: str) -> None:
    """Lets the next claimant in after 2, 4, 8, 16 seconds, so that a passing fault does not use up the attempts."""
    until = now(min(2**held.attempts, LEASE_SECONDS))
    write(service, held, UNSENT, lease_until=until, wake_at=until, reason=reason)


def write(service: Connection, held: Claim, states: Sequence[Status], **values: object) -> None:
    """Writes to the send's row. Raises NothingToDo unless this attempt holds it and it is in one of `states`."""
    statement = (
        update(sends)
        .where(sends.c.uuid == held.uuid, sends.c.attempts == held.attempts, sends.c.status.in_(states))
        .values(updated_at=now(), **values)
    )
    if service.execute(statement).rowcount == 0:
        raise NothingToDo(f"attempt {held.attempts} at send {held.uuid} is over")


def over(status: Status) -> dict[str, Any]:
    """What goes with an end: an attempt that died may have left files."""
    return {"status": status, "lease_until": None, "finished_at": now(), "tidy_at": now(TIDY_AFTER_SECONDS)}


def lost(service: Connection) -> list[UUID]:
    """Makes UNCERTAIN what somebody was handing over who did not live to say how it went; returns their uuids."""
    statement = (
        update(sends)
        .where(sends.c.uuid.in_(asleep(sends.c.status == Status.SENDING)))
        .values(**over(Status.UNCERTAIN), updated_at=now(), reason=UNKNOWN)
        .returning(sends.c.uuid)
    )
    return list(service.execute(statement).scalars())


def give_up(service: Connection) -> list[UUID]:
    """Ends the sends that have had their attempts, by now certainly not handed over; returns their uuids."""
    sentence = f"It was tried {MAX_ATTEMPTS} times and could not be sent. Send the order again later."
    last = func.concat_ws(" ", sentence, func.nullif(sends.c.reason, ""))
    statement = (
        update(sends)
        .where(sends.c.uuid.in_(asleep(and_(sends.c.status.in_(UNSENT), sends.c.attempts >= MAX_ATTEMPTS))))
        .values(**over(Status.FAILED), updated_at=now(), reason=last)
        .returning(sends.c.uuid)
    )
    return list(service.execute(statement).scalars())


def wake(service: Connection) -> list[BuyOrderEmail]:
    """The messages of sends that nobody works on; each is returned once in WAKE_AFTER_SECONDS."""
    statement = (
        update(sends)
        .where(sends.c.uuid.in_(asleep(and_(sends.c.status.in_(UNSENT), sends.c.attempts < MAX_ATTEMPTS))))
        .values(wake_at=now(WAKE_AFTER_SECONDS))
        .returning(sends.c.request)
    )
    return [BuyOrderEmail.decoded(request.encode()) for request in service.execute(statement).scalars()]


def expire(service: Connection, retention_days: int) -> None:
    """Takes the files off the sends that are long over; sweep removes them."""
    old = (
        select(sends.c.uuid)
        .where(text("file_uris <> '{}'"), sends.c.finished_at <= now(-retention_days * 24 * 3600))
        .order_by(sends.c.finished_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    service.execute(update(sends).where(sends.c.uuid.in_(old)).values(file_uris=[], tidy_at=now(), updated_at=now()))


def asleep(condition: ColumnElement[bool]) -> Any:
    """The unfinished sends under `condition` that nobody works on, as a query of their uuids that locks them."""
    nobody_works_on_it = or_(sends.c.lease_until.is_(None), sends.c.lease_until <= now())
    return (
        select(sends.c.uuid)
        .where(sends.c.status.in_(UNFINISHED), sends.c.wake_at <= now(), nobody_works_on_it, condition)
        .order_by(sends.c.wake_at)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
