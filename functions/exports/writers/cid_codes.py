"""Writes CJK texts into a PDF so that every program can copy and search them.

fpdf2 numbers the characters of a font in the order of their use, and maps these numbers to the font's own numbers by a
table that few programs can read. This module uses the font's own numbers, with the table that all programs can read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fpdf import FPDF
from fpdf.fonts import Glyph, SubsetMap, TTFFont
from fpdf.output import OutputProducer, PDFFont
from fpdf.syntax import Name
from fpdf.util import escape_parens


class CidFont(TTFFont):
    """A CID-keyed font. The file must be written by CidOutputProducer."""

    __slots__ = ()

    def __init__(self, pdf: FPDF, file: Path, name: str) -> None:
        super().__init__(pdf, file, name, "")
        self.subset = CidSubset(self)

    def escape_text(self, text: str) -> str:
        """Encodes `text` as two bytes per number, also numbers that are surrogates in Unicode."""
        return escape_parens(text.encode("utf-16-be", "surrogatepass").decode("latin-1"))


class CidSubset(SubsetMap):
    """The numbers by which characters are written: the font's own ones."""

    def pick_glyph(self, glyph: Glyph | None) -> int | None:
        """Returns the number of a character. The font names its glyphs by it: cid00042."""
        if glyph is None:
            return None
        number = glyph.glyph_name.removeprefix("cid")
        return self._char_id_per_glyph.setdefault(glyph, int(number) if number.isdigit() else glyph.glyph_id)


class CidOutputProducer(OutputProducer):
    """Writes the file with the table that maps each number to itself."""

    def _add_fonts(self, *arguments: Any) -> Any:
        fonts = super()._add_fonts(*arguments)
        for font in fonts.values():
            if isinstance(font, PDFFont) and font.subtype == "Type0":
                font.encoding = Name("Identity-H")
        return fonts
