"""Measures how fast an import file is read and validated on one core, compared with csv.reader on the same file."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

from functions.imports.file.validation import open_file

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 80_000  # of 65 bytes each: the largest file that an import accepts
ROUNDS = 5  # the best one counts: other load on the machine can only slow a round down
REFUSED_ROW = b"x,\n"  # all but the first repeat its identifier


def make_file() -> bytes:
    """Makes 5 MB of good rows: identifier, price, stock and article code, as webshops write them."""
    rows = (
        f"PRODUCT-{row:010d}-AB,{row % 100_000 / 100:.2f},{row % 1_000},ART-{row:08d}-CODE-WAREHOUSE-XY\r\n"
        for row in range(ROWS)
    )
    return "".join(("identifier,price,stock_on_hand,article_code\r\n", *rows)).encode()


def measure_best_seconds(step: Callable[[], int], rows: int) -> float:
    """Returns the shortest of ROUNDS times of `step`, which returns the number of rows that it processed.

    Raises RuntimeError if that is not `rows`.
    """
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        processed = step()
        best = min(best, time.perf_counter() - start)
        if processed != rows:
            raise RuntimeError(f"{processed} rows instead of {rows}")
    return best


def measure() -> dict[str, dict[str, object]]:
    """Returns the value, unit and goal of each figure by its name, and whether the goal is met."""
    content = make_file()
    refused = b"identifier,price\n" + REFUSED_ROW * (len(content) // len(REFUSED_ROW))
    refused_rows = refused.count(b"\n") - 1

    def count_validated_rows(file: bytes) -> int:
        return sum(len(piece.rows) + len(piece.refused) for piece in open_file(file).validate())

    seconds = measure_best_seconds(lambda: count_validated_rows(content), ROWS)
    seconds_refused = measure_best_seconds(lambda: count_validated_rows(refused), refused_rows)
    seconds_csv = measure_best_seconds(lambda: sum(1 for _ in csv.reader(io.StringIO(content.decode()))) - 1, ROWS)
    speed, speed_refused, ratio = ROWS / seconds, refused_rows / seconds_refused, seconds / seconds_csv
    return {
        "validation": {"value": round(speed), "unit": "rows/s", "goal": ">= 100000", "met": speed >= 100_000},
        "validation of refused rows": {
            "value": round(speed_refused),
            "unit": "rows/s",
            "goal": ">= 100000",
            "met": speed_refused >= 100_000,
        },
        "validation to csv.reader": {
            "value": round(ratio, 1),
            "unit": "times its duration",
            "goal": "<= 12",
            "met": ratio <= 12,
        },
    }


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:28} {figure['value']:>10,} {figure['unit']:20} {figure['goal']:>10}  {figure['met']}")
