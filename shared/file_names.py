"""Makes file names that users type safe for an object's path, and formats them exactly for downloads."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import quote

MAX_NAME_BYTES = 200  # an object's whole path may have 1024 bytes, and the folders take 100 of them
MAX_ENDING_LENGTH = 10  # a longer ending is not a file type, as in "offer of St. Petersburg"

# Path separators, characters with a meaning in URLs, wildcards and shells, control characters, marks that reverse the
# direction of text, and code points that are not characters.
UNSAFE = re.compile(
    r"[/\\?#*\[\]\"'<>|:;`$%&\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]+"
)
# Windows treats these names as devices, with any ending.
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file#naming-conventions
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)

# Characters that need no escaping in an extended value: https://www.rfc-editor.org/rfc/rfc8187#section-3.2.1
ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
# All characters but those that every program reads alike in a quoted string. Some read a percent sign as an escape.
NOT_PLAIN = re.compile(r"[^ !#$&'()+,\-.0-9;=@A-Z\[\]^_`a-z{}~]")


def safe_file_name(name: str, default: str) -> str:
    """Returns `name` as one part of a path that every system accepts: readable, at most MAX_NAME_BYTES of UTF-8.

    Letters of every script and the ending are kept. Each group of separators, quotes and control characters becomes
    one hyphen. Returns `default`, which must be safe itself, when no character is left.
    """
    safe = UNSAFE.sub("-", unicodedata.normalize("NFC", name.encode("utf-8", "ignore").decode()))
    safe = re.sub(r"\s+", " ", re.sub(r"\.{2,}", ".", safe)).strip(" .-")
    if DEVICE.match(safe):
        safe = f"_{safe}"
    stem, dot, ending = safe.rpartition(".")
    if not dot or len(ending) > MAX_ENDING_LENGTH:
        stem, ending = safe, ""
    suffix = f".{ending}" if ending else ""
    max_stem_bytes = MAX_NAME_BYTES - len(suffix.encode())
    stem = stem.encode()[:max_stem_bytes].decode("utf-8", "ignore").strip(" .-")
    return f"{stem}{suffix}" if stem else default


def safe_file_name_of_type(name: str, ending: str, default: str) -> str:
    """Returns `name` made safe and with `ending` (such as ".csv") exactly once, whether it was typed or not.

    A typed ending is recognized in upper and lower case.
    """
    stem = name[: -len(ending)] if name.lower().endswith(ending) else name
    return f"{safe_file_name(stem, default)}{ending}"


def content_disposition(name: str) -> str:
    """Returns the Content-Disposition header of a download. `name` comes from `safe_file_name`.

    A name of plain characters is quoted. Any other name is given twice: with plain characters, for programs that do
    not know RFC 8187, and then exactly, encoded as in RFC 8187. See https://www.rfc-editor.org/rfc/rfc6266 .
    """
    plain = NOT_PLAIN.sub("_", name)
    exact = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe=ATTRIBUTE_CHARACTERS)}"
    return f'attachment; filename="{plain}"{exact}'
