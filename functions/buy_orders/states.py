"""The states of an email delivery, and the limits that several steps keep to."""

from __future__ import annotations

from enum import StrEnum

# Longer than sending an email of the greatest size can take before the client's time-outs end it.
SENDING_LEASE_SECONDS = 180
MAX_ATTEMPTS = 5  # claims before a delivery is given up: what failed five times will fail the sixth
MAX_EMAIL_BYTES = 20_000_000  # of the three files together: encoded for the email they stay under SendGrid's 30 MB


class Status(StrEnum):
    """The state of an email delivery. The README says what each means to a merchant."""

    PENDING = "PENDING"  # no files yet
    FILES_READY = "FILES_READY"  # the files are stored; the email service has certainly not accepted the email
    SENDING = "SENDING"  # the email service may have accepted it at any moment since
    SENT = "SENT"  # the email service accepted it
    UNCERTAIN = "UNCERTAIN"  # it may have: only its events can tell, and the email is never sent again automatically
    FAILED = "FAILED"  # it certainly did not


UNSENT = (Status.PENDING, Status.FILES_READY)  # the email may still be sent
UNFINISHED = (*UNSENT, Status.SENDING)
