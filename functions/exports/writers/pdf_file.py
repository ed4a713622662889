"""PDF: rows as documents to be sent, each on pages of its own: who, to whom, what, how much, page x of y.

Every text is placed here: the library's tables take ten times as long. A document is laid out first and drawn then, so
that its first page can say how many there are.
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
from functions.exports.writers.paper import FAINT, HEADLINE, MARGIN, SMALL, TITLE, Paper, Words
from functions.exports.writers.pdf_table import Row, Table
from shared.problems import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement

    from functions.exports.queries import Progress, Rows

log = logging.getLogger(__name__)

MAX_LINES = 50_000  # a document is made in memory, and nobody reads more on paper
MAX_HEAD_LINES, MAX_REMARK_LINES = 3, 12  # of one text: the head has to fit on a page

# Millimetres.
FOOTER = 20.0  # from the lower edge, kept free of lines
TITLE_HEIGHT, TOTAL_HEIGHT = 11.0, 12.0
SPACE = 4.0  # between the parts of the head
FACTS_A_ROW = 4


def write(rows: Rows, sink: BinaryIO, progress: Progress) -> int:
    """Writes the file to `sink` and returns the number of rows, which are the lines of its documents.

    Raises Problem 422 where there are more than MAX_LINES.
    """
    columns, document = rows.selection.columns, rows.selection.source.document
    assert document, "only what makes a document is asked for as PDF"  # noqa: S101  # the request was checked
    found = rows.fetch([column.value for column in columns] + list(parts(document)), MAX_LINES + 1)
    if len(found) > MAX_LINES:
        detail = f"A PDF holds up to {MAX_LINES:,} lines, and there are more. Narrow the export, or take CSV or XLSX."
        raise refused("file_type", detail)
    texts = Texts()
    lines = [Line.read(row, columns, document, texts) for row in found]
    table = Table.fitted(columns, [line.texts for line in lines])
    with fonts.noto_sans_files() as files:
        paper = Paper(table.page, files)
        for _, of_one in groupby(lines, key=lambda line: line.part[document.key]):
            Drawing(paper, table, document, list(of_one), texts).draw(progress)
        if not lines:
            paper.add_page()
            paper.put(Words(f"{document.title}: there are no lines in this selection.", HEADLINE), MARGIN, MARGIN)
        sink.write(paper.finished())
    if texts.unprintable:
        log.warning("No font has all letters of %s texts: they were replaced or left out", texts.unprintable)
    return len(lines)


def parts(document: Document) -> Iterator[ColumnElement[Any]]:
    """All expressions of a document, in a fixed order."""
    yield from (document.key, document.number, document.remarks, document.currency, document.amount)
    yield from document.line_fallbacks
    yield from document.facts.values()
    for party in (document.sender, document.recipient):
        yield from (party.name, *party.fallbacks, *party.lines)


@dataclass
class Texts:
    """Values as texts that can be printed."""

    unprintable: int = 0  # of which no font has all letters

    def of(self, value: object, *fallbacks: object) -> str:
        """`value` as text; where it cannot be printed, the first of `fallbacks` that can, or nothing."""
        if value is None:
            return ""
        text = shown(value)
        printable = fonts.printable(text)
        if printable is None:
            self.unprintable += 1
            known = (fonts.printable(shown(one)) for one in fallbacks if one)
            printable = next(filter(None, known), "")
        return printable


def shown(value: object) -> str:
    """A value as an English reader takes it without asking."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return value.isoformat() if isinstance(value, date) else str(value)


@dataclass(frozen=True)
class Line:
    """One row: the texts of its cells, and the parts of its document by the expressions they come from."""

    texts: tuple[str, ...]
    part: Mapping[ColumnElement[Any], Any]

    @classmethod
    def read(cls, row: Sequence[Any], columns: tuple[Column, ...], document: Document, texts: Texts) -> Line:
        """Takes a row of the query apart."""
        width = len(columns)
        part = dict(zip(parts(document), row[width:], strict=True))
        fallbacks = [part[fallback] for fallback in document.line_fallbacks]
        return cls(tuple(texts.of(value, *fallbacks) for value in row[:width]), part)


class Block(NamedTuple):
    """Texts below each other, with a label above them."""

    label: str
    texts: Sequence[Words]
    most_lines: int = MAX_HEAD_LINES  # of each text


@dataclass
class Head:
    """What stands above the lines on a document's first page."""

    width: float  # of the page
    bottom: float = MARGIN
    words: list[tuple[Words, float, float]] = field(default_factory=list)  # with left and middle

    def add(self, *blocks: Block, across: int) -> None:
        """Adds blocks beside each other, `across` of which would fill the page."""
        pitch = (self.width - 2 * MARGIN + SPACE) / across
        bottoms = [self._added(block, MARGIN + at * pitch, pitch - SPACE) for at, block in enumerate(blocks)]
        self.bottom = max(bottoms) + SPACE

    def _added(self, block: Block, left: float, room: float) -> float:
        top = self.bottom
        label = Words(block.label, SMALL, colour=FAINT)
        for line in [label, *(line for text in block.texts for line in text.broken(room, block.most_lines))]:
            self.words.append((line, left, top + line.height / 2))
            top += line.height
        return top


