"""Dependencies: what is imported is declared, what is declared is pinned with hashes."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(main.__file__).parent
OURS = {"main", "functions", "shared", "infra", "tests"}

PINNED = re.compile(
    r"""
    ^(?P<name>[a-z0-9-]+) == (?P<version>[^\s;]+) (?P<marker>\ ;\ [^\\\n]+)? \ \\\n
    (?:\ {4}--hash=sha256:[0-9a-f]{64}\ \\\n)*
    \ {4}--hash=sha256:[0-9a-f]{64}\n
    """,
    re.MULTILINE | re.VERBOSE,
)


def declared(file: str) -> set[str]:
    """The packages that a .in file names, without their extras."""
    lines = (ROOT / file).read_text().splitlines()
    return {normalized(re.split(r"[\[=<>~; ]", line)[0]) for line in lines if line and line[0] not in "#-"}


def normalized(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/ ."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(file: str) -> set[tuple[str, str]]:
    """The packages of a .txt file that are pinned and have hashes, with their versions."""
    return {(match["name"], match["version"]) for match in PINNED.finditer((ROOT / file).read_text())}


def requirement_lines(file: str) -> list[str]:
    """Every line of a .txt file that begins a requirement, or is an option of pip."""
    return [line for line in (ROOT / file).read_text().splitlines() if line and line[0] not in "# "]


def imported_packages(*places: str) -> dict[str, str]:
    """The packages that the files below `places` import, each with one of the files."""
    files = [
        path for place in places for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    return {
        package_of(module): str(path.relative_to(ROOT)) for path in sorted(files) for module in imported_modules(path)
    }


def imported_modules(path: Path) -> Iterator[str]:
    """The modules of others that a file imports anywhere. Each name imported from a package may be one, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        modules = [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else names
        yield from (name for name in modules if name.partition(".")[0] not in OURS | sys.stdlib_module_names)


def package_of(module: str) -> str:
    """The installed package that a module, or a name in a module, comes from."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if package := packages().get(".".join(parts[:length])):
            return package
    raise LookupError(f"No installed package has the module {module}.")


@cache
def packages() -> dict[str, str]:
    """The package of each installed module. Several packages may share a namespace, like google.cloud."""
    return {
        ".".join(
            (file.parent if file.stem == "__init__" else file.parent / file.name.partition(".")[0]).parts
        ): normalized(distribution.name)
        for distribution in metadata.distributions()
        for file in distribution.files or ()
        if file.suffix in (".py", ".so")
    }


def test_what_the_functions_import_is_declared() -> None:
    """A package that only another package needs may disappear with that package's next version."""
    found = imported_packages("main.py", "functions", "shared")

    assert not {package: file for package, file in found.items() if package not in declared("requirements.in")}


def test_what_the_functions_do_not_import_is_not_declared() -> None:
    """Each package is installed in every function."""
    assert not declared("requirements.in") - imported_packages("main.py", "functions", "shared").keys()


def test_what_tests_and_the_local_stack_import_is_declared() -> None:
    found = imported_packages("infra", "tests")
    known = declared("requirements.in") | declared("requirements-dev.in")

    assert not {package: file for package, file in found.items() if package not in known}


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_every_package_is_pinned_with_its_hashes(name: str) -> None:
    """The same source is the same program tomorrow; pip and Google's builder then accept nothing without a hash."""
    assert len(pinned(f"{name}.txt")) == len(requirement_lines(f"{name}.txt"))
    assert declared(f"{name}.in") <= {package for package, _ in pinned(f"{name}.txt")}, "run `make lock`"


def test_tests_run_on_what_is_deployed() -> None:
    """Both locks have the same versions."""
    assert pinned("requirements.txt") < pinned("requirements-dev.txt")


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_names_no_server(file: str) -> None:
    """Where packages come from is a setting of the machine."""
    assert "://" not in (ROOT / file).read_text()
