"""`python -m infra.settings_table`: updates the table of settings in the README from shared/settings.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
from msgspec.structs import FieldInfo

from shared.settings import DatabaseSettings, FromEnvironment, Settings, extra_of

README = Path(__file__).parents[1] / "README.md"
TABLE_IN_README = re.compile(r"(?<=^## Settings\n\n)(\|.*\n)+", re.MULTILINE)


def main() -> None:
    """Replaces the table in the README."""
    text, replacements = TABLE_IN_README.subn(lambda _: render_table(), README.read_text())
    if not replacements:
        raise SystemExit(f"{README} has no table below the heading Settings.")
    README.write_text(text)


def render_table() -> str:
    """Renders one row per setting. A setting that several databases have is one row."""
    variables: dict[str, list[str]] = {}  # by the other cells of their row
    for variable, cells in list_settings(Settings):
        variables.setdefault(cells, []).append(f"`{variable}`")
    lines = ["| variable | what it is | allowed | default |", "|---|---|---|---|"]
    lines += [f"| {', '.join(names)} | {cells} |" for cells, names in variables.items()]
    return "".join(f"{line}\n" for line in lines)


def list_settings(struct: type[FromEnvironment], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields every variable with the other cells of its row."""
    for field in msgspec.structs.fields(struct):
        variable = f"{prefix}{field.name.upper()}"
        if field.type is DatabaseSettings:
            yield from list_settings(DatabaseSettings, f"{variable}_")
        else:
            description = next(meta.description for meta in get_args(field.type) if getattr(meta, "description", None))
            yield variable, f"{description} | {extra_of(field)['allowed']} | {render_default(field)}"


def render_default(field: FieldInfo) -> str:
    """Renders the default as it is written in an environment variable, or "" for an empty default."""
    value = ("on" if field.default else "off") if isinstance(field.default, bool) else str(field.default)
    return f"`{value}`" if value else ""


if __name__ == "__main__":
    main()