class Drawing:
    """One document on its way to paper."""

    def __init__(self, paper: Paper, table: Table, document: Document, lines: list[Line], texts: Texts) -> None:
        """`lines` are those of this document, at least one."""
        self.paper = paper
        self.table = table
        self.document = document
        self.lines = lines
        self.texts = texts
        self.part = lines[0].part
        self.number = texts.of(self.part[document.number], self.part[document.key])
        self.heading = table.heading()

    def draw(self, progress: Progress) -> None:
        """Draws all pages."""
        head = self.head()
        pages = self.paginated([self.table.row(line.texts) for line in self.lines], head.bottom)
        for number, rows in enumerate(pages, start=1):
            self.paper.add_page()
            top = MARGIN
            if number == 1:
                self.draw_head(head)
                top = head.bottom
            top = self.draw_rows(rows, top)
            if number == len(pages):
                self.draw_total(top)
            self.draw_footer(number, len(pages))
            progress.add(len(rows))

    def paginated(self, rows: list[Row], top: float) -> list[list[Row]]:
        """Which rows stand on which page: the first page's below `top`, the last page's above the total."""
        bottom = self.paper.height - FOOTER
        pages: list[list[Row]] = [[]]
        top += self.heading.height
        for row in rows:
            needed = row.height + (TOTAL_HEIGHT if row is rows[-1] else 0)
            if top + needed > bottom and (pages[-1] or len(pages) == 1):
                pages.append([])
                top = MARGIN + self.heading.height
            pages[-1].append(row)
            top += row.height
        return pages

    def head(self) -> Head:
        """Lays out parties, facts and remarks."""
        head = Head(self.paper.width, MARGIN + TITLE_HEIGHT + SPACE)
        head.add(self.party(self.document.recipient), self.party(self.document.sender), across=2)
        texts = {label: self.texts.of(self.part[value]) for label, value in self.document.facts.items()}
        facts = [Block(label, [Words(text, bold=True)]) for label, text in texts.items() if text]
        for start in range(0, len(facts), FACTS_A_ROW):
            head.add(*facts[start : start + FACTS_A_ROW], across=FACTS_A_ROW)
        if remarks := self.texts.of(self.part[self.document.remarks]):
            head.add(Block("Remarks", [Words(remarks)], MAX_REMARK_LINES), across=1)
        return head

    def party(self, party: Party) -> Block:
        """Name and address."""
        name = self.texts.of(self.part[party.name], *(self.part[fallback] for fallback in party.fallbacks))
        lines = [self.texts.of(self.part[line]) for line in party.lines]
        return Block(party.heading, [Words(name, HEADLINE, bold=True), *(Words(line) for line in lines if line)])

    def draw_head(self, head: Head) -> None:
        """Title, number and what was laid out."""
        right, middle = self.paper.width - MARGIN, MARGIN + TITLE_HEIGHT / 3
        self.paper.put(Words(self.document.title, TITLE, bold=True), MARGIN, middle)
        self.paper.put_to(Words(self.number, HEADLINE, bold=True), right, middle)
        self.paper.rule(MARGIN + TITLE_HEIGHT)
        for words, left, middle in head.words:
            self.paper.put(words, left, middle)

    def draw_rows(self, rows: list[Row], top: float) -> float:
        """The heading and the rows of one page; returns where they end."""
        if rows:
            self.paper.shade(top, self.heading.height)
            self.table.draw(self.heading, self.paper, top)
            top += self.heading.height
        for row in rows:
            self.table.draw(row, self.paper, top)
            top += row.height
            self.paper.rule(top)
        return top

    def draw_total(self, top: float) -> None:
        """How many lines, and how much they come to."""
        total = sum((line.part[self.document.amount] or Decimal() for line in self.lines), Decimal())
        currency = self.texts.of(self.part[self.document.currency])
        middle = top + TOTAL_HEIGHT / 2
        count = f"{len(self.lines):,} line{'s' if len(self.lines) != 1 else ''}"
        self.paper.put(Words(count, colour=FAINT), MARGIN, middle)
        amount = Words(f"Total {currency} {total:,}", HEADLINE, bold=True)
        self.paper.put_to(amount, self.paper.width - MARGIN, middle)

    def draw_footer(self, number: int, pages: int) -> None:
        """Which document this page belongs to, and which page of it this is."""
        middle = self.paper.height - FOOTER / 2
        name = Words(f"{self.document.title} {self.number}", SMALL, colour=FAINT)
        self.paper.put(name, MARGIN, middle)
        self.paper.put_to(Words(f"Page {number} of {pages}", SMALL, colour=FAINT), self.paper.width - MARGIN, middle)
