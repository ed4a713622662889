"""Which libraries rendering loads, and the media types and endings of its files."""

from __future__ import annotations

import subprocess
import sys

import pytest

from functions.exports.rendering import content_type, ending

HEAVY = ("openpyxl", "fpdf", "fontTools", "pymupdf_fonts", "cvttf_NotoSansCJK_Regular", "PIL")


@pytest.mark.parametrize("module", ["rendering", "writers.csv_file", "writers.xlsx_file", "writers.pdf_file"])
def test_heavy_libraries_are_loaded_only_when_their_file_is_made(module: str) -> None:
    """The first small CSV after a cold start must not wait for the libraries of PDF."""
    print_loaded = f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    code = f"import sys, functions.exports.{module}; {print_loaded}"

    process = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert process.stdout.split() == []


@pytest.mark.parametrize(
    ("file_type", "media_type", "file_ending"),
    [
        pytest.param("csv", "text/csv; charset=utf-8", ".csv", id="CSV"),
        pytest.param("XLSX", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx", id="XLSX"),
        pytest.param("Pdf", "application/pdf", ".pdf", id="PDF"),
    ],
)
def test_a_file_type_has_its_media_type_and_ending(file_type: str, media_type: str, file_ending: str) -> None:
    """The file type may be in upper or lower case."""
    assert (content_type(file_type), ending(file_type)) == (media_type, file_ending)
