"""The states of an export, and the limit of its attempts."""

from __future__ import annotations

from enum import StrEnum

MAX_ATTEMPTS = 5  # claims before an export is given up: what failed five times is not likely to succeed


class Status(StrEnum):
    """The state of an export. The README says what each means to a merchant."""

    PENDING = "PENDING"  # not claimed yet
    RENDERING = "RENDERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  # it was completed; its file was deleted at the end of the retention


UNFINISHED = (Status.PENDING, Status.RENDERING)
