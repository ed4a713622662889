"""The fonts of documents: Noto Sans for Latin, Greek and Cyrillic text, and Noto Sans CJK where a text needs it.

Widths and lengths of texts are in parts of the font's size.
"""

from __future__ import annotations

import logging
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

# For every file it would log that it leaves out an optional table.
logging.getLogger("fontTools.subset").setLevel(logging.ERROR)

# Categories of characters that do not change the meaning of a text: one that the fonts lack is left out. Any other
# character that they lack makes the text unprintable.
OPTIONAL_CATEGORIES = ("Cc", "Cf", "Mn", "Sk", "So")


@contextmanager
def noto_sans_files() -> Iterator[tuple[Path, Path]]:
    """Writes the regular and the bold font to temporary files. The package has them as bytes, fpdf2 reads files."""
    with tempfile.TemporaryDirectory() as folder:
        regular, bold = Path(folder) / "regular.ttf", Path(folder) / "bold.ttf"
        regular.write_bytes(load_noto_sans(bold=False))
        bold.write_bytes(load_noto_sans(bold=True))
        yield regular, bold


def load_noto_sans(*, bold: bool) -> bytes:
    """Loads a font file from its package."""
    from pymupdf_fonts import myfont

    return bytes(myfont("notosbo" if bold else "notos"))


def find_noto_sans_cjk_file() -> Path:
    """Returns the path of the font file. It has 16 MB: load it only when a text needs it."""
    import cvttf_NotoSansCJK_Regular as package  # type: ignore[import-untyped]  # ships no types

    return next(Path(package.__file__).parent.glob("*.otf"))


@cache
def noto_sans_widths(bold: bool) -> Mapping[str, float]:
    """Returns the width of each character that the font has."""
    return read_widths(BytesIO(load_noto_sans(bold=bold)))


@cache
def noto_sans_cjk_widths() -> Mapping[str, float]:
    """Returns the width of each character that the font has."""
    return read_widths(find_noto_sans_cjk_file())


def read_widths(file: BytesIO | Path) -> Mapping[str, float]:
    """Reads the width of each character from a font file."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # ships no types

    with TTFont(file, lazy=True) as font:
        advances: Any = font["hmtx"]
        units = font["head"].unitsPerEm
        return {chr(code): advances[glyph][0] / units for code, glyph in font.getBestCmap().items()}


def make_printable(text: str) -> str | None:
    """Returns `text` as our fonts can print it, or None when they lack one of its characters."""
    text = unicodedata.normalize("NFC", text)
    widths = noto_sans_widths(bold=False)
    if all(map(widths.__contains__, text)):
        return text
    characters = []
    for character in text:
        if character in widths or character in noto_sans_cjk_widths():
            characters.append(character)
        elif character.isspace():
            characters.append(" ")
        elif unicodedata.category(character) not in OPTIONAL_CATEGORIES:
            return None
    return " ".join("".join(characters).split()) or None


def measure(text: str, bold: bool = False) -> float:
    """Returns the width of a printable text."""
    widths = noto_sans_widths(bold)
    try:
        return sum(map(widths.__getitem__, text))
    except KeyError:
        return sum(widths.get(character) or noto_sans_cjk_widths().get(character, 1) for character in text)


def wrap(text: str, max_width: float, bold: bool = False) -> list[str]:
    """Breaks a printable text into lines of at most `max_width`: between words, or within a word that is longer."""
    if measure(text, bold) <= max_width:
        return [text]
    lines = [""]
    for word in text.split(" "):
        extended = f"{lines[-1]} {word}" if lines[-1] else word
        if measure(extended, bold) <= max_width:
            lines[-1] = extended
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and measure(lines[-1] + character, bold) > max_width:
                lines.append("")
            lines[-1] += character
    return lines
