"""The states of an import, its steps, and the limits that several steps keep to."""

from __future__ import annotations

from enum import StrEnum

MIRROR_AGAIN_SECONDS = 60  # a mirror message that is only late has arrived by then
MAX_CLAIMS = 10  # claims in a row without progress before an import is given up
MAX_FILE_BYTES = 5_242_880  # 5 MB: read into memory as a whole, validated in seconds
MAX_BATCH_ROWS = 500  # one statement of about 10 ms
MAX_BATCH_BYTES = 900_000  # of rows in one message; Kafka's default limit is 1,048,576 with headers


class Status(StrEnum):
    """The state of an import. The README says what each means to a merchant."""

    IN_QUEUE = "IN_QUEUE"
    IMPORTING = "IMPORTING"
    COMPLETED = "COMPLETED"
    COMPLETED_WITH_ERRORS = "COMPLETED_WITH_ERRORS"
    INVALID_OPERATION_TYPE = "INVALID_OPERATION_TYPE"
    FAILED_HEADERS = "FAILED_HEADERS"
    FAILED_WITH_VALIDATION_ERRORS = "FAILED_WITH_VALIDATION_ERRORS"
    FAILED_UNEXPECTEDLY = "FAILED_UNEXPECTEDLY"


ACTIVE = (Status.IN_QUEUE, Status.IMPORTING)


class Step(StrEnum):
    """How far a run has come."""

    VALIDATE = "VALIDATE"  # nothing of it is committed yet
    PUBLISH = "PUBLISH"  # validated for good; batches are being sent
    APPLY = "APPLY"  # every batch is sent; results arrive


class OnError(StrEnum):
    """What a refused row means for the other rows."""

    PARTIAL = "partial"  # the good rows are applied
    ABORT = "abort"  # one refused row, and no row is applied


class Operation(StrEnum):
    """What a merchant may ask for. Imports of any operation but UPDATE end as INVALID_OPERATION_TYPE."""

    UPDATE = "UPDATE"
    INSERT = "INSERT"
    UPSERT = "UPSERT"
    DELETE = "DELETE"


def explain_file_too_large(size_bytes: int) -> str:
    """The sentence for a merchant whose file is over MAX_FILE_BYTES."""
    return f"The file has {size_bytes:,} bytes. Allowed are {MAX_FILE_BYTES:,} (5 MB): split it into smaller files."
