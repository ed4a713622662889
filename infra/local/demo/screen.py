"""The demo's output: lines of a limited width, and progress lines that are overwritten on a terminal."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

WIDTH = 100  # characters
FAILED = "NOT AS EXPECTED"
ERASE_REST = "\x1b[K"  # makes a terminal erase the rest of the line: the line before may have been longer


def print_title(text: str) -> None:
    """Begins a chapter."""
    print(f"\n── {text} {'─' * (WIDTH - len(text) - 4)}", flush=True)


def print_paragraph(text: str) -> None:
    """Prints a sentence. Wraps it at WIDTH, but never inside a path or a URI."""
    print(
        textwrap.fill(
            text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        ),
        flush=True,
    )


def print_difference(text: str) -> None:
    """Prints a result that differs from the expected one."""
    print_paragraph(f"{FAILED}: {text}")


def print_progress(line: str) -> None:
    """Prints a line that the next line overwrites. Prints nothing when the output is not a terminal."""
    if sys.stdout.isatty():
        print(f"\r{line}{ERASE_REST}", end="", flush=True)


def print_line(line: str) -> None:
    """Prints a line that stays. It overwrites a progress line."""
    print(f"\r{line}{ERASE_REST}" if sys.stdout.isatty() else line, flush=True)


def shorten(path: Path) -> str:
    """Returns the path relative to the working directory, where it is below that, otherwise the whole path."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
