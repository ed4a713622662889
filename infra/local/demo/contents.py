"""What is in an exported file, read by the programs that people read it with."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

PDF_MARK = b"%PDF-"
SHEETS = "xl/worksheets/"  # in a workbook
ROWS_OF_A_SHEET = 2_000  # that openpyxl reads: 0.3 ms a row, so that 70,000 take longer than all the rest of the demo


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    heading: tuple[str, ...] = ()  # of a table
    rows: int = 0  # of a table, without the heading
    pages: int = 0  # of a document

    def __str__(self) -> str:
        return f"{self.pages:,} pages" if self.pages else f"{self.rows:,} rows, {len(self.heading)} columns"


def read(path: Path) -> Contents:
    """Opens a file and goes through all of it. Raises ValueError, or what its reader raises, when it is broken."""
    return READERS[path.suffix](path)


def read_csv(path: Path) -> Contents:
    """A CSV, every row as wide as the heading."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        heading, *rows = csv.reader(file, strict=True)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(heading):
            raise ValueError(f"Row {number} of {path.name} has {len(row)} cells, its heading {len(heading)}.")
    return Contents(tuple(heading), len(rows))


def read_xlsx(path: Path) -> Contents:
    """A workbook, all its sheets with the same heading; what is behind the first rows is counted, not looked at."""
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True)
    headings = set()
    for sheet in book.worksheets:
        cells = sheet.iter_rows(values_only=True, max_row=ROWS_OF_A_SHEET)
        headings.add(tuple(str(cell) for cell in next(cells)))
        for row in cells:
            if not any(row):
                raise ValueError(f"{path.name} has an empty row.")
    sheets = len(book.worksheets)
    book.close()
    [heading] = headings
    return Contents(heading, count_rows(path) - sheets)


def count_rows(path: Path) -> int:
    """How many rows the sheets of a workbook have, headings included. Raises ExpatError where the XML is broken."""
    rows = 0

    def begin(element: str, _attributes: dict[str, str]) -> None:
        nonlocal rows
        rows += element == "row"

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith(SHEETS) and name.endswith(".xml"):
                parser = expat.ParserCreate()
                parser.StartElementHandler = begin
                with archive.open(name) as sheet:
                    parser.ParseFile(sheet)
    return rows


def read_pdf(path: Path) -> Contents:
    """A document that says of itself that it is a PDF."""
    import pypdf

    with path.open("rb") as file:
        if file.read(len(PDF_MARK)) != PDF_MARK:
            raise ValueError(f"{path.name} is no PDF.")
        pages = pypdf.PdfReader(file, strict=True).pages
        return Contents(pages=len(pages))


READERS = {".csv": read_csv, ".xlsx": read_xlsx, ".pdf": read_pdf}
