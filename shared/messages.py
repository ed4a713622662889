"""The messages that functions send to each other: one struct per message, one Kafka topic per struct, JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Self
from uuid import UUID

import msgspec

DEAD_LETTERS = "dead-letters"  # the Pub/Sub topic of the messages that no retry can help

StorableText = Annotated[str, msgspec.Meta(pattern="^[^\\x00]*$")]  # PostgreSQL stores every character but NUL


@dataclass(frozen=True)
class PubSubMessage:
    """One Pub/Sub message: a topic's short name, the data and the attributes."""

    topic: str
    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


class Message(msgspec.Struct, frozen=True):
    """What all messages have in common: a topic, and a webshop, whose uuid is the Kafka key."""

    topic: ClassVar[str]

    webshop_uuid: UUID

    def encode(self) -> bytes:
        """Returns the message as the value of a Kafka record."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Decodes the value of a Kafka record.

        Raises msgspec.DecodeError: its subclass ValidationError when a field is missing or has the wrong type.
        """
        return msgspec.json.decode(value, type=cls)


class CellError(msgspec.Struct, frozen=True):
    """What is wrong with one cell, or with a row as a whole."""

    column: str  # key of the column; "" for the row as a whole
    value: str  # the content of the cell, cut to VALUE_LENGTH characters
    code: str  # stable, for programs
    message: str  # a sentence for a person: what was found and what is allowed

    VALUE_LENGTH: ClassVar[int] = 200  # enough to recognise a cell; a 5 MB cell must not fill the ledger


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that was not applied, and why."""

    row_number: int  # as a spreadsheet shows it; the heading is row 1
    errors: tuple[CellError, ...]


class ImportTrigger(Message, frozen=True):
    """An import is ready to be claimed."""

    topic = "webshop.product.import.trigger"

    import_uuid: UUID
    run: int  # rises only when the merchant retries the import


class ImportBatch(Message, frozen=True):
    """Up to 500 validated rows of one import, ready to apply."""

    topic = "webshop.products.import"

    import_uuid: UUID
    run: int  # a batch of a lower run is not applied
    row_numbers: tuple[int, ...]  # as a spreadsheet shows them; the first is the batch's key
    columns: tuple[str, ...]  # keys of shared/columns.py, including the identifier
    rows: tuple[tuple[str | None, ...], ...]  # one value per column; "" leaves the value as it is, None clears it

    @property
    def first_row(self) -> int:
        """The batch's key within its import and run."""
        return self.row_numbers[0]


class BatchApplied(Message, frozen=True):
    """The result of one batch. The updated, unchanged and refused rows together are all of its rows."""

    topic = "webshop.products.import.result"

    import_uuid: UUID
    run: int
    first_row: int
    updated: int  # rows
    unchanged: int  # rows
    refused: tuple[RefusedRow, ...]


class ProductsUpdated(Message, frozen=True):
    """These products changed.

    The message has no values: import_mirror reads the products as they are when it processes the message.
    """

    topic = "webshop.products.updated"

    import_uuid: UUID
    run: int
    first_row: int
    identifiers: tuple[str, ...]


class ExportRequest(Message, frozen=True):
    """An export is ready to be rendered."""

    topic = "webshop.export.request"

    export_uuid: UUID


class ExportHistory(Message, frozen=True):
    """An export after its latest change. It is the whole record, so the highest version replaces all others."""

    topic = "webshop.export.history"

    uuid: UUID
    name: str  # of the file
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status: str
    user_uuid: UUID
    source: str
    file_uri: str | None  # gs://bucket/path; None: there is no file yet, or it was deleted
    version: int


class BuyOrderEmail(Message, frozen=True):
    """A request to email a buy order to its supplier."""

    topic = "webshop.buy-order.email"

    send_uuid: UUID  # of the email delivery; chosen by the sender, so that a repeated message is the same delivery
    buy_order_uuid: UUID
    user_uuid: UUID | None = None  # the user who requested it; None: another service did
    recipient: StorableText | None = None  # an email address; None: the supplier's
    cc: tuple[StorableText, ...] = ()
    message: StorableText = ""  # from the merchant to the supplier, printed above the signature
    language: StorableText = "en"  # of the email; the name of a file in functions/buy_orders/templates


MESSAGES: tuple[type[Message], ...] = (
    ImportTrigger,
    ImportBatch,
    BatchApplied,
    ProductsUpdated,
    ExportRequest,
    ExportHistory,
    BuyOrderEmail,
)
TOPICS = tuple(message.topic for message in MESSAGES)
