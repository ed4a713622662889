"""The states of an export, and the limits that several steps keep to."""

from __future__ import annotations

from enum import StrEnum

MAX_ATTEMPTS = 5  # claims before an export is given up: what failed five times will fail the sixth


class Status(StrEnum):
    """The state of an export. The README says what each means to a merchant."""

    PENDING = "PENDING"  # not claimed yet
    RENDERING = "RENDERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  # was completed; its file is not kept any more


UNFINISHED = (Status.PENDING, Status.RENDERING)
