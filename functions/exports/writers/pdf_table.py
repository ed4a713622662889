"""Lays out the table of a document's lines: the widths of its columns and the size of the page. Lengths are in mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from functions.exports.source import CODE, DECIMAL, INTEGER, TEXT, Column
from functions.exports.writers import fonts
from functions.exports.writers.paper import BODY_SIZE, MARGIN, MM_PER_POINT, PAGE_SIZES, Paper, StyledText

if TYPE_CHECKING:
    from collections.abc import Sequence

GUTTER = 4.0  # between columns
PADDING = 1.2  # above and below the text of a row
MAX_WIDTHS = {TEXT: 75.0, CODE: 45.0}  # of columns; longer texts are wrapped
MIN_TEXT_WIDTH = 20.0
MAX_CELL_LINES = 30  # a row has to fit on a page
ROUNDING = 0.1  # added to a measured width, so that the text fits in spite of rounding

RIGHT_ALIGNED = (INTEGER, DECIMAL)


class Row(NamedTuple):
    """A row as it is printed: the lines of each cell."""

    cells: tuple[list[StyledText], ...]

    @property
    def height(self) -> float:
        """The height of the highest cell, with padding."""
        return max(sum(line.height for line in cell) for cell in self.cells) + 2 * PADDING


@dataclass(frozen=True)
class Table:
    """The layout of a table. It is the same on all pages of a file."""

    columns: tuple[Column, ...]
    page_size: tuple[float, float]  # width and height
    widths: tuple[float, ...]

    @classmethod
    def fit(cls, columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]]) -> Table:
        """Chooses the page size and the widths for the texts of these rows.

        Text columns are narrowed first: numbers and codes should not be wrapped. When text columns cannot be narrower,
        the page becomes landscape and then larger. Spare width is given to text columns.
        """
        is_text = [column.type is TEXT for column in columns]
        full = [full_width(column, [row[index] for row in rows]) for index, column in enumerate(columns)]
        least = [min(width, MIN_TEXT_WIDTH) if narrows else width for width, narrows in zip(full, is_text, strict=True)]
        full_sum, least_sum = sum(full), sum(least)
        gutters = GUTTER * (len(columns) - 1)
        least_page_width = least_sum + gutters + 2 * MARGIN
        page_size = next((size for size in PAGE_SIZES if least_page_width <= size[0]), PAGE_SIZES[-1])
        available = page_size[0] - 2 * MARGIN - gutters
        if available < least_sum:
            widths = [width * available / least_sum for width in least]
        elif available < full_sum:
            share = (available - least_sum) / (full_sum - least_sum)
            widths = [low + (high - low) * share for low, high in zip(least, full, strict=True)]
        else:
            grows = is_text if any(is_text) else [column.type is CODE for column in columns]
            grows = grows if any(grows) else [True] * len(columns)
            spare = available - full_sum
            widths = [width + grow * spare / sum(grows) for width, grow in zip(full, grows, strict=True)]
        return cls(columns, page_size, tuple(widths))

    def lay_out_row(self, texts: Sequence[str]) -> Row:
        """Wraps the texts of a row to the widths of the columns."""
        return self._wrap([StyledText(text) for text in texts])

    def lay_out_heading(self) -> Row:
        """Wraps the headings to the widths of the columns."""
        return self._wrap([StyledText(column.heading, bold=True) for column in self.columns])

    def draw(self, row: Row, paper: Paper, top: float) -> None:
        """Draws a row whose upper edge is at `top`."""
        left = MARGIN
        for column, width, lines in zip(self.columns, self.widths, row.cells, strict=True):
            middle = top + PADDING + lines[0].height / 2
            for line in lines:
                if column.type in RIGHT_ALIGNED:
                    paper.draw_text_to(line, left + width, middle)
                else:
                    paper.draw_text(line, left, middle)
                middle += line.height
            left += width + GUTTER

    def _wrap(self, cells: Sequence[StyledText]) -> Row:
        return Row(tuple(cell.wrap(width, MAX_CELL_LINES) for cell, width in zip(cells, self.widths, strict=True)))


def full_width(column: Column, texts: Sequence[str]) -> float:
    """Returns the width at which no text of the column is wrapped, or the column's maximum width."""
    longest_text = max(map(fonts.measure, texts), default=0.0)
    longest_word = max(fonts.measure(word, bold=True) for word in column.heading.split())
    width = max(longest_text, longest_word) * BODY_SIZE * MM_PER_POINT + ROUNDING
    return min(width, MAX_WIDTHS.get(column.type, width))
