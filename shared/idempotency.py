"""Idempotency keys: a client that repeats a request sends the same key, and the request is executed once."""

from __future__ import annotations

from shared.problems import Problem, invalid_input

MAX_KEY_LENGTH = 255  # characters; a uuid has 36


def check_key(key: str | None) -> str | None:
    """Returns the Idempotency-Key header as it is. Raises Problem 422 when it is empty or too long."""
    if key is not None and not 1 <= len(key) <= MAX_KEY_LENGTH:
        detail = f"The key has {len(key)} characters. It must have 1 to {MAX_KEY_LENGTH}; a uuid is a good choice."
        raise invalid_input("Idempotency-Key", detail)
    return key


def key_reused(what: str) -> Problem:
    """422: the key belongs to a different request."""
    detail = f"This key was already used for a different {what}. Send a new key with a new request."
    return Problem(422, "idempotency-key-reused", detail, "Idempotency-Key")
