"""The states of a send, and the limits that more than one step keeps to."""

from __future__ import annotations

from enum import StrEnum

LEASE_SECONDS = 30  # many times the pause between two renewals, short enough to wait for when a holder died
# Longer than handing over a mail of the greatest size can take before the client's time-outs end it.
SENDING_LEASE_SECONDS = 180
MAX_ATTEMPTS = 5  # claims before a send is given up: what failed five times will fail the sixth
MAX_MAIL_BYTES = 20_000_000  # of the three files together: encoded for the mail they stay under SendGrid's 30 MB


class Status(StrEnum):
    """Where a send stands; the README says what each means to a merchant."""

    PENDING = "PENDING"  # nobody has begun
    FILES_READY = "FILES_READY"  # the files are stored; the mail service has certainly not taken the mail
    SENDING = "SENDING"  # the mail service may have taken it at any moment since
    SENT = "SENT"  # the mail service has it
    UNCERTAIN = "UNCERTAIN"  # it may have it: only its events can tell, and nothing is sent again
    FAILED = "FAILED"  # it certainly does not have it


UNSENT = (Status.PENDING, Status.FILES_READY)  # a mail may still be handed over
UNFINISHED = (*UNSENT, Status.SENDING)
