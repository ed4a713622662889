"""Mails of buy orders under fire: killed at any call, delivered twice, late or never; a world that fails.

Whatever happens, the send ends, no mail is handed over twice, and the bucket holds exactly the files of the sends.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy.exc import OperationalError

from functions.buy_orders import buy_order_email, jobs, states
from shared.clients.mailer import MailDeferred
from shared.errors import NothingToDo, Unavailable
from shared.messages import BuyOrderEmail
from tests.buy_orders_world import BuyOrdersWorld, event
from tests.world import Killed

# To the outside, counted, not guessed: commits, what is done to the bucket, and the mail.
CALLS_OF_A_MAIL = 18
CALL_OF_THE_MAIL = 16  # of them: until it, nothing was handed over
CALLS_OF_A_REQUEST = 3


def deliver_killed_at(buying: BuyOrdersWorld, call: int, message: BuyOrderEmail) -> bool:
    """Delivers `message` with a kill at the `call`-th call; whether somebody was killed."""
    buying.kill_at(call)
    try:
        buying.deliver(message)
    except Killed:
        return True
    finally:
        buying.boundaries.until_kill = 0
    return False


def states_of(buying: BuyOrdersWorld) -> list[str]:
    return [status for (status,) in buying.rows("service", "select status from buy_order_sends")]


def test_what_the_other_tests_count(buying):
    """The calls that a kill can hit, and which of them hands the mail over."""
    reached: list[str] = []
    reach = buying.boundaries.reach
    buying.boundaries.reach = lambda what: (reached.append(what), reach(what))

    assert not deliver_killed_at(buying, 0, buying.message())

    assert len(reached) == CALLS_OF_A_MAIL
    assert reached.index("mail") + 1 == CALL_OF_THE_MAIL
    reached.clear()
    buying.ask_for_mail()
    assert len(reached) == CALLS_OF_A_REQUEST


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_MAIL + 1))
def test_a_function_killed_at_any_call_never_mails_twice(buying, call):
    """Killed before the mail it goes on; from the mail on the send is UNCERTAIN until an event tells."""
    message = buying.message()

    assert deliver_killed_at(buying, call, message)
    for _ in range(3):
        buying.deliver(message)
    buying.recover()
    buying.deliver(message)

    mails = len(buying.mail_service.taken)
    (status,) = states_of(buying)
    assert mails == (0 if call == CALL_OF_THE_MAIL else 1)
    assert status == ("SENT" if call < CALL_OF_THE_MAIL else "UNCERTAIN")
    buying.assert_settled()
    if call > CALL_OF_THE_MAIL:
        assert buying.tell(event(message.send_uuid)) == 204
        buying.recover()
        assert states_of(buying) == ["SENT"]
        assert len(buying.mail_service.taken) == 1


@pytest.mark.parametrize("first", range(1, CALL_OF_THE_MAIL - 1, 2))
def test_killed_again_and_again_it_still_is_one_mail(buying, first):
    """Each attempt dies somewhere else; the fifth may live."""
    message = buying.message()
    for death in range(4):
        assert deliver_killed_at(buying, 1 + (first + 3 * death) % (CALL_OF_THE_MAIL - 2), message)
        buying.let_time_pass()

    buying.recover()

    assert len(buying.mail_service.taken) == 1
    assert states_of(buying) == ["SENT"]
    buying.assert_settled()


def test_a_send_that_kills_whoever_tries_it_fails(buying):
    """Five attempts that died before the mail: FAILED with a reason, and no mail."""
    message = buying.message()
    for _ in range(states.MAX_ATTEMPTS):
        deliver_killed_at(buying, 3, message)
        buying.let_time_pass()

    buying.recover()

    (send,) = buying.mails()["items"]
    assert (send["status"], buying.mail_service.taken) == ("FAILED", [])
    assert send["reason"].startswith("The email could not be sent in 5 attempts")
    buying.assert_settled()


@pytest.mark.parametrize("call", range(1, CALLS_OF_A_REQUEST + 1))
def test_a_request_killed_at_any_call_is_mailed_once_or_was_never_made(buying, call):
    """What was recorded is mailed; asked again with the same key, it is still one mail."""
    buying.kill_at(call)
    with pytest.raises(Killed):
        buying.ask_for_mail(key="k")
    buying.kill_at(0)

    assert buying.ask_for_mail(key="k").status_code == 202
    buying.recover()

    assert len(buying.mail_service.taken) == 1
    assert states_of(buying) == ["SENT"]


@pytest.mark.parametrize("call", range(1, 12))
def test_a_sweep_killed_at_any_call_loses_nothing(buying, call):
    """The next one does what it left."""
    buying.mail_service.answers.append(MailDeferred("busy"))
    buying.ask_for_mail()
    buying.run()
    buying.let_time_pass()
    buying.kill_at(call)
    with suppress(Killed):
        buying.sweep()
    buying.kill_at(0)

    buying.recover()

    assert len(buying.mail_service.taken) == 1
    assert states_of(buying) == ["SENT"]
    buying.assert_settled()


def test_who_slept_through_the_lease_hands_nothing_over(buying):
    """While it stores its files another attempt sends the mail: it is fenced off before SENDING."""
    message = buying.message()

    def somebody_else() -> None:
        buying.storage.before_publish = lambda: None
        buying.let_time_pass()
        assert buying.deliver(message) == 200

    buying.storage.before_publish = somebody_else

    assert buying.deliver(message) == 200

    assert len(buying.mail_service.taken) == 1
    assert states_of(buying) == ["SENT"]
    buying.recover()
    buying.assert_settled()


def test_an_answer_that_comes_after_sweep_gave_up_is_still_written(buying):
    """The service's yes settles what was UNCERTAIN meanwhile."""
    message = buying.message()

    def sweep() -> None:
        buying.let_time_pass()
        buying.sweep()
        assert states_of(buying) == ["UNCERTAIN"]

    buying.mail_service.before_answer = sweep

    assert buying.deliver(message) == 200

    assert states_of(buying) == ["SENT"]


