"""The states of an email delivery, and its limits."""

from __future__ import annotations

from enum import StrEnum

# Longer than the client's time-outs allow for sending the largest email.
SENDING_LEASE_SECONDS = 180
MAX_ATTEMPTS = 5  # claims before a delivery is given up: what failed five times is not likely to succeed
MAX_EMAIL_BYTES = 20_000_000  # of the three files together: encoded for the email they stay under SendGrid's 30 MB


class Status(StrEnum):
    """The state of an email delivery. The README says what each means to a merchant."""

    PENDING = "PENDING"  # the files are not stored yet
    FILES_READY = "FILES_READY"  # the files are stored; the email service has not accepted the email
    SENDING = "SENDING"  # the request to the email service has begun: it may have accepted the email
    SENT = "SENT"  # the email service accepted the email
    UNCERTAIN = "UNCERTAIN"  # it is not known whether it did: only an event can tell, and no worker sends it again
    FAILED = "FAILED"  # the email service did not accept the email, and no worker tries again


UNSENT = (Status.PENDING, Status.FILES_READY)  # the email may still be sent
UNFINISHED = (*UNSENT, Status.SENDING)
