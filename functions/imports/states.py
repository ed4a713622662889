"""The states of an import, its steps, and the limits that more than one step keeps to."""

from __future__ import annotations

from enum import StrEnum

LEASE_SECONDS = 30  # longer than any pause between two renewals, short enough to wait for when a holder died
MIRROR_AGAIN_SECONDS = 60  # a mirror message that is only late has come by then
MAX_CLAIMS = 10  # claims in a row without progress before an import is given up
MAX_FILE_BYTES = 5_242_880  # 5 MB: read whole, validated in seconds
MAX_BATCH_ROWS = 500  # one statement of about 10 ms
MAX_BATCH_BYTES = 900_000  # of rows in one message; Kafka's default limit is 1,048,576 with headers


class Status(StrEnum):
    """Where an import stands; the README says what each means to a merchant."""

    IN_QUEUE = "IN_QUEUE"
    IMPORTING = "IMPORTING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    INVALID_OPERATION_TYPE = "INVALID_OPERATION_TYPE"
    FAILED_HEADERS = "FAILED_HEADERS"
    FAILED_WITH_VALIDATION_ERRORS = "FAILED_WITH_VALIDATION_ERRORS"
    FAILED_UNEXPECTEDLY = "FAILED_UNEXPECTEDLY"


class Step(StrEnum):
    """How far a run has come."""

    VALIDATE = "VALIDATE"  # nothing is committed of it yet
    PUBLISH = "PUBLISH"  # validated for good; batches are being sent
    APPLY = "APPLY"  # every batch is sent; results come in


class OnError(StrEnum):
    """What a refused row does to the others."""

    PARTIAL = "partial"  # the good rows are applied
    ABORT = "abort"  # any refused row, and none is


class Operation(StrEnum):
    """What a merchant may ask for. Only UPDATE is done; the others end as INVALID_OPERATION_TYPE, not guessed."""

    UPDATE = "UPDATE"
    INSERT = "INSERT"
    UPSERT = "UPSERT"
    DELETE = "DELETE"


ACTIVE = (Status.IN_QUEUE, Status.IMPORTING)
