"""Lists in pages, newest first, by keyset: a new item does not shift the items of later pages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, FromClause, RowMapping, Select, tuple_

from shared.problems import invalid_input

MAX_PAGE_ITEMS = 200  # the database reads a page of this size in milliseconds


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query parameters of a list. A list with filters adds its own."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE_ITEMS)] = 50  # items
    cursor: str = ""  # `next_cursor` of the previous page; "" for the first page


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The content of a cursor: the last item of a page."""

    created_at: datetime
    uuid: UUID


def fetch_page(
    conn: Connection, statement: Select[Any], order: FromClause, query: PageQuery
) -> tuple[Sequence[RowMapping], str | None]:
    """Returns one page of the rows of `statement`, newest first, and the cursor of the next page (None: no more).

    `order` is the table whose columns `created_at` and `uuid` order the list; `statement` selects both. Raises Problem
    422 if the cursor is invalid.
    """
    created_at, uuid = order.c.created_at, order.c.uuid
    if query.cursor:
        last = decode_cursor(query.cursor)
        statement = statement.where(tuple_(created_at, uuid) < (last.created_at, last.uuid))
    statement = statement.order_by(created_at.desc(), uuid.desc()).limit(query.limit + 1)
    rows = conn.execute(statement).mappings().all()
    page = rows[: query.limit]
    has_more = len(rows) > query.limit
    return page, encode_cursor(Position(page[-1]["created_at"], page[-1]["uuid"])) if has_more else None


def encode_cursor(position: Position) -> str:
    """Returns a position as text for a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Returns the position in `cursor`. Raises Problem 422 if `encode_cursor` did not make it."""
    try:
        position = msgspec.json.decode(base64.urlsafe_b64decode(f"{cursor}=="), type=Position)
        return Position(position.created_at.astimezone(UTC), position.uuid)
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise invalid_input("cursor", "Invalid cursor. Leave it out to start with the newest item.") from error
