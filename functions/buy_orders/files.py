"""The three files of a mail: one order, as it is at one moment, as CSV, XLSX and PDF."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from functions.buy_orders.states import MAX_MAIL_BYTES
from functions.exports.rendering import content_type, ending, render
from functions.exports.requests import CreateExport
from functions.exports.source import FileType
from shared.clients.mailer import File
from shared.errors import PermanentError
from shared.file_names import safe_file_name_of_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy import Connection
    from typing_extensions import Buffer

SOURCE = "buy_orders"
DEFAULT_NAME = "purchase-order"  # of an order whose number has nothing that could stand in a file's name
NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")  # the mail service does not encode the names of attachments


class Bounded(io.BytesIO):
    """A file in memory that may not outgrow a mail."""

    def __init__(self, room_bytes: int) -> None:
        super().__init__()
        self._room_bytes = room_bytes

    def write(self, data: Buffer) -> int:
        """Raises PermanentError where the mail has no room for it."""
        written = super().write(data)
        if self.tell() > self._room_bytes:
            limit = f"{MAX_MAIL_BYTES // 1_000_000} MB"
            raise PermanentError(
                f"The files of this order come to more than {limit}, which no mail may have. Split it."
            )
        return written


def make(
    product: Connection,
    webshop_uuid: UUID,
    buy_order_uuid: UUID,
    number: str,
    *,
    identifiers: tuple[str, ...],
    progress: Callable[[int], None],
) -> tuple[File, ...]:
    """The files of the order called `number`, all read in the transaction that `product` is in.

    `progress` is called about once a second; what it raises ends the work. Raises PermanentError when the files cannot
    be mailed. After any exception the connection is to be thrown away.
    """
    made: list[File] = []
    rows = []
    for file_type in FileType:
        name = file_name(number, ending(file_type))
        request = CreateExport(SOURCE, name, file_type, parents={"buy_order_uuid": buy_order_uuid})
        sink = Bounded(MAX_MAIL_BYTES - sum(len(file.content) for file in made))
        rows.append(render(product, webshop_uuid, request, identifiers, sink, progress))
        made.append(File(name, content_type(file_type).partition(";")[0], sink.getvalue()))
    check(tuple(made), rows)
    return tuple(made)


def check(made: tuple[File, ...], rows: list[int]) -> None:
    """Raises PermanentError unless these are three files that say the same, and each says something."""
    if len(made) != len(FileType) or not all(file.content for file in made) or not all(rows):
        raise PermanentError("There is nothing to send: a file of this order would be empty.")
    if len(set(rows)) > 1:
        raise PermanentError(f"The files of this order do not agree on its lines: {rows}. Tell us its number.")


def file_name(number: str, file_ending: str) -> str:
    """What the file of an order is called, in plain characters."""
    return safe_file_name_of_type(NOT_PLAIN.sub("-", number), file_ending, DEFAULT_NAME)
