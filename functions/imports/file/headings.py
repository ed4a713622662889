"""The heading row of an import file: which column each heading is, and what is wrong with it, in sentences."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from functions.imports.file.cells import shown
from shared.columns import COLUMNS, IDENTIFIER, READ_ONLY_HEADINGS, REPORT_HEADINGS, ImportColumn, normalize_heading

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = {normalize_heading(name): column for column in COLUMNS for name in (column.key, column.heading)}
_SKIPPED = {normalize_heading(heading) for heading in (*READ_ONLY_HEADINGS, *REPORT_HEADINGS)}

NAMED_FAULTS = 5  # a file of 10,000 unknown headings has one mistake, not 10,000
COMPARED_LENGTH = 60  # characters compared with the known headings: comparing takes the square of it


@dataclass(frozen=True)
class Heading:
    """What a heading row says."""

    columns: tuple[ImportColumn, ...]  # in the order of the file, without the skipped ones
    positions: tuple[int, ...]  # where each of `columns` stands in a row, the first cell being 0
    skipped: tuple[str, ...]  # headings that are known and not imported, as they stand in the file
    faults: tuple[str, ...]  # sentences; where there is one the file can't be imported


def known(heading: str) -> bool:
    """Whether `heading` is a column that the importer reads or skips, by its key or its heading in exports."""
    return normalize_heading(heading) in _COLUMNS or normalize_heading(heading) in _SKIPPED


def read(cells: Sequence[str]) -> Heading:
    """Finds the column of each cell of the heading row, and everything that is wrong with the row."""
    found: dict[ImportColumn, int] = {}
    skipped: list[str] = []
    faults: list[str] = []
    unknown = False
    for position, cell in enumerate(cells):
        name = normalize_heading(cell)
        column = _COLUMNS.get(name)
        if not name:
            faults.append(f"The heading of column {position + 1} is empty. Name it, or remove the column.")
        elif name in _SKIPPED:
            skipped.append(cell)
        elif column is None:
            unknown = True
            faults.append(f"There is no column {shown(cell)}.{_suggestion(name)}")
        elif column in found:
            faults.append(
                f'The column "{column.key}" stands twice, as column {found[column] + 1} and column {position + 1}.'
                " Remove one of them."
            )
        else:
            found[column] = position
    if len(faults) > NAMED_FAULTS:
        faults[NAMED_FAULTS:] = [f"{len(faults) - NAMED_FAULTS:,} more headings are wrong."]
    if IDENTIFIER not in found:
        faults.append(f'The column "{IDENTIFIER.key}" is missing; it says which product a row changes.')
    elif len(found) == 1 and not faults:
        faults.append(f'"{IDENTIFIER.key}" is the only column to import, so there is nothing to change. Add another.')
    if unknown or IDENTIFIER not in found or len(found) == 1:
        faults.append(f"Known columns: {', '.join(column.key for column in COLUMNS)}.")
    return Heading(tuple(found), tuple(found.values()), tuple(skipped), tuple(faults))


def _suggestion(name: str) -> str:
    nearest = difflib.get_close_matches(name[:COMPARED_LENGTH], _COLUMNS, n=1)
    return f' Did you mean "{_COLUMNS[nearest[0]].key}"?' if nearest else ""
