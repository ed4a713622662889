"""Pages of a PDF: texts, rules and shades where they are put. Places are in millimetres from the upper left corner."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from functions.exports.writers import fonts

if TYPE_CHECKING:
    from pathlib import Path

    from fpdf import FPDF

PAPERS = ((210.0, 297.0), (297.0, 210.0), (420.0, 297.0), (594.0, 420.0))  # A4 upright; A4, A3 and A2 on their side
MARGIN = 15.0
BLEED = 2.0  # of a shade, beyond the texts on it
BODY, TITLE, HEADLINE, SMALL = 8.5, 20.0, 11.0, 7.0  # sizes of letters, in points
LEADING = 1.37  # from one line to the next, in parts of the letters' size
MM_A_POINT = 25.4 / 72
ASCENT = 0.36  # from the middle of a line down to where letters stand, in parts of their size

Colour = tuple[int, int, int]
INK: Colour = (28, 28, 30)
FAINT: Colour = (110, 112, 118)
RULE: Colour = (208, 210, 215)
SHADE: Colour = (241, 243, 246)


class Words(NamedTuple):
    """A printable text, and how it looks."""

    text: str
    size: float = BODY
    bold: bool = False
    colour: Colour = INK

    @property
    def width(self) -> float:
        """Millimetres that it takes in one line."""
        return fonts.width(self.text, self.bold) * self.size * MM_A_POINT

    @property
    def height(self) -> float:
        """Millimetres that a line of it takes."""
        return self.size * MM_A_POINT * LEADING

    def broken(self, room: float, most: int) -> list[Words]:
        """The lines of it that fit into `room`, at most so many: what is longer ends in an ellipsis."""
        lines = fonts.lines(self.text, room / (self.size * MM_A_POINT), self.bold)
        lines = lines if len(lines) <= most else [*lines[: most - 1], "…"]
        return [self._replace(text=line) for line in lines]


class Paper:
    """The pages as they are drawn on."""

    def __init__(self, page: tuple[float, float], noto_sans: tuple[Path, Path]) -> None:
        """Begins a file of pages of that width and height; `noto_sans` are the font's files, regular and bold."""
        from fpdf import FPDF

        self.width, self.height = page
        self._pdf: FPDF = FPDF(format=page)
        self._pdf.set_auto_page_break(auto=False)
        for style, file in zip(("", "B"), noto_sans, strict=True):
            self._pdf.add_font("latin", style, file)
        self._pdf.set_draw_color(*RULE)
        self._pdf.set_line_width(0.2)
        self._colour: Colour | None = None  # that texts and shades have now
        self._latin = fonts.widths_of_noto_sans(bold=False).keys()

    def add_page(self) -> None:
        """Goes on to a new page."""
        self._pdf.add_page()
        self._colour = None

    def put(self, words: Words, left: float, middle: float) -> None:
        """Prints a text that begins at `left`; `middle` is the middle of its line."""
        baseline = middle + ASCENT * words.size * MM_A_POINT
        self._use(words.colour)
        if self._latin >= set(words.text):
            self._set_latin(words)
            self._pdf.text(left, baseline, words.text)
            return
        for is_latin, characters in groupby(words.text, key=self._latin.__contains__):
            run = words._replace(text="".join(characters))
            (self._set_latin if is_latin else self._set_cjk)(run)
            self._pdf.text(left, baseline, run.text)
            left += run.width

    def put_to(self, words: Words, right: float, middle: float) -> None:
        """Prints a text that ends at `right`."""
        self.put(words, right - words.width, middle)

    def rule(self, middle: float) -> None:
        """Draws a line across the page."""
        self._pdf.line(MARGIN, middle, self.width - MARGIN, middle)

    def shade(self, top: float, height: float) -> None:
        """Fills a band across the page."""
        self._use(SHADE)
        self._pdf.rect(MARGIN - BLEED, top, self.width - 2 * (MARGIN - BLEED), height, style="F")

    def finished(self) -> bytes:
        """The file."""
        from functions.exports.writers.cid_codes import Producer

        return bytes(self._pdf.output(output_producer_class=Producer))

    def _use(self, colour: Colour) -> None:
        """Sets it for texts and shades alike: a text in another colour than shades have takes twice the room."""
        if self._colour != colour:
            self._pdf.set_text_color(*colour)
            self._pdf.set_fill_color(*colour)
            self._colour = colour

    def _set_latin(self, words: Words) -> None:
        self._pdf.set_font("latin", "B" if words.bold else "", words.size)

    def _set_cjk(self, words: Words) -> None:
        if "cjk" not in self._pdf.fonts:  # loaded at its first letter: it is large
            from functions.exports.writers.cid_codes import CidFont

            self._pdf.fonts["cjk"] = CidFont(self._pdf, fonts.noto_sans_cjk_file(), "cjk")
        self._pdf.set_font("cjk", "", words.size)
