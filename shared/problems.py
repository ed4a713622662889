"""What an API answers when it cannot fulfil a request: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Problem(Exception):
    """An error as the response to a request. `type` is stable, for programs; `detail` is a sentence for people."""

    status: int
    type: str
    detail: str
    field_name: str = ""  # the part of the request that is wrong, if it is one part
    headers: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)  # more members, such as the uuid of the active import

    def to_document(self) -> dict[str, object]:
        """Returns the members of the JSON body."""
        document: dict[str, object] = {
            "type": f"/problems/{self.type}",
            "title": self.type.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.field_name:
            document["field"] = self.field_name
        return {**document, **self.extensions}


def not_found(what: str) -> Problem:
    """404, also for what belongs to another webshop: the response must not reveal that it exists."""
    return Problem(404, "not-found", f"The {what} was not found. Check its uuid.")


def invalid_input(field_name: str, detail: str) -> Problem:
    """422: the input is well-formed but not allowed."""
    return Problem(422, "refused-input", detail, field_name)
