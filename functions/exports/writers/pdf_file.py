"""Writes PDF: the rows as documents to send. Each starts on a new page and has parties, lines, a total, page numbers.

This module positions every text itself: fpdf2's tables take ten times as long. Each document is laid out before it is
drawn, so that its first page can show the number of pages. Lengths are in millimetres.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from functions.exports.source import Column, Document, Party
from functions.exports.writers import fonts
from functions.exports.writers.paper import FAINT, HEADLINE_SIZE, MARGIN, SMALL_SIZE, TITLE_SIZE, Paper, StyledText
from functions.exports.writers.pdf_table import Row, Table
from shared.problems import invalid_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement

    from functions.exports.queries import Progress, Rows

log = logging.getLogger(__name__)

MAX_LINES = 50_000  # a PDF is made in memory, and a larger one is too long to read
MAX_HEAD_LINES, MAX_REMARK_LINES = 3, 12  # into which one text is wrapped: the head has to fit on a page

FOOTER_HEIGHT = 20.0  # at the lower edge of the page; no row is drawn there
TITLE_HEIGHT, TOTAL_HEIGHT = 11.0, 12.0
SPACE = 4.0  # between the blocks of the head
FACTS_PER_ROW = 4


def write(rows: Rows, sink: BinaryIO, progress: Progress) -> int:
    """Writes the file to `sink` and returns the number of rows, which are the lines of its documents.

    Raises Problem 422 when there are more than MAX_LINES.
    """
    columns, document = rows.selection.columns, rows.selection.source.document
    assert document, "only a source with documents has the file type PDF"  # noqa: S101  # the request was validated
    expressions = [*(column.value for column in columns), *document_expressions(document)]
    found = rows.fetch(expressions, MAX_LINES + 1)
    if len(found) > MAX_LINES:
        limit = f"A PDF may have at most {MAX_LINES:,} lines, and this export has more."
        raise invalid_input("file_type", f"{limit} Narrow the export, or choose CSV or XLSX.")
    texts = PrintableTexts()
    lines = [Line.from_row(row, columns, document, texts) for row in found]
    table = Table.fit(columns, [line.texts for line in lines])
    with fonts.noto_sans_files() as files:
        paper = Paper(table.page_size, files)
        for _, document_lines in groupby(lines, key=lambda line: line.values[document.key]):
            DocumentDrawing(paper, table, document, list(document_lines), texts).draw(progress)
        if not lines:
            paper.add_page()
            message = f"{document.title}: there are no lines in this selection."
            paper.draw_text(StyledText(message, HEADLINE_SIZE), MARGIN, MARGIN)
        sink.write(paper.to_bytes())
    if texts.unprintable_count:
        log.warning("Texts that our fonts cannot print were replaced or left out: %s", texts.unprintable_count)
    return len(lines)


def document_expressions(document: Document) -> Iterator[ColumnElement[Any]]:
    """Returns all expressions of a document, in a fixed order."""
    yield from (document.key, document.number, document.remarks, document.currency, document.amount)
    yield from document.line_fallbacks
    yield from document.facts.values()
    for party in (document.sender, document.recipient):
        yield from (party.name, *party.fallbacks, *party.lines)


@dataclass
class PrintableTexts:
    """Formats values as texts that our fonts can print, and counts the values that they cannot print."""

    unprintable_count: int = 0

    def format(self, value: object, *fallbacks: object) -> str:
        """Returns `value` as text. If it is unprintable, returns the first printable one of `fallbacks`, else ""."""
        if value is None:
            return ""
        text = fonts.make_printable(format_value(value))
        if text is None:
            self.unprintable_count += 1
            fallback_texts = (fonts.make_printable(format_value(fallback)) for fallback in fallbacks if fallback)
            text = next(filter(None, fallback_texts), "")
        return text


def format_value(value: object) -> str:
    """Formats a value for readers of English."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return value.isoformat() if isinstance(value, date) else str(value)


@dataclass(frozen=True)
class Line:
    """One row: the texts of its cells, and the values of its document's expressions."""

    texts: tuple[str, ...]
    values: Mapping[ColumnElement[Any], Any]

    @classmethod
    def from_row(
        cls, row: Sequence[Any], columns: tuple[Column, ...], document: Document, texts: PrintableTexts
    ) -> Line:
        """Splits a row of the query into cells and values."""
        cell_count = len(columns)
        values = dict(zip(document_expressions(document), row[cell_count:], strict=True))
        fallbacks = [values[fallback] for fallback in document.line_fallbacks]
        return cls(tuple(texts.format(cell, *fallbacks) for cell in row[:cell_count]), values)


class Block(NamedTuple):
    """Texts below each other, with a label above them."""

    label: str
    texts: Sequence[StyledText]
    max_lines: int = MAX_HEAD_LINES  # of each text


@dataclass
class Head:
    """The layout of everything above the lines on a document's first page."""

    width: float  # of the page
    bottom: float = MARGIN  # of what was added so far
    text_lines: list[tuple[StyledText, float, float]] = field(default_factory=list)  # each with its left and middle

    def add(self, *blocks: Block, blocks_per_row: int) -> None:
        """Adds one row of blocks. `blocks_per_row` blocks would fill the width of the page."""
        pitch = (self.width - 2 * MARGIN + SPACE) / blocks_per_row
        bottoms = [self._add_block(block, MARGIN + index * pitch, pitch - SPACE) for index, block in enumerate(blocks)]
        self.bottom = max(bottoms) + SPACE

    def _add_block(self, block: Block, left: float, width: float) -> float:
        """Adds one block below the previous row and returns its bottom."""
        top = self.bottom
        label = StyledText(block.label, SMALL_SIZE, colour=FAINT)
        for line in [label, *(line for text in block.texts for line in text.wrap(width, block.max_lines))]:
            self.text_lines.append((line, left, top + line.height / 2))
            top += line.height
        return top


