"""The messages that functions send each other: one struct a message, one Kafka topic a struct, JSON on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Self
from uuid import UUID

import msgspec

DEAD_LETTERS = "dead-letters"  # the Pub/Sub topic of what was given up on

StorableText = Annotated[str, msgspec.Meta(pattern="^[^\\x00]*$")]  # PostgreSQL keeps every character but NUL


@dataclass(frozen=True)
class PubSubMessage:
    """One Pub/Sub message: a topic's short name, its bytes and its attributes."""

    topic: str
    data: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


class Message(msgspec.Struct, frozen=True):
    """What every message has: its topic, and the webshop, which is its key."""

    topic: ClassVar[str]

    webshop_uuid: UUID

    def encoded(self) -> bytes:
        """The message's value on the wire."""
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, value: bytes) -> Self:
        """Reads a value from the wire. Raises msgspec.DecodeError (ValidationError for a wrong or missing field)."""
        return msgspec.json.decode(value, type=cls)


class CellError(msgspec.Struct, frozen=True):
    """What is wrong with one cell, or with a row as a whole."""

    column: str  # key of the column; "" for the row as a whole
    value: str  # what stood in the cell, cut to VALUE_LENGTH characters
    code: str  # stable, for programs
    message: str  # a sentence for a person: what was found and what is allowed

    VALUE_LENGTH: ClassVar[int] = 200  # enough to recognise a cell by; a 5 MB cell must not fill the ledger


class RefusedRow(msgspec.Struct, frozen=True):
    """A row that was not applied, and why."""

    row_number: int  # as a spreadsheet shows it, the heading being row 1
    errors: tuple[CellError, ...]


class ImportTrigger(Message, frozen=True):
    """An import waits for somebody to work on it."""

    topic = "webshop.product.import.trigger"

    import_uuid: UUID
    run: int  # goes up by the merchant's retry only


class ImportBatch(Message, frozen=True):
    """Up to 500 validated rows of one import, ready to apply."""

    topic = "webshop.products.import"

    import_uuid: UUID
    run: int  # a batch of a lower run is not applied
    row_numbers: tuple[int, ...]  # as a spreadsheet shows them; the first is the batch's key
    columns: tuple[str, ...]  # keys of shared/columns.py, the identifier among them
    rows: tuple[tuple[str | None, ...], ...]  # one value a column; "" leaves the value as it is, None clears it

    @property
    def first_row(self) -> int:
        """The batch's key within its import and run."""
        return self.row_numbers[0]


class BatchApplied(Message, frozen=True):
    """What became of one batch: updated + unchanged + refused are all of its rows."""

    topic = "webshop.products.import.result"

    import_uuid: UUID
    run: int
    first_row: int
    updated: int
    unchanged: int
    refused: tuple[RefusedRow, ...]


class ProductsUpdated(Message, frozen=True):
    """These products changed. It says which, never to what: who mirrors them reads them as they are by then."""

    topic = "webshop.products.updated"

    import_uuid: UUID
    run: int
    first_row: int
    identifiers: tuple[str, ...]


class ExportRequest(Message, frozen=True):
    """An export waits to be rendered."""

    topic = "webshop.export.request"

    export_uuid: UUID


class ExportHistory(Message, frozen=True):
    """An export as it is since its last change: the whole record, so the highest version alone is the truth."""

    topic = "webshop.export.history"

    uuid: UUID
    name: str  # of the file
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    status: str
    user_uuid: UUID
    source: str
    file_uri: str | None  # gs://bucket/path; None: there is no file, not yet or not any more
    version: int


class BuyOrderEmail(Message, frozen=True):
    """A buy order is to be mailed to its supplier."""

    topic = "webshop.buy-order.email"

    send_uuid: UUID  # chosen by the sender: sent again, it is still the same one mail
    buy_order_uuid: UUID
    user_uuid: UUID | None = None  # who asked for it; None: another service
    recipient: StorableText | None = None  # None: the supplier's address
    cc: tuple[StorableText, ...] = ()
    message: StorableText = ""  # of the merchant to the supplier, set above the signature
    language: StorableText = "en"  # of the mail; a file of functions/buy_orders/templates


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
