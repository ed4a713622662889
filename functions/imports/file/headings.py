"""Reads the heading row of an import file: which column each heading names, and what is wrong with it, in sentences."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from functions.imports.file.cells import quote_cell
from shared.columns import COLUMNS, IDENTIFIER, READ_ONLY_HEADINGS, REPORT_HEADINGS, ImportColumn, normalize_heading
from shared.wording import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = {normalize_heading(name): column for column in COLUMNS for name in (column.key, column.heading)}
_SKIPPED = {normalize_heading(heading) for heading in (*READ_ONLY_HEADINGS, *REPORT_HEADINGS)}

MAX_FAULTS = 5  # that are listed: a file of 10,000 unknown headings has one mistake, not 10,000
COMPARED_LENGTH = 60  # characters compared with the known headings: the time to compare grows with the square of it


@dataclass(frozen=True)
class HeadingRow:
    """What a heading row says."""

    columns: tuple[ImportColumn, ...]  # in the order of the file, without the skipped ones
    positions: tuple[int, ...]  # the position of each of `columns` in a row, the first cell being 0
    skipped: tuple[str, ...]  # headings that are known and not imported, as written in the file
    faults: tuple[str, ...]  # sentences; a file with any fault cannot be imported


def is_known(heading: str) -> bool:
    """Whether `heading` names a column that the importer reads or skips, by its key or its heading in exports."""
    return normalize_heading(heading) in _COLUMNS or normalize_heading(heading) in _SKIPPED


def read_headings(cells: Sequence[str]) -> HeadingRow:
    """Finds the column of each cell of the heading row, and everything that is wrong with the row."""
    positions: dict[ImportColumn, int] = {}
    skipped: list[str] = []
    faults: list[str] = []
    has_unknown = False
    for position, cell in enumerate(cells):
        name = normalize_heading(cell)
        column = _COLUMNS.get(name)
        if not name:
            faults.append(f"The heading of column {position + 1} is empty. Write a heading, or remove the column.")
        elif name in _SKIPPED:
            skipped.append(cell)
        elif column is None:
            has_unknown = True
            faults.append(f"There is no column {quote_cell(cell)}.{_suggest_column(name)}")
        elif column in positions:
            faults.append(
                f'The column "{column.key}" appears twice, as column {positions[column] + 1} and column {position + 1}.'
                " Remove one of them."
            )
        else:
            positions[column] = position
    if len(faults) > MAX_FAULTS:
        more = len(faults) - MAX_FAULTS
        faults[MAX_FAULTS:] = [f"{format_count(more, 'more heading')} {'is' if more == 1 else 'are'} wrong."]
    if IDENTIFIER not in positions:
        faults.append(f'The column "{IDENTIFIER.key}" is missing. Add it: it says which product each row changes.')
    elif len(positions) == 1 and not faults:
        faults.append(
            f'"{IDENTIFIER.key}" is the only column to import, so there is nothing to change.'
            " Add the columns that you want to change."
        )
    if has_unknown or IDENTIFIER not in positions or len(positions) == 1:
        faults.append(f"Known columns: {', '.join(column.key for column in COLUMNS)}.")
    return HeadingRow(tuple(positions), tuple(positions.values()), tuple(skipped), tuple(faults))


def _suggest_column(name: str) -> str:
    nearest = difflib.get_close_matches(name[:COMPARED_LENGTH], _COLUMNS, n=1)
    return f' Did you mean "{_COLUMNS[nearest[0]].key}"?' if nearest else ""
