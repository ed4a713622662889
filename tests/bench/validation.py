"""How fast an import file is read and validated, on one core, against the csv module alone on the same file."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

from functions.imports.file.validation import open_file

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 80_000  # with 65 bytes each that is the largest file that an import takes
ROUNDS = 5  # the best one counts: what else the machine does can only slow a round
REFUSED_ROW = b"x,\n"  # after the first of them, each is a twin


def a_file() -> bytes:
    """5 MB of good rows: identifier, price, stock and article code, as shops write them."""
    rows = (
        f"PRODUCT-{row:010d}-AB,{row % 100_000 / 100:.2f},{row % 1_000},ART-{row:08d}-CODE-WAREHOUSE-XY\r\n"
        for row in range(ROWS)
    )
    return "".join(("identifier,price,stock_on_hand,article_code\r\n", *rows)).encode()


def best_seconds(step: Callable[[], int], rows: int) -> float:
    """The shortest time of ROUNDS in which `step` dealt with exactly `rows` rows."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        counted = step()
        best = min(best, time.perf_counter() - start)
        if counted != rows:
            raise RuntimeError(f"{counted} rows instead of {rows}")
    return best


def measure() -> dict[str, dict[str, object]]:
    """Rows a second of good and of refused rows, and the ratio to csv.reader: name, value, unit, goal, met."""
    content = a_file()
    refused = b"identifier,price\n" + REFUSED_ROW * (len(content) // len(REFUSED_ROW))
    refused_rows = refused.count(b"\n") - 1

    def validated(file: bytes) -> int:
        return sum(len(piece.rows) + len(piece.refused) for piece in open_file(file).pieces())

    seconds = best_seconds(lambda: validated(content), ROWS)
    seconds_refused = best_seconds(lambda: validated(refused), refused_rows)
    seconds_csv = best_seconds(lambda: sum(1 for _ in csv.reader(io.StringIO(content.decode()))) - 1, ROWS)
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
    for name, measured in measure().items():
        print(f"{name:28} {measured['value']:>10,} {measured['unit']:20} {measured['goal']:>10}  {measured['met']}")