class DocumentDrawing:
    """Draws one document."""

    def __init__(
        self, paper: Paper, table: Table, document: Document, lines: list[Line], texts: PrintableTexts
    ) -> None:
        """`lines` are the lines of this document, at least one."""
        self.paper = paper
        self.table = table
        self.document = document
        self.lines = lines
        self.texts = texts
        self.values = lines[0].values
        self.number = texts.format(self.values[document.number], self.values[document.key])
        self.heading = table.lay_out_heading()

    def draw(self, progress: Progress) -> None:
        """Draws all pages."""
        head = self.lay_out_head()
        pages = self.paginate([self.table.lay_out_row(line.texts) for line in self.lines], head.bottom)
        for page_number, rows in enumerate(pages, start=1):
            self.paper.add_page()
            top = MARGIN
            if page_number == 1:
                self.draw_head(head)
                top = head.bottom
            top = self.draw_rows(rows, top)
            if page_number == len(pages):
                self.draw_total(top)
            self.draw_footer(page_number, len(pages))
            progress.add(len(rows))

    def paginate(self, rows: list[Row], top: float) -> list[list[Row]]:
        """Distributes the rows over pages. On the first page they start at `top`; the last page also has the total."""
        bottom = self.paper.height - FOOTER_HEIGHT
        pages: list[list[Row]] = [[]]
        top += self.heading.height
        for row in rows:
            height = row.height + (TOTAL_HEIGHT if row is rows[-1] else 0)
            # Only the first page may stay without rows: an empty page after it takes a row of any height.
            if top + height > bottom and (pages[-1] or len(pages) == 1):
                pages.append([])
                top = MARGIN + self.heading.height
            pages[-1].append(row)
            top += row.height
        return pages

    def lay_out_head(self) -> Head:
        """Lays out the parties, the facts and the remarks."""
        head = Head(self.paper.width, MARGIN + TITLE_HEIGHT + SPACE)
        head.add(self.make_party(self.document.recipient), self.make_party(self.document.sender), blocks_per_row=2)
        texts = {label: self.texts.format(self.values[value]) for label, value in self.document.facts.items()}
        facts = [Block(label, [StyledText(text, bold=True)]) for label, text in texts.items() if text]
        for start in range(0, len(facts), FACTS_PER_ROW):
            head.add(*facts[start : start + FACTS_PER_ROW], blocks_per_row=FACTS_PER_ROW)
        if remarks := self.texts.format(self.values[self.document.remarks]):
            head.add(Block("Remarks", [StyledText(remarks)], MAX_REMARK_LINES), blocks_per_row=1)
        return head

    def make_party(self, party: Party) -> Block:
        """Returns the name and address of a party."""
        fallbacks = (self.values[fallback] for fallback in party.fallbacks)
        name = self.texts.format(self.values[party.name], *fallbacks)
        lines = [self.texts.format(self.values[line]) for line in party.lines]
        address = [StyledText(line) for line in lines if line]
        return Block(party.heading, [StyledText(name, HEADLINE_SIZE, bold=True), *address])

    def draw_head(self, head: Head) -> None:
        """Draws the title, the number and what `lay_out_head` has laid out."""
        right, middle = self.paper.width - MARGIN, MARGIN + TITLE_HEIGHT / 3
        self.paper.draw_text(StyledText(self.document.title, TITLE_SIZE, bold=True), MARGIN, middle)
        self.paper.draw_text_to(StyledText(self.number, HEADLINE_SIZE, bold=True), right, middle)
        self.paper.draw_rule(MARGIN + TITLE_HEIGHT)
        for line, left, middle in head.text_lines:
            self.paper.draw_text(line, left, middle)

    def draw_rows(self, rows: list[Row], top: float) -> float:
        """Draws the heading and the rows of one page, if it has rows, and returns where they end."""
        if rows:
            self.paper.draw_shade(top, self.heading.height)
            self.table.draw(self.heading, self.paper, top)
            top += self.heading.height
        for row in rows:
            self.table.draw(row, self.paper, top)
            top += row.height
            self.paper.draw_rule(top)
        return top

    def draw_total(self, top: float) -> None:
        """Draws the number of lines and the sum of their amounts."""
        total = sum((line.values[self.document.amount] or Decimal() for line in self.lines), Decimal())
        currency = self.texts.format(self.values[self.document.currency])
        middle = top + TOTAL_HEIGHT / 2
        count = f"{len(self.lines):,} line{'s' if len(self.lines) != 1 else ''}"
        self.paper.draw_text(StyledText(count, colour=FAINT), MARGIN, middle)
        amount = StyledText(f"Total {currency} {total:,}", HEADLINE_SIZE, bold=True)
        self.paper.draw_text_to(amount, self.paper.width - MARGIN, middle)

    def draw_footer(self, page_number: int, page_count: int) -> None:
        """Draws the document's title and number, the page's number and the number of pages."""
        middle = self.paper.height - FOOTER_HEIGHT / 2
        name = StyledText(f"{self.document.title} {self.number}", SMALL_SIZE, colour=FAINT)
        self.paper.draw_text(name, MARGIN, middle)
        position = StyledText(f"Page {page_number} of {page_count}", SMALL_SIZE, colour=FAINT)
        self.paper.draw_text_to(position, self.paper.width - MARGIN, middle)
