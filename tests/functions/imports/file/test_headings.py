"""The heading row: which columns it names, and which of its mistakes are explained."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest

from functions.imports.file import headings
from shared.columns import COLUMNS, READ_ONLY_HEADINGS, REPORT_HEADINGS

CASES_FILE = Path(__file__).parents[3] / "data" / "headings.txt"
# Of CPU, for one row. It takes 0.1 s, more on a busy machine or with coverage; the square of its length would be
# minutes.
MAX_SECONDS = 20


Case = tuple[list[str], list[str], list[str], list[str]]  # cells, columns read, headings skipped, parts of the refusal


def read_cases() -> dict[str, Case]:
    """Reads the table, by the line's number."""
    cases: dict[str, Case] = {}
    for number, line in enumerate(CASES_FILE.read_text(encoding="utf-8").splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        row, *meanings = (part.strip() for part in line.split("|"))
        for escape in ("\\n", "\\x20", "\\u00a0", "\\x7c", "\\u0007"):
            row = row.replace(escape, escape.encode().decode("unicode_escape"))
        cells = next(csv.reader(io.StringIO(row, newline="")))
        if meanings[0].startswith("refused: "):
            parts = meanings[0].removeprefix("refused: ").replace("\\ufffd", "\ufffd").split(" / ")
            cases[f"line {number}"] = (cells, [], [], parts)
        else:
            columns, skipped = ([name for name in meaning.split(", ") if name] for meaning in meanings)
            cases[f"line {number}"] = (cells, columns, skipped, [])
    return cases


CASES = read_cases()


@pytest.mark.parametrize(("cells", "columns", "skipped", "refused"), CASES.values(), ids=CASES.keys())
def test_a_heading_row_means_what_the_table_says(
    cells: list[str], columns: list[str], skipped: list[str], refused: list[str]
) -> None:
    """Each line of the table is true: the columns read and skipped, or the sentences that the merchant reads."""
    heading_row = headings.read_headings(cells)

    if refused:
        reason = " ".join(heading_row.faults)
        assert [part for part in refused if part not in reason] == []
    else:
        assert heading_row.faults == ()
        assert [column.key for column in heading_row.columns] == columns
        assert list(heading_row.skipped) == skipped
        assert [cells[position] for position in heading_row.positions] == [
            cell for cell in cells if cell not in skipped
        ]


@pytest.mark.parametrize("name", ["key", "heading"], ids=["key", "heading"])
def test_every_column_is_known_by_key_and_by_its_heading_in_exports(name: str) -> None:
    """An export can be imported, and so can a file that uses the names of the API."""
    heading_row = headings.read_headings([getattr(column, name) for column in COLUMNS])

    assert heading_row.columns == COLUMNS
    assert heading_row.faults == ()


def test_read_only_and_report_columns_are_skipped_by_their_text_in_the_file() -> None:
    """A whole export and a corrected error report can be uploaded without removing columns."""
    extra = (*READ_ONLY_HEADINGS, *REPORT_HEADINGS)

    heading_row = headings.read_headings(["identifier", "price", *extra])

    assert [column.key for column in heading_row.columns] == ["identifier", "price"]
    assert heading_row.skipped == extra


@pytest.mark.parametrize(
    "row",
    [[f"x{number}" for number in range(10_000)], ["y" * 5_000_000], ["price"] * 10_000],
    ids=["10,000 unknown", "one of 5 MB", "10,000 repeated"],
)
def test_a_reason_stays_short_whatever_the_row(row: list[str]) -> None:
    """10,000 wrong headings, or one of 5 MB, are one mistake, and a merchant reads the reason in a list."""
    start = time.process_time()

    heading_row = headings.read_headings(row)

    assert heading_row.faults
    assert len(" ".join(heading_row.faults)) < 1_500
    assert time.process_time() - start < MAX_SECONDS


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [(6, "1 more heading is wrong."), (8, "3 more headings are wrong.")],
    ids=["one more", "three more"],
)
def test_wrong_headings_that_are_not_listed_are_counted(wrong: int, sentence: str) -> None:
    """The merchant knows that there is more to correct."""
    heading_row = headings.read_headings(["identifier", *(f"x{number}" for number in range(wrong))])

    assert heading_row.faults[5] == sentence
