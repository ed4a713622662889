"""The heading row: which columns it names, and what is wrong with it."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest

from functions.imports.file import headings
from shared.columns import COLUMNS, READ_ONLY_HEADINGS, REPORT_HEADINGS

CASES = Path(__file__).parents[3] / "data" / "headings.txt"
LONGEST_SECONDS = 5  # of CPU for a row that must not take the square of its length; it takes 0.1 s


def cases() -> list[pytest.ParameterSet]:
    """Cells, keys of the columns read, headings skipped, and parts of what is refused. A case is called by its line."""
    found = []
    for number, line in enumerate(CASES.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        row, *meanings = (part.strip() for part in line.split("|"))
        for escape in ("\\n", "\\x20", "\\u00a0", "\\x7c", "\\u0007"):
            row = row.replace(escape, escape.encode().decode("unicode_escape"))
        cells = next(csv.reader(io.StringIO(row, newline="")))
        if meanings[0].startswith("refused: "):
            parts = meanings[0].removeprefix("refused: ").replace("\\ufffd", "\ufffd").split(" / ")
            found.append(pytest.param(cells, [], [], parts, id=f"line {number}"))
        else:
            columns, skipped = ([name for name in meaning.split(", ") if name] for meaning in meanings)
            found.append(pytest.param(cells, columns, skipped, [], id=f"line {number}"))
    return found


@pytest.mark.parametrize(("cells", "columns", "skipped", "refused"), cases())
def test_a_heading_row_means_what_the_table_says(
    cells: list[str], columns: list[str], skipped: list[str], refused: list[str]
) -> None:
    """Each line of the table holds: the columns found, the ones skipped, or what the merchant reads."""
    heading = headings.read(cells)

    if refused:
        reason = " ".join(heading.faults)
        assert [part for part in refused if part not in reason] == []
    else:
        assert heading.faults == ()
        assert [column.key for column in heading.columns] == columns
        assert list(heading.skipped) == skipped
        assert [cells[position] for position in heading.positions] == [cell for cell in cells if cell not in skipped]


@pytest.mark.parametrize("name", ["key", "heading"])
def test_every_column_is_known_by_key_and_by_its_heading_in_exports(name: str) -> None:
    """An export and a file made from the API's names go in alike."""
    heading = headings.read([getattr(column, name) for column in COLUMNS])

    assert heading.columns == COLUMNS
    assert heading.faults == ()


def test_read_only_and_report_columns_are_skipped_by_their_text_in_the_file() -> None:
    """A whole export, or a mended error report, is uploaded as it is."""
    extra = (*READ_ONLY_HEADINGS, *REPORT_HEADINGS)

    heading = headings.read(["identifier", "price", *extra])

    assert [column.key for column in heading.columns] == ["identifier", "price"]
    assert heading.skipped == extra


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(["x" + str(number) for number in range(10_000)], id="10,000 unknown headings"),
        pytest.param(["y" * 5_000_000], id="a heading of 5 MB"),
        pytest.param(["price"] * 10_000, id="a heading 10,000 times"),
    ],
)
def test_a_reason_stays_short_whatever_the_row(row: list[str]) -> None:
    """10,000 wrong headings, or one of 5 MB, are one mistake: a merchant reads the reason, a list shows it."""
    start = time.process_time()

    heading = headings.read(row)

    assert heading.faults
    assert len(" ".join(heading.faults)) < 1_500
    assert time.process_time() - start < LONGEST_SECONDS


def test_many_wrong_headings_are_counted() -> None:
    """What is not named is not kept secret either."""
    heading = headings.read(["identifier", *(f"x{number}" for number in range(1, 9))])

    assert heading.faults[5] == "3 more headings are wrong."
