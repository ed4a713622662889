"""Email deliveries under faults: workers that are killed at any call, duplicate and late messages, failing systems.

After every fault the delivery ends, no email is sent twice, and the bucket has exactly the files of the deliveries.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from functions.buy_orders import buy_order_email, jobs, states
from functions.buy_orders.jobs import DeliveryClaim
from functions.exports import queries
from shared.clients.mailer import MailDeferred
from shared.errors import NothingToDo, Unavailable
from shared.messages import BuyOrderEmail
from tests.buy_orders_world import BuyOrdersWorld, event
from tests.world import Killed

# Calls to other systems: commits, changes of the bucket, messages, and the email. The first test counts them.
CALLS_OF_A_DELIVERY = 18
EMAIL_CALL = 16  # the one of them that sends the email
CALLS_OF_A_REQUEST = 3


@pytest.fixture(autouse=True)
def no_renewal_during_the_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the number of calls the same on a machine on which the rendering of a file takes seconds."""
    monkeypatch.setattr(queries, "PROGRESS_SECONDS", 3600.0)


def deliver_killed_at(buy_orders: BuyOrdersWorld, call: int, message: BuyOrderEmail) -> bool:
    """Delivers `message` with a kill at call number `call` (0: none). Returns whether the worker was killed."""
    buy_orders.kill_at(call)
    try:
        buy_orders.deliver(message)
    except Killed:
        return True
    finally:
        buy_orders.boundaries.until_kill = 0
    return False


def read_states(buy_orders: BuyOrdersWorld) -> list[str]:
    """Returns the states of all deliveries."""
    return [status for (status,) in buy_orders.rows("service", "select status from buy_order_sends")]


