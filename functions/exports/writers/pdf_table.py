"""The table of a document's lines: how wide its columns are, and on which paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from functions.exports.source import CODE, DECIMAL, INTEGER, TEXT, Column
from functions.exports.writers import fonts
from functions.exports.writers.paper import BODY, MARGIN, MM_A_POINT, PAPERS, Paper, Words

if TYPE_CHECKING:
    from collections.abc import Sequence

GUTTER = 4.0  # between columns, in millimetres
PADDING = 1.2  # above and below the text of a row
WIDEST = {TEXT: 75.0, CODE: 45.0}  # of a column; what is longer goes on in the next line
NARROWEST_TEXT = 20.0
MAX_CELL_LINES = 30  # a row has to fit on a page
ROUNDING = 0.1  # added to a width, so that what was measured fits

TO_THE_RIGHT = (INTEGER, DECIMAL)


class Row(NamedTuple):
    """A row as it is printed: the lines of each cell."""

    cells: tuple[list[Words], ...]

    @property
    def height(self) -> float:
        """Millimetres that it takes."""
        return max(sum(line.height for line in cell) for cell in self.cells) + 2 * PADDING


@dataclass(frozen=True)
class Table:
    """The same on all pages of a file."""

    columns: tuple[Column, ...]
    page: tuple[float, float]  # width and height
    widths: tuple[float, ...]

    @classmethod
    def fitted(cls, columns: tuple[Column, ...], texts: Sequence[tuple[str, ...]]) -> Table:
        """Finds paper and widths for these texts.

        Texts give way to numbers and codes, which nobody wants to read in two lines; where they cannot any more, the
        paper is turned, then larger. Room to spare goes to texts.
        """
        wanted = [wanted_width(column, [row[at] for row in texts]) for at, column in enumerate(columns)]
        is_text = [column.type is TEXT for column in columns]
        least = [min(width, NARROWEST_TEXT) if gives else width for width, gives in zip(wanted, is_text, strict=True)]
        gutters = GUTTER * (len(columns) - 1)
        enough = sum(least) + gutters + 2 * MARGIN
        page = next((paper for paper in PAPERS if enough <= paper[0]), PAPERS[-1])
        room = page[0] - 2 * MARGIN - gutters
        if room < sum(least):
            widths = [width * room / sum(least) for width in least]
        elif room < sum(wanted):
            share = (room - sum(least)) / (sum(wanted) - sum(least))
            widths = [low + (high - low) * share for low, high in zip(least, wanted, strict=True)]
        else:
            takes = is_text if any(is_text) else [column.type is CODE for column in columns]
            takes = takes if any(takes) else [True] * len(columns)
            widths = [
                width + take * (room - sum(wanted)) / sum(takes) for width, take in zip(wanted, takes, strict=True)
            ]
        return cls(columns, page, tuple(widths))

    def row(self, texts: Sequence[str]) -> Row:
        """The texts of a row, broken to fit."""
        return self._row([Words(text) for text in texts])

    def heading(self) -> Row:
        """The headings, broken to fit."""
        return self._row([Words(column.heading, bold=True) for column in self.columns])

    def draw(self, row: Row, paper: Paper, top: float) -> None:
        """Draws a row that begins at `top`."""
        left = MARGIN
        for column, width, lines in zip(self.columns, self.widths, row.cells, strict=True):
            middle = top + PADDING + lines[0].height / 2
            for line in lines:
                if column.type in TO_THE_RIGHT:
                    paper.put_to(line, left + width, middle)
                else:
                    paper.put(line, left, middle)
                middle += line.height
            left += width + GUTTER

    def _row(self, cells: Sequence[Words]) -> Row:
        broken = (words.broken(width, MAX_CELL_LINES) for words, width in zip(cells, self.widths, strict=True))
        return Row(tuple(broken))


def wanted_width(column: Column, texts: Sequence[str]) -> float:
    """How wide a column would be if nothing in it were broken, in millimetres, within what is sensible."""
    of_texts = max(map(fonts.width, texts), default=0.0)
    of_heading = max(fonts.width(word, bold=True) for word in column.heading.split())
    wanted = max(of_texts, of_heading) * BODY * MM_A_POINT + ROUNDING
    return min(wanted, WIDEST.get(column.type, wanted))
