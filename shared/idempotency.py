"""A client's key for a request that it may have to send again: the same key is the same request."""

from __future__ import annotations

from shared.problems import Problem, refused

MAX_KEY_LENGTH = 255  # characters; a uuid has 36


def checked_key(key: str | None) -> str | None:
    """The Idempotency-Key header as it is kept. Raises Problem 422 for an empty or overlong one."""
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise refused("Idempotency-Key", f"The key must have 1 to {MAX_KEY_LENGTH} characters: a uuid is a good one.")
    return key


def key_reused(what: str) -> Problem:
    """The key belongs to another request."""
    sentence = f"This key was used for another {what} already. Send a new key with a new request."
    return Problem(422, "idempotency-key-reused", sentence, at="Idempotency-Key")