def test_the_number_of_calls(buy_orders: BuyOrdersWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tests kill a worker at each of these calls, and depend on which of them sends the email."""
    calls: list[str] = []
    reach = buy_orders.boundaries.reach

    def record(call: str) -> None:
        calls.append(call)
        reach(call)

    monkeypatch.setattr(buy_orders.boundaries, "reach", record)

    assert not deliver_killed_at(buy_orders, 0, buy_orders.message())

    assert len(calls) == CALLS_OF_A_DELIVERY
    assert calls.index("mail") + 1 == EMAIL_CALL
    calls.clear()
    buy_orders.request_email()
    assert len(calls) == CALLS_OF_A_REQUEST


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_DELIVERY + 1))
def test_a_worker_killed_at_any_call_sends_at_most_one_email(buy_orders: BuyOrdersWorld, call: int) -> None:
    """After a kill before the email, another attempt sends it. After a later kill the delivery is UNCERTAIN."""
    message = buy_orders.message()

    assert deliver_killed_at(buy_orders, call, message)
    for _ in range(3):
        buy_orders.deliver(message)
    buy_orders.recover()
    buy_orders.deliver(message)

    (status,) = read_states(buy_orders)
    assert len(buy_orders.accepted_emails()) == (0 if call == EMAIL_CALL else 1)
    assert status == ("SENT" if call < EMAIL_CALL else "UNCERTAIN")
    buy_orders.assert_settled()
    if call > EMAIL_CALL:
        assert buy_orders.post_events(event(message.send_uuid)) == 204
        buy_orders.recover()
        assert read_states(buy_orders) == ["SENT"]
        assert len(buy_orders.accepted_emails()) == 1


@pytest.mark.parametrize("first", range(1, EMAIL_CALL - 1, 2))
def test_four_killed_workers_still_send_one_email(buy_orders: BuyOrdersWorld, first: int) -> None:
    """Each attempt is killed at another call before the email. The fifth attempt sends it."""
    message = buy_orders.message()
    for kill in range(4):
        assert deliver_killed_at(buy_orders, 1 + (first + 3 * kill) % (EMAIL_CALL - 2), message)
        buy_orders.let_time_pass()

    buy_orders.recover()

    assert len(buy_orders.accepted_emails()) == 1
    assert read_states(buy_orders) == ["SENT"]
    buy_orders.assert_settled()


def test_a_delivery_that_kills_every_worker_fails(buy_orders: BuyOrdersWorld) -> None:
    """After five attempts that died before the email, the delivery is FAILED with a reason."""
    message = buy_orders.message()
    for _ in range(states.MAX_ATTEMPTS):
        deliver_killed_at(buy_orders, 3, message)
        buy_orders.let_time_pass()

    buy_orders.recover()

    delivery = buy_orders.only_delivery()
    assert (delivery["status"], buy_orders.accepted_emails()) == ("FAILED", [])
    assert delivery["reason"].startswith("The email could not be sent in 5 attempts")
    buy_orders.assert_settled()


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_REQUEST + 1))
def test_a_request_that_is_killed_can_be_sent_again(buy_orders: BuyOrdersWorld, call: int) -> None:
    """The same request with the same key sends one email, whether the first one was recorded or not."""
    buy_orders.kill_at(call)
    with pytest.raises(Killed):
        buy_orders.request_email(key="k")
    buy_orders.kill_at(0)

    assert buy_orders.request_email(key="k").status_code == 202
    buy_orders.recover()

    assert len(buy_orders.accepted_emails()) == 1
    assert read_states(buy_orders) == ["SENT"]


@pytest.mark.parametrize("call", range(1, 12))
def test_a_sweep_killed_at_any_call_loses_nothing(buy_orders: BuyOrdersWorld, call: int) -> None:
    """The next sweep does the rest."""
    buy_orders.fail_next_emails(MailDeferred("busy"))
    buy_orders.request_email()
    buy_orders.run()
    buy_orders.let_time_pass()

    buy_orders.kill_at(call)
    with suppress(Killed):
        buy_orders.sweep()
    buy_orders.kill_at(0)
    buy_orders.recover()

    assert len(buy_orders.accepted_emails()) == 1
    assert read_states(buy_orders) == ["SENT"]
    buy_orders.assert_settled()


def test_a_worker_that_lost_its_lease_does_not_send_the_email(buy_orders: BuyOrdersWorld) -> None:
    """Another attempt sends the email while this one stores its files: this one is fenced off before SENDING."""
    message = buy_orders.message()

    def deliver_again() -> None:
        buy_orders.storage.before_publish = lambda: None
        buy_orders.let_time_pass()
        assert buy_orders.deliver(message) == 200

    buy_orders.storage.before_publish = deliver_again

    assert buy_orders.deliver(message) == 200

    assert len(buy_orders.accepted_emails()) == 1
    assert read_states(buy_orders) == ["SENT"]
    buy_orders.recover()
    buy_orders.assert_settled()


def test_a_late_response_is_still_recorded(buy_orders: BuyOrdersWorld) -> None:
    """Sweep marks the delivery UNCERTAIN. The response that accepts the email makes it SENT."""
    message = buy_orders.message()

    def sweep() -> None:
        buy_orders.let_time_pass()
        buy_orders.sweep()
        assert read_states(buy_orders) == ["UNCERTAIN"]

    buy_orders.email_service.before_answer = sweep

    assert buy_orders.deliver(message) == 200

    assert read_states(buy_orders) == ["SENT"]


def test_after_an_event_the_delivery_is_not_claimed(buy_orders: BuyOrdersWorld) -> None:
    """The email service responded that it is busy, but an event proves that it accepted the email."""
    buy_orders.fail_next_emails(MailDeferred("busy"))
    message = buy_orders.message()
    buy_orders.deliver(message)
    buy_orders.post_events(event(message.send_uuid, "processed"))
    buy_orders.let_time_pass()

    buy_orders.deliver(message)
    buy_orders.recover()

    assert buy_orders.accepted_emails() == []
    assert read_states(buy_orders) == ["SENT"]


def test_the_email_waits_for_the_bucket(buy_orders: BuyOrdersWorld) -> None:
    """If a file cannot be stored, the response is 503 and the next attempt sends the email."""
    message = buy_orders.message()

    def refuse() -> None:
        raise Unavailable("the bucket refuses")

    buy_orders.storage.before_publish = refuse
    assert buy_orders.deliver(message) == 503
    buy_orders.storage.before_publish = lambda: None

    assert buy_orders.deliver(message) == 200
    assert buy_orders.accepted_emails() == []
    buy_orders.recover()
    assert len(buy_orders.accepted_emails()) == 1
    buy_orders.assert_settled()


def test_the_email_is_not_sent_if_the_commit_of_sending_fails(
    buy_orders: BuyOrdersWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot know whether SENDING is committed, so it does not send the email."""
    mark_sending = buy_order_email.mark_sending

    def commit_and_fail(conn: Connection, claim: DeliveryClaim) -> None:
        mark_sending(conn, claim)
        conn.commit()
        raise OperationalError("commit", None, Exception("the connection broke"))

    monkeypatch.setattr(buy_order_email, "mark_sending", commit_and_fail)
    message = buy_orders.message()

    assert buy_orders.deliver(message) == 503
    monkeypatch.setattr(buy_order_email, "mark_sending", mark_sending)
    buy_orders.deliver(message)
    buy_orders.recover()

    assert buy_orders.accepted_emails() == []
    assert read_states(buy_orders) == ["UNCERTAIN"]


def test_a_delivery_cannot_be_claimed_after_the_email(buy_orders: BuyOrdersWorld) -> None:
    """Only a PENDING or FILES_READY delivery can be claimed."""
    message = buy_orders.message()
    buy_orders.deliver(message)
    for status, columns in (
        ("SENDING", "sent_at = null, finished_at = null"),
        ("SENT", "sent_at = now(), finished_at = now()"),
        ("UNCERTAIN", "sent_at = null, finished_at = now(), reason = 'x'"),
        ("FAILED", "sent_at = null, finished_at = now(), reason = 'x'"),
    ):
        buy_orders.change("service", f"update buy_order_sends set status = '{status}', lease_until = null, {columns}")
        with pytest.raises(NothingToDo), buy_orders.service_db.begin() as conn:
            jobs.claim_delivery(conn, message)
