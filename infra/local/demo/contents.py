"""Reads exported files with the libraries that other programs read them with."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from shared.wording import format_count

PDF_MARK = b"%PDF-"
SHEETS_FOLDER = "xl/worksheets/"  # in a workbook's archive
MAX_ROWS_READ = 2_000  # per sheet, by openpyxl: at 0.3 ms per row, 70,000 rows would take longer than the whole demo


@dataclass(frozen=True)
class Contents:
    """What a file contains."""

    heading: tuple[str, ...] = ()  # of a table
    rows: int = 0  # of a table, without the heading
    pages: int = 0  # of a document

    def __str__(self) -> str:
        if self.pages:
            return format_count(self.pages, "page")
        return f"{format_count(self.rows, 'row')}, {format_count(len(self.heading), 'column')}"


def read(path: Path) -> Contents:
    """Reads a whole file. Raises ValueError, or the error of the library that reads it, when the file is broken."""
    return READERS[path.suffix](path)


def read_csv(path: Path) -> Contents:
    """Reads a CSV file. Raises ValueError where a row is not as wide as the heading."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        heading, *rows = csv.reader(file, strict=True)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(heading):
            raise ValueError(
                f"Row {number} of {path.name} has {format_count(len(row), 'cell')}, the heading has {len(heading)}."
            )
    return Contents(tuple(heading), len(rows))


def read_xlsx(path: Path) -> Contents:
    """Reads a workbook whose sheets have one heading. Rows after the first MAX_ROWS_READ of a sheet are only counted.

    Raises ValueError where the headings differ or a row is empty.
    """
    import openpyxl

    workbook = openpyxl.load_workbook(path, read_only=True)
    headings = set()
    for sheet in workbook.worksheets:
        rows = sheet.iter_rows(values_only=True, max_row=MAX_ROWS_READ)
        headings.add(tuple(str(cell) for cell in next(rows)))
        for row in rows:
            if not any(row):
                raise ValueError(f"{path.name} has an empty row.")
    sheets = len(workbook.worksheets)
    workbook.close()
    [heading] = headings
    return Contents(heading, count_rows(path) - sheets)


def count_rows(path: Path) -> int:
    """Counts the rows of all sheets of a workbook, headings included. Raises ExpatError where the XML is broken."""
    rows = 0

    def count_element(element: str, _attributes: dict[str, str]) -> None:
        nonlocal rows
        rows += element == "row"

    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith(SHEETS_FOLDER) and name.endswith(".xml"):
                parser = expat.ParserCreate()
                parser.StartElementHandler = count_element
                with archive.open(name) as sheet:
                    parser.ParseFile(sheet)
    return rows


def read_pdf(path: Path) -> Contents:
    """Reads a PDF document. Raises ValueError where the file does not begin like one."""
    import pypdf

    with path.open("rb") as file:
        if file.read(len(PDF_MARK)) != PDF_MARK:
            raise ValueError(f"{path.name} is not a PDF document.")
        return Contents(pages=len(pypdf.PdfReader(file, strict=True).pages))


READERS = {".csv": read_csv, ".xlsx": read_xlsx, ".pdf": read_pdf}
