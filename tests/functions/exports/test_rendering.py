"""What rendering loads, and what it says of its files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from functions.exports.rendering import content_type, ending

HEAVY = ("openpyxl", "fpdf", "fontTools", "pymupdf_fonts", "cvttf_NotoSansCJK_Regular", "PIL")


@pytest.mark.parametrize("module", ["rendering", "writers.csv_file", "writers.xlsx_file", "writers.pdf_file"])
def test_heavy_libraries_wait_until_their_file_is_made(module: str) -> None:
    """The first small CSV after a cold start is not kept waiting by what draws a PDF."""
    loaded = f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    code = f"import sys, functions.exports.{module}; {loaded}"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("file_type", "media_type", "dotted"),
    [
        pytest.param("csv", "text/csv; charset=utf-8", ".csv", id="CSV"),
        pytest.param("XLSX", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx", id="XLSX"),
        pytest.param("Pdf", "application/pdf", ".pdf", id="PDF"),
    ],
)
def test_a_file_type_has_its_media_type_and_ending(file_type: str, media_type: str, dotted: str) -> None:
    """In whatever case it was asked for."""
    assert (content_type(file_type), ending(file_type)) == (media_type, dotted)
