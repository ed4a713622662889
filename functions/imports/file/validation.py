"""Validates an import file: every row is good, normalised and ready for the database, or refused with its reasons.

Rows are read a piece at a time and checked column by column, so a file of any shape takes the memory of its text, of
one piece, and of the table of identifiers seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, islice
from typing import TYPE_CHECKING

from functions.imports.file import headings, reading
from functions.imports.file.cells import printable, read_column, shown
from functions.imports.file.reading import Record, RefusedFile
from shared.columns import BY_KEY, IDENTIFIER, ImportColumn
from shared.messages import CellError, RefusedRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ImportFile", "Piece", "RefusedFile", "open_file"]

PIECE_ROWS = 2_000  # enough that what is done once a piece costs nothing a row; more only takes more memory
NOT_BELOW = ("minimum_stock", "maximum_stock")  # where both stand in a row, the second is at least the first


@dataclass(frozen=True)
class Piece:
    """Some rows of a file, validated. The good and the refused ones together are all rows of it that are not blank."""

    row_numbers: list[int]  # of the good rows, as a spreadsheet shows them
    rows: list[tuple[str | None, ...]]  # one value a column of the file; "" leaves as it is, None clears
    refused: list[RefusedRow]  # in row order, one a row however many of its cells are wrong


@dataclass(frozen=True)
class ImportFile:
    """A file whose headings are in order."""

    encoding: str  # "UTF-8", "UTF-16" or "Windows-1252"
    delimiter: str  # one character
    heading: tuple[str, ...]  # as it stands in the file
    columns: tuple[str, ...]  # keys of the columns to import, in the order of the file
    skipped_columns: tuple[str, ...]  # headings that are known and not imported, as they stand in the file
    _text: str
    _heading: headings.Heading

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the heading as they stand in the file: row number and cells, more or fewer than headings."""
        return ((record.row_number, record.cells) for record in self._records())

    def pieces(self) -> Iterator[Piece]:
        """Validates the file, PIECE_ROWS rows at a time; yields nothing where no row stands below the heading."""
        first_rows: dict[str, int] = {}  # of each identifier
        contains_nul = "\0" in self._text
        remaining = self._records()
        while piece := list(islice(remaining, PIECE_ROWS)):
            yield self._validated(piece, contains_nul, first_rows)

    def _records(self) -> Iterator[Record]:
        return islice(reading.records(self._text, self.delimiter), 1, None)

    def _validated(self, piece: list[Record], contains_nul: bool, first_rows: dict[str, int]) -> Piece:
        errors: dict[int, list[CellError]] = {}  # by row number
        row_numbers: list[int] = []
        rows: list[list[str]] = []
        width = len(self.heading)
        for row_number, cells, fault in piece:
            error = fault
            if error is None and len(cells) != width:
                error = _width_error(cells, width)
            if error is None and contains_nul:
                error = _nul_error(cells)
            if error:
                errors[row_number] = [error]
            else:
                row_numbers.append(row_number)
                rows.append(cells[:width])

        cells_by_position = list(zip(*rows, strict=True)) or [()] * width
        values_by_key: dict[str, Sequence[str | None]] = {}
        for column, position in zip(self._heading.columns, self._heading.positions, strict=True):
            column_cells = cells_by_position[position]
            values, refusals = read_column(column, column_cells)
            for index, refusal in refusals.items():
                error = _cell_error(column, column_cells[index], refusal.code, str(refusal))
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

    Raises RefusedFile where it is empty, no text, damaged, or where its headings are not in order.
    """
    text, encoding = reading.decode(content)
    delimiter = reading.delimiter_of(text)
    first = next(reading.records(text, delimiter), None)

    def refused(reason: str) -> RefusedFile:
        return RefusedFile("FAILED_HEADERS", reason, encoding, delimiter)

    if first is None:
        columns = f'"{IDENTIFIER.key}" and each column to change'
        raise refused(f"The file is empty. Its first row must hold the headings: {columns}.")
    if any("\0" in cell for cell in first.cells):
        raise refused("This is not text: its first row holds NUL characters. Upload a CSV file.")
    if first.fault:
        raise refused(f"Row {first.row_number}: {first.fault.message}")
    heading = headings.read(first.cells)
    if heading.faults:
        raise refused(f"Row {first.row_number}: {' '.join(heading.faults)}")
    keys = tuple(column.key for column in heading.columns)
    return ImportFile(encoding, delimiter, tuple(first.cells), keys, heading.skipped, text, heading)


def _cell_error(column: ImportColumn, cell: str, code: str, message: str) -> CellError:
    return CellError(column.key, printable(cell[: CellError.VALUE_LENGTH]), code, message)


def _row_error(code: str, message: str) -> CellError:
    return CellError("", "", code, message)


def _width_error(cells: list[str], width: int) -> CellError | None:
    """What is wrong with a row of more or fewer cells than the heading: nothing, where those it has more are empty."""
    found = f"The row has {len(cells):,} cells, the heading {width:,}."
    if len(cells) < width:
        return _row_error("too_few_cells", f"{found} Add the missing ones; they may be empty.")
    if any(cells[width:]):
        return _row_error("too_many_cells", f"{found} Put a cell that contains the delimiter in quotes.")
    return None


def _nul_error(cells: list[str]) -> CellError | None:
    for position, cell in enumerate(cells):
        if "\0" in cell:
            return _row_error("nul_character", f"Cell {position + 1} of the row holds a NUL character. Remove it.")
    return None


def _check_identifiers(
    row_numbers: list[int],
    identifiers: Sequence[str | None],
    first_rows: dict[str, int],
    errors: dict[int, list[CellError]],
) -> None:
    """Refuses rows without an identifier, and those whose identifier stood in a row before, good or refused."""
    for row_number, identifier in zip(row_numbers, identifiers, strict=True):
        if identifier and not identifier.isspace():
            first = first_rows.setdefault(identifier, row_number)
            if first != row_number:
                message = f"{shown(identifier)} stands in row {first} already, and the first one counts. Keep one row."
                twin = _cell_error(IDENTIFIER, identifier, "repeated_identifier", message)
                errors.setdefault(row_number, []).append(twin)
        elif not any(error.column == IDENTIFIER.key for error in errors.get(row_number, ())):
            message = "The identifier is missing; it says which product the row changes."
            missing = _cell_error(IDENTIFIER, identifier or "", "missing_identifier", message)
            errors.setdefault(row_number, []).append(missing)


def _check_limits(
    row_numbers: list[int], values: dict[str, Sequence[str | None]], errors: dict[int, list[CellError]]
) -> None:
    """Refuses rows whose maximum is below their minimum, where the row holds both."""
    least, most = NOT_BELOW
    if least not in values or most not in values:
        return
    for row_number, minimum, maximum in zip(row_numbers, values[least], values[most], strict=True):
        if minimum and maximum and int(maximum) < int(minimum):
            heading, other = BY_KEY[most].heading, BY_KEY[least].heading.lower()
            message = f"{heading} {maximum} is below {other} {minimum}. Raise it, or lower the {other}."
            error = _cell_error(BY_KEY[most], maximum, "maximum_below_minimum", message)
            errors.setdefault(row_number, []).append(error)
