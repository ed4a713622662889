"""The three files of an email: one order, as it is at one moment, as CSV, XLSX and PDF."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from functions.buy_orders.states import MAX_EMAIL_BYTES
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
DEFAULT_NAME = "purchase-order"  # if the order's number has no character that is allowed in a file name
NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")  # only ASCII is safe: the email service does not encode the names of files


class BoundedFile(io.BytesIO):
    """A file in memory, of limited size."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Buffer) -> int:
        """Writes `data`. Raises PermanentError if that makes the file larger than its limit."""
        written = super().write(data)
        if self.tell() > self._max_bytes:
            limit = f"{MAX_EMAIL_BYTES // 1_000_000} MB"
            reason = (
                f"The files of this order are larger than {limit} together, the limit of an email. Split the order."
            )
            raise PermanentError(reason)
        return written


def render_files(
    conn: Connection,
    webshop_uuid: UUID,
    buy_order_uuid: UUID,
    number: str,
    *,
    identifiers: tuple[str, ...],
    progress: Callable[[int], None],
) -> tuple[File, ...]:
    """Returns the files of the order with this number, all read in the transaction of `conn`.

    `progress` is called about once a second; an exception from it stops the rendering. Raises PermanentError when the
    files cannot be emailed. After any exception the connection must be invalidated.
    """
    files: list[File] = []
    rows = []
    for file_type in FileType:
        name = file_name(number, ending(file_type))
        request = CreateExport(SOURCE, name, file_type, parents={"buy_order_uuid": buy_order_uuid})
        sink = BoundedFile(MAX_EMAIL_BYTES - sum(len(file.content) for file in files))
        rows.append(render(conn, webshop_uuid, request, identifiers, sink, progress))
        files.append(File(name, content_type(file_type).partition(";")[0], sink.getvalue()))
    check_files(files, rows)
    return tuple(files)


def check_files(files: list[File], rows: list[int]) -> None:
    """Raises PermanentError unless these are three files with the same number of lines, none of them empty."""
    if len(files) != len(FileType) or not all(file.content for file in files) or not all(rows):
        raise PermanentError("A file of this order would be empty, so there is nothing to send. Contact support.")
    if len(set(rows)) > 1:
        raise PermanentError(f"The files of this order differ in their number of lines: {rows}. Contact support.")


def file_name(number: str, file_ending: str) -> str:
    """Returns the name of an order's file, in plain characters."""
    return safe_file_name_of_type(NOT_PLAIN.sub("-", number), file_ending, DEFAULT_NAME)
