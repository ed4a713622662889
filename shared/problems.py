"""What an API answers when it cannot do what was asked: problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Problem(Exception):
    """An answer that is not the one hoped for. `type` is stable, for programs; `detail` is a sentence for people."""

    status: int
    type: str
    detail: str
    at: str = ""  # the part of the request at fault, where there is one
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)  # further members, such as the uuid in the way

    def document(self) -> dict[str, object]:
        """The body."""
        fault = {"field": self.at} if self.at else {}
        title = self.type.replace("-", " ").capitalize()
        about = {"type": f"/problems/{self.type}", "title": title, "status": self.status, "detail": self.detail}
        return {**about, **fault, **self.more}


def not_found(what: str) -> Problem:
    """Also for what belongs to somebody else: an answer must not tell that it exists."""
    return Problem(404, "not-found", f"There is no such {what}.")


def refused(field: str, detail: str) -> Problem:
    """Input that was understood and is not allowed."""
    return Problem(422, "refused-input", detail, field)
