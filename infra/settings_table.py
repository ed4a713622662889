"""`python -m infra.settings_table`: writes the README's table of settings, made from shared/settings.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
from msgspec.structs import FieldInfo

from shared.settings import DatabaseSettings, FromEnvironment, Settings, extra

README = Path(__file__).parents[1] / "README.md"
TABLE_IN_README = re.compile(r"(?<=^## Settings\n\n)(\|.*\n)+", re.MULTILINE)


def main() -> None:
    """Replaces the table in the README."""
    text, replaced = TABLE_IN_README.subn(lambda _: table(), README.read_text())
    if not replaced:
        raise SystemExit(f"{README} has no table below the heading Settings.")
    README.write_text(text)


def table() -> str:
    """One row per setting; the same setting of several databases is one row."""
    variables: dict[str, list[str]] = {}
    for variable, meaning in settings(Settings):
        variables.setdefault(meaning, []).append(f"`{variable}`")
    lines = ["| variable | what it is | allowed | default |", "|---|---|---|---|"]
    lines += [f"| {', '.join(names)} | {meaning} |" for meaning, names in variables.items()]
    return "".join(f"{line}\n" for line in lines)


def settings(struct: type[FromEnvironment], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every variable, and the other cells of its row."""
    for field in msgspec.structs.fields(struct):
        variable = f"{prefix}{field.name.upper()}"
        if field.type is DatabaseSettings:
            yield from settings(DatabaseSettings, f"{variable}_")
        else:
            description = next(meta.description for meta in get_args(field.type) if getattr(meta, "description", None))
            yield variable, f"{description} | {extra(field)['allowed']} | {default_of(field)}"


def default_of(field: FieldInfo) -> str:
    """The default as somebody would write it, or nothing."""
    written = ("on" if field.default else "off") if isinstance(field.default, bool) else str(field.default)
    return f"`{written}`" if written else ""


if __name__ == "__main__":
    main()
