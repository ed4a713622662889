"""The fonts of documents: Noto Sans for Latin, Greek and Cyrillic, and Noto Sans CJK where a text needs it."""

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

# It says of every file that it leaves out a table which nobody needs.
logging.getLogger("fontTools.subset").setLevel(logging.ERROR)

# Characters that carry no name: without a glyph they are left out. What else has none makes a text unprintable.
LEFT_OUT = ("Cc", "Cf", "Mn", "Sk", "So")


@contextmanager
def noto_sans_files() -> Iterator[tuple[Path, Path]]:
    """Regular and bold as files, which is how they are loaded; the package holds them as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        regular, bold = Path(folder) / "regular.ttf", Path(folder) / "bold.ttf"
        regular.write_bytes(noto_sans("notos"))
        bold.write_bytes(noto_sans("notosbo"))
        yield regular, bold


def noto_sans(name: str) -> bytes:
    """One of the package's fonts."""
    from pymupdf_fonts import myfont

    return bytes(myfont(name))


def noto_sans_cjk_file() -> Path:
    """16 MB: to be loaded only where a text needs it."""
    import cvttf_NotoSansCJK_Regular as package  # type: ignore[import-untyped]  # ships no types

    return next(Path(package.__file__).parent.glob("*.otf"))


@cache
def widths_of_noto_sans(bold: bool) -> Mapping[str, float]:
    """The width of each character it has, in parts of the font's size."""
    return widths(BytesIO(noto_sans("notosbo" if bold else "notos")))


@cache
def widths_of_noto_sans_cjk() -> Mapping[str, float]:
    """The width of each character it has, in parts of the font's size."""
    return widths(noto_sans_cjk_file())


def widths(file: BytesIO | Path) -> Mapping[str, float]:
    """Reads them out of a font file."""
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]  # ships no types

    with TTFont(file, lazy=True) as font:
        advances: Any = font["hmtx"]
        units = font["head"].unitsPerEm
        return {chr(code): advances[glyph][0] / units for code, glyph in font.getBestCmap().items()}


def printable(text: str) -> str | None:
    """`text` as our fonts can print it, or None when they lack a letter of it."""
    text = unicodedata.normalize("NFC", text)
    known = widths_of_noto_sans(bold=False)
    if all(map(known.__contains__, text)):
        return text
    kept = []
    for character in text:
        if character in known or character in widths_of_noto_sans_cjk():
            kept.append(character)
        elif character.isspace():
            kept.append(" ")
        elif unicodedata.category(character) not in LEFT_OUT:
            return None
    return " ".join("".join(kept).split()) or None


def width(text: str, bold: bool = False) -> float:
    """How wide a printable text is, in parts of the font's size."""
    known = widths_of_noto_sans(bold)
    try:
        return sum(map(known.__getitem__, text))
    except KeyError:
        return sum(known.get(character) or widths_of_noto_sans_cjk().get(character, 1) for character in text)


def lines(text: str, room: float, bold: bool = False) -> list[str]:
    """Breaks a printable text into lines of at most `room` (in parts of the font's size), between words if it can."""
    if width(text, bold) <= room:
        return [text]
    broken = [""]
    for word in text.split(" "):
        longer = f"{broken[-1]} {word}" if broken[-1] else word
        if width(longer, bold) <= room:
            broken[-1] = longer
            continue
        if broken[-1]:
            broken.append("")
        for character in word:
            if broken[-1] and width(broken[-1] + character, bold) > room:
                broken.append("")
            broken[-1] += character
    return broken
