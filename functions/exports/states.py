"""The states of an export, and the limits that more than one step keeps to."""

from __future__ import annotations

from enum import StrEnum

LEASE_SECONDS = 30  # many times the pause between two renewals, short enough to wait for when a holder died
MAX_ATTEMPTS = 5  # claims before an export is given up: what failed five times will fail the sixth


class Status(StrEnum):
    """Where an export stands; the README says what each means to a merchant."""

    PENDING = "PENDING"  # nobody has begun
    RENDERING = "RENDERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  # was completed; its file is kept no longer


UNFINISHED = (Status.PENDING, Status.RENDERING)
