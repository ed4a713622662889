"""Lists in pages, newest first, by keyset: a new item never shifts the pages behind it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shared.problems import refused

MAX_PAGE = 200  # items: a page is answered in milliseconds


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The last item of a page: what a cursor holds."""

    created_at: datetime
    uuid: UUID

    def cursor(self) -> str:
        """As text for a URL."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def of(cls, cursor: str) -> Position:
        """Raises Problem 422 when `cursor` is not one of ours."""
        try:
            last = msgspec.json.decode(base64.urlsafe_b64decode(f"{cursor}=="), type=cls)
            return cls(last.created_at.astimezone(UTC), last.uuid)
        except (ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise refused("cursor", "This is no cursor of this list. Leave it out to begin at the newest.") from error
