"""Draws texts, rules and shades on the pages of a PDF.

Lengths are in millimetres, and positions are measured from the upper left corner. Only the sizes of text are in points.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from functions.exports.writers import fonts

if TYPE_CHECKING:
    from pathlib import Path

    from fpdf import FPDF

# Width and height: A4 portrait, then A4, A3 and A2 landscape.
PAGE_SIZES = ((210.0, 297.0), (297.0, 210.0), (420.0, 297.0), (594.0, 420.0))
MARGIN = 15.0
BLEED = 2.0  # how far a shade extends beyond the texts on it
BODY_SIZE, TITLE_SIZE, HEADLINE_SIZE, SMALL_SIZE = 8.5, 20.0, 11.0, 7.0  # of text, in points
LINE_HEIGHT = 1.37  # in parts of the text's size
MM_PER_POINT = 25.4 / 72
BASELINE_OFFSET = 0.36  # from the middle of a line down to its baseline, in parts of the text's size

Colour = tuple[int, int, int]
INK: Colour = (28, 28, 30)
FAINT: Colour = (110, 112, 118)
RULE: Colour = (208, 210, 215)
SHADE: Colour = (241, 243, 246)


class StyledText(NamedTuple):
    """A printable text and its style."""

    text: str
    size: float = BODY_SIZE
    bold: bool = False
    colour: Colour = INK

    @property
    def width(self) -> float:
        """The width of the text in one line."""
        return fonts.measure(self.text, self.bold) * self.size * MM_PER_POINT

    @property
    def height(self) -> float:
        """The height of one line."""
        return self.size * MM_PER_POINT * LINE_HEIGHT

    def wrap(self, max_width: float, max_lines: int) -> list[StyledText]:
        """Breaks the text into lines of at most `max_width`. Ends it with an ellipsis after `max_lines`."""
        lines = fonts.wrap(self.text, max_width / (self.size * MM_PER_POINT), self.bold)
        lines = lines if len(lines) <= max_lines else [*lines[: max_lines - 1], "…"]
        return [self._replace(text=line) for line in lines]


class Paper:
    """The pages of a file, and the means to draw on the last one."""

    def __init__(self, page_size: tuple[float, float], noto_sans: tuple[Path, Path]) -> None:
        """Begins a file of pages with this width and height. `noto_sans` are the font files, regular and bold."""
        from fpdf import FPDF

        self.width, self.height = page_size
        self._pdf: FPDF = FPDF(format=page_size)
        self._pdf.set_auto_page_break(auto=False)
        for style, file in zip(("", "B"), noto_sans, strict=True):
            self._pdf.add_font("latin", style, file)
        self._pdf.set_draw_color(*RULE)
        self._pdf.set_line_width(0.2)
        self._colour: Colour | None = None  # the current colour of texts and shades
        self._latin = fonts.noto_sans_widths(bold=False).keys()

    def add_page(self) -> None:
        """Adds a page, on which everything is drawn from now on."""
        self._pdf.add_page()
        self._colour = None

    def draw_text(self, text: StyledText, left: float, middle: float) -> None:
        """Draws a text that starts at `left`. `middle` is the vertical middle of its line."""
        baseline = middle + BASELINE_OFFSET * text.size * MM_PER_POINT
        self._set_colour(text.colour)
        if self._latin >= set(text.text):
            self._set_latin_font(text)
            self._pdf.text(left, baseline, text.text)
            return
        for is_latin, characters in groupby(text.text, key=self._latin.__contains__):
            run = text._replace(text="".join(characters))
            (self._set_latin_font if is_latin else self._set_cjk_font)(run)
            self._pdf.text(left, baseline, run.text)
            left += run.width

    def draw_text_to(self, text: StyledText, right: float, middle: float) -> None:
        """Draws a text that ends at `right`."""
        self.draw_text(text, right - text.width, middle)

    def draw_rule(self, middle: float) -> None:
        """Draws a line across the page."""
        self._pdf.line(MARGIN, middle, self.width - MARGIN, middle)

    def draw_shade(self, top: float, height: float) -> None:
        """Fills a band across the page."""
        self._set_colour(SHADE)
        self._pdf.rect(MARGIN - BLEED, top, self.width - 2 * (MARGIN - BLEED), height, style="F")

    def to_bytes(self) -> bytes:
        """Returns the finished file."""
        from functions.exports.writers.cid_codes import CidOutputProducer

        return bytes(self._pdf.output(output_producer_class=CidOutputProducer))

    def _set_colour(self, colour: Colour) -> None:
        """Sets the colour of texts and shades alike: fpdf2 writes twice as much for a text if the two differ."""
        if self._colour != colour:
            self._pdf.set_text_color(*colour)
            self._pdf.set_fill_color(*colour)
            self._colour = colour

    def _set_latin_font(self, text: StyledText) -> None:
        self._pdf.set_font("latin", "B" if text.bold else "", text.size)

    def _set_cjk_font(self, text: StyledText) -> None:
        if "cjk" not in self._pdf.fonts:  # it is large, so it is loaded only when a text needs it
            from functions.exports.writers.cid_codes import CidFont

            self._pdf.fonts["cjk"] = CidFont(self._pdf, fonts.find_noto_sans_cjk_file(), "cjk")
        self._pdf.set_font("cjk", "", text.size)
