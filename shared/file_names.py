"""File names that people type, made safe for an object's path."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_BYTES = 200  # an object's whole path may have 1024 bytes, of which the folders take 100

# Separators, what URLs, wildcards and shells read otherwise, control characters, and marks that turn text around.
UNSAFE = re.compile(r"[/\\?#*\[\]\"'<>|:;`$%&\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def safe_file_name(name: str, default: str) -> str:
    """`name` as one part of a path that any system takes: readable, at most MAX_NAME_BYTES of UTF-8, never empty.

    Letters of every script stay; separators, quotes and control characters become one hyphen. The ending stays.
    """
    safe = UNSAFE.sub("-", unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode()))
    safe = re.sub(r"\s+", " ", re.sub(r"\.{2,}", ".", safe)).strip(" .-")
    stem, dot, ending = safe.rpartition(".")
    if not dot or len(ending) > 10:
        stem, ending = safe, ""
    room = MAX_NAME_BYTES - len((dot + ending).encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip(" .-")
    return f"{stem}.{ending}" if stem and ending else stem or default
