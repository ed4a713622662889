"""What the story looks like: at most so wide, lines that move on a terminal and stand still elsewhere."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

WIDTH = 100  # characters
REST_ERASED = "\x1b[K"  # a terminal clears what is behind: the line before may have been longer


def title(text: str) -> None:
    """Begins a chapter."""
    print(f"\n── {text} {'─' * (WIDTH - len(text) - 4)}", flush=True)


def paragraph(text: str) -> None:
    """Prints a sentence, broken where it is too long; a long path or URI stays whole."""
    print(
        textwrap.fill(
            text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        ),
        flush=True,
    )


def fault(text: str) -> None:
    """Says what did not come out as it should."""
    paragraph(f"NOT AS EXPECTED: {text}")


def passing(line: str) -> None:
    """Shows a line that the next one takes the place of; on a terminal alone."""
    if sys.stdout.isatty():
        print(f"\r{line}{REST_ERASED}", end="", flush=True)


def lasting(line: str) -> None:
    """Shows a line that stays, in the place of one that was passing."""
    print(f"\r{line}{REST_ERASED}" if sys.stdout.isatty() else line, flush=True)


def short(path: Path) -> str:
    """A path, from the working directory on where it lies in there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
