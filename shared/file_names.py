"""File names that people type, made safe for an object's path, and said exactly when the file is downloaded."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

MAX_NAME_BYTES = 200  # an object's whole path may have 1024 bytes, of which the folders take 100
MAX_ENDING_LENGTH = 10  # a longer one is no file type: "offer of St. Petersburg"

# Separators, what URLs, wildcards and shells read otherwise, control characters, marks that turn text around, and code
# points that are no characters.
UNSAFE = re.compile(
    r"[/\\?#*\[\]\"'<>|:;`$%&\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]+"
)
# Windows takes these for devices, whatever the ending.
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file#naming-conventions
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)

# https://www.rfc-editor.org/rfc/rfc8187#section-3.2.1 : what stands for itself in an extended value.
ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
# What every program reads alike in a quoted string; some take a percent sign there for an escape.
NOT_PLAIN = re.compile(r"[^ !#$&'()+,\-.0-9;=@A-Z\[\]^_`a-z{}~]")


def safe_file_name(name: str, default: str) -> str:
    """`name` as one part of a path that any system takes: readable, at most MAX_NAME_BYTES of UTF-8, never empty.

    Letters of every script stay; separators, quotes and control characters become one hyphen. The ending stays.
    `default`, which must be safe itself, stands for a name of which nothing is left.
    """
    safe = UNSAFE.sub("-", unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode()))
    safe = re.sub(r"\s+", " ", re.sub(r"\.{2,}", ".", safe)).strip(" .-")
    if DEVICE.match(safe):
        safe = f"_{safe}"
    stem, dot, ending = safe.rpartition(".")
    if not dot or len(ending) > MAX_ENDING_LENGTH:
        stem, ending = safe, ""
    suffix = f".{ending}" if ending else ""
    room = MAX_NAME_BYTES - len(suffix.encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip(" .-")
    return f"{stem}{suffix}" if stem else default


def safe_file_name_of_type(name: str, ending: str, default: str) -> str:
    """`name` made safe, with `ending` (such as ".csv") once: added unless it is there, in capitals or not."""
    stem = name[: -len(ending)] if name.lower().endswith(ending) else name
    return f"{safe_file_name(stem, default)}{ending}"


def content_disposition(name: str) -> str:
    """The Content-Disposition header of a download called `name`, which `safe_file_name` made.

    https://www.rfc-editor.org/rfc/rfc6266 : a name of plain characters is quoted; any other is given exactly, as
    RFC 8187 has it, behind a plain one for programs that do not know that.
    """
    plain = NOT_PLAIN.sub("_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe=ATTRIBUTE_CHARACTERS)}"
    return f'attachment; filename="{plain}"{exact}'