def test_an_event_that_comes_before_a_claim_ends_the_send(buying):
    """A busy service that took the mail all the same: the event proves it, and no attempt begins."""
    buying.mail_service.answers.append(MailDeferred("busy"))
    message = buying.message()
    buying.deliver(message)
    buying.tell(event(message.send_uuid, "processed"))
    buying.let_time_pass()

    buying.deliver(message)
    buying.recover()

    assert buying.mail_service.taken == []
    assert states_of(buying) == ["SENT"]


def test_a_bucket_that_refuses_is_tried_again(buying, monkeypatch):
    """503 to the delivery, which comes again; the mail waits for its files to be stored."""
    message = buying.message()

    def refuse() -> None:
        raise Unavailable("the bucket refuses")

    buying.storage.before_publish = refuse
    assert buying.deliver(message) == 503
    buying.storage.before_publish = lambda: None

    assert buying.deliver(message) == 200
    assert buying.mail_service.taken == []
    buying.recover()
    assert len(buying.mail_service.taken) == 1
    buying.assert_settled()


def test_a_database_that_fails_while_sending_is_written_hands_nothing_over(buying, monkeypatch):
    """Not knowing whether SENDING is committed is reason enough not to send."""
    sending = buy_order_email.mark_sending

    def commit_and_fail(conn, claim):
        sending(conn, claim)
        conn.commit()
        raise OperationalError("commit", None, Exception("the connection broke"))

    monkeypatch.setattr(buy_order_email, "mark_sending", commit_and_fail)
    message = buying.message()

    assert buying.deliver(message) == 503
    monkeypatch.setattr(buy_order_email, "mark_sending", sending)
    buying.deliver(message)
    buying.recover()

    assert buying.mail_service.taken == []
    assert states_of(buying) == ["UNCERTAIN"]


def test_a_claim_is_fenced_in_every_state_after_the_mail(buying):
    """Only PENDING and FILES_READY can be claimed."""
    message = buying.message()
    buying.deliver(message)
    for status, more in (
        ("SENDING", "sent_at = null, finished_at = null"),
        ("SENT", "sent_at = now(), finished_at = now()"),
        ("UNCERTAIN", "sent_at = null, finished_at = now(), reason = 'x'"),
        ("FAILED", "sent_at = null, finished_at = now(), reason = 'x'"),
    ):
        buying.change("service", f"update buy_order_sends set status = '{status}', lease_until = null, {more}")
        with pytest.raises(NothingToDo), buying.service.begin() as service:
            jobs.claim_delivery(service, message)
