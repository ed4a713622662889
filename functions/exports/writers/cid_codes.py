"""CJK texts in a PDF that every program can copy and search.

fpdf2 numbers the letters of such a font as they come, and maps the numbers to the font's own by a table that few
readers of texts know. Here the letters have the font's own numbers, and the table is the one that all of them know.
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
    """A CID-keyed font. The file is to be made by Producer."""

    __slots__ = ()

    def __init__(self, pdf: FPDF, file: Path, name: str) -> None:
        super().__init__(pdf, file, name, "")
        self.subset = CidCodes(self)

    def escape_text(self, text: str) -> str:
        """Two bytes a number, whatever else the number may mean: some are halves of a character elsewhere."""
        return escape_parens(text.encode("utf-16-be", "surrogatepass").decode("latin-1"))


class CidCodes(SubsetMap):
    """The numbers that letters are written by: those that the font has for them."""

    def pick_glyph(self, glyph: Glyph | None) -> int | None:
        """The number of a letter; its name says it, cid00042."""
        if glyph is None:
            return None
        number = glyph.glyph_name.removeprefix("cid")
        return self._char_id_per_glyph.setdefault(glyph, int(number) if number.isdigit() else glyph.glyph_id)


class Producer(OutputProducer):
    """Writes the file, with the table that maps each number to itself."""

    def _add_fonts(self, *arguments: Any) -> Any:
        added = super()._add_fonts(*arguments)
        for font in added.values():
            if isinstance(font, PDFFont) and font.subtype == "Type0":
                font.encoding = Name("Identity-H")
        return added
