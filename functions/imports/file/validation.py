"""Validates an import file: each row is either valid and normalized for the database, or refused with its errors.

Rows are read in pieces and checked column by column. Whatever the rows contain, only the file's text,
one piece and all identifiers are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, islice
from typing import TYPE_CHECKING

from functions.imports.file import headings, reading
from functions.imports.file.cells import make_printable, quote_cell, read_column
from functions.imports.file.reading import Record, RefusedFile
from shared.columns import BY_KEY, IDENTIFIER, ImportColumn
from shared.messages import CellError, RefusedRow
from shared.wording import format_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ImportFile", "Piece", "RefusedFile", "open_file"]

PIECE_ROWS = 2_000  # enough that the cost per piece does not matter; more rows would only take more memory
MINIMUM, MAXIMUM = "minimum_stock", "maximum_stock"  # if a row has both, the maximum must be at least the minimum


@dataclass(frozen=True)
class Piece:
    """Some rows of a file, validated: each row that is not empty is either good or refused."""

    row_numbers: list[int]  # of the good rows, as a spreadsheet shows them
    rows: list[tuple[str | None, ...]]  # one value per column; "" leaves the stored value unchanged, None clears it
    refused: list[RefusedRow]  # in row order, each with all errors of its row


@dataclass(frozen=True)
class ImportFile:
    """A file with valid headings."""

    encoding: str  # "UTF-8", "UTF-16" or "Windows-1252"
    delimiter: str  # one character
    heading: tuple[str, ...]  # as written in the file
    columns: tuple[str, ...]  # keys of the columns to import, in the order of the file
    skipped_columns: tuple[str, ...]  # known headings whose columns are not imported, as written in the file
    _text: str
    _heading_row: headings.HeadingRow

    def read_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Reads the rows below the heading: row number, and cells as in the file, even too few or too many."""
        return ((record.row_number, record.cells) for record in self._read_records())

    def validate(self) -> Iterator[Piece]:
        """Validates the rows below the heading, PIECE_ROWS rows at a time; yields nothing if there are none."""
        first_rows: dict[str, int] = {}  # of each identifier
        contains_nul = "\0" in self._text
        unread = self._read_records()
        while records := list(islice(unread, PIECE_ROWS)):
            yield self._validate_piece(records, contains_nul, first_rows)

    def _read_records(self) -> Iterator[Record]:
        return islice(reading.read_records(self._text, self.delimiter), 1, None)

    def _validate_piece(self, records: list[Record], contains_nul: bool, first_rows: dict[str, int]) -> Piece:
        errors: dict[int, list[CellError]] = {}  # by row number
        row_numbers: list[int] = []
        rows: list[list[str]] = []
        width = len(self.heading)
        for row_number, cells, fault in records:
            error = fault
            if error is None and len(cells) != width:
                error = _check_width(cells, width)
            if error is None and contains_nul:
                error = _check_nul(cells)
            if error:
                errors[row_number] = [error]
            else:
                row_numbers.append(row_number)
                rows.append(cells[:width])

        cells_by_position = list(zip(*rows, strict=True)) or [()] * width
        values_by_key: dict[str, Sequence[str | None]] = {}
        for column, position in zip(self._heading_row.columns, self._heading_row.positions, strict=True):
            column_cells = cells_by_position[position]
            values, refusals = read_column(column, column_cells)
            for index, refusal in refusals.items():
                error = _build_cell_error(column, column_cells[index], refusal.code, str(refusal))
                errors.setdefault(row_numbers[index], []).append(error)
            values_by_key[column.key] = values
            if column is IDENTIFIER:
                _check_identifiers(row_numbers, values, first_rows, errors)
        _check_limits(row_numbers, values_by_key, errors)

        good = list(zip(*values_by_key.values(), strict=True))
        if errors:
            is_good = [row_number not in errors for row_number in row_numbers]
            row_numbers, good = list(compress(row_numbers, is_good)), list(compress(good, is_good))
        refused = [RefusedRow(row_number, tuple(found)) for row_number, found in sorted(errors.items())]
        return Piece(row_numbers, good, refused)


def open_file(content: bytes) -> ImportFile:
    """Reads the encoding, the delimiter and the headings of a file.

    Raises RefusedFile if the file is empty, damaged or not text, or if its headings are wrong.
    """
    text, encoding = reading.decode(content)
    delimiter = reading.detect_delimiter(text)
    first = next(reading.read_records(text, delimiter), None)

    def build_refusal(reason: str) -> RefusedFile:
        return RefusedFile("FAILED_HEADERS", reason, encoding, delimiter)

    if first is None:
        columns = f'"{IDENTIFIER.key}" and the columns to change'
        raise build_refusal(f"The file is empty. Its first row must contain the headings: {columns}.")
    if any("\0" in cell for cell in first.cells):
        raise build_refusal("The file is not text: its first row contains NUL characters. Upload a CSV file.")
    if first.fault:
        raise build_refusal(f"Row {first.row_number}: {first.fault.message}")
    heading_row = headings.read_headings(first.cells)
    if heading_row.faults:
        raise build_refusal(f"Row {first.row_number}: {' '.join(heading_row.faults)}")
    keys = tuple(column.key for column in heading_row.columns)
    return ImportFile(encoding, delimiter, tuple(first.cells), keys, heading_row.skipped, text, heading_row)


def _build_cell_error(column: ImportColumn, cell: str, code: str, message: str) -> CellError:
    return CellError(column.key, make_printable(cell[: CellError.VALUE_LENGTH]), code, message)


def _build_row_error(code: str, message: str) -> CellError:
    return CellError("", "", code, message)


def _check_width(cells: list[str], width: int) -> CellError | None:
    """Returns the error of a row that has too few cells, or any text in cells beyond the heading."""
    found = f"The row has {format_count(len(cells), 'cell')}, but the heading has {width:,}."
    if len(cells) < width:
        return _build_row_error("too_few_cells", f"{found} Add the missing cells; they may be empty.")
    if any(cells[width:]):
        return _build_row_error(
            "too_many_cells",
            f"{found} Remove the extra cells, or put quotes around a cell that contains the delimiter.",
        )
    return None


def _check_nul(cells: list[str]) -> CellError | None:
    for position, cell in enumerate(cells):
        if "\0" in cell:
            message = f"Cell {position + 1} of the row contains a NUL character. Remove it."
            return _build_row_error("nul_character", message)
    return None


def _check_identifiers(
    row_numbers: list[int],
    identifiers: Sequence[str | None],
    first_rows: dict[str, int],
    errors: dict[int, list[CellError]],
) -> None:
    """Refuses rows without an identifier, and rows that repeat that of an earlier row, even if that one is refused."""
    for row_number, identifier in zip(row_numbers, identifiers, strict=True):
        if identifier and not identifier.isspace():
            first_row = first_rows.setdefault(identifier, row_number)
            if first_row != row_number:
                message = (
                    f"{quote_cell(identifier)} already appears in row {first_row}, and only that row counts."
                    " Remove one of the two rows."
                )
                error = _build_cell_error(IDENTIFIER, identifier, "repeated_identifier", message)
                errors.setdefault(row_number, []).append(error)
        elif not any(error.column == IDENTIFIER.key for error in errors.get(row_number, ())):  # else refused already
            message = "The identifier is missing. Write the identifier of the product that this row changes."
            error = _build_cell_error(IDENTIFIER, identifier or "", "missing_identifier", message)
            errors.setdefault(row_number, []).append(error)


def _check_limits(
    row_numbers: list[int], values: dict[str, Sequence[str | None]], errors: dict[int, list[CellError]]
) -> None:
    """Refuses rows whose maximum stock is below their minimum stock, if the file has both columns."""
    if MINIMUM not in values or MAXIMUM not in values:
        return
    minimum_heading, maximum_heading = BY_KEY[MINIMUM].heading.lower(), BY_KEY[MAXIMUM].heading
    for row_number, minimum, maximum in zip(row_numbers, values[MINIMUM], values[MAXIMUM], strict=True):
        if minimum and maximum and int(maximum) < int(minimum):
            message = (
                f"{maximum_heading} {maximum} is below {minimum_heading} {minimum}."
                f" Raise the {maximum_heading.lower()} or lower the {minimum_heading}."
            )
            error = _build_cell_error(BY_KEY[MAXIMUM], maximum, "maximum_below_minimum", message)
            errors.setdefault(row_number, []).append(error)
