"""The house rules: what may stand where. The README says why; these tests say when a rule is broken, and by what."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import main

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(main.__file__).parent

# Where the world outside is known by its SDKs.
EDGE = "shared.clients"
SDKS = ("google.cloud", "google.api_core", "google.auth", "confluent_kafka", "sendgrid", "python_http_client", "pg8000")

# Together they take more than a second to import, and most functions use few of them.
HEAVY = (
    "google.cloud.pubsub_v1",
    "google.cloud.storage",
    "google.cloud.sql.connector",
    "confluent_kafka",
    "fpdf",
    "openpyxl",
    "sendgrid",
)

# Read from the environment once, by these alone. The framework imports everything else in a parent that forks.
READS_THE_ENVIRONMENT = {"main", "shared.settings"}

FEATURES = ("imports", "exports", "buy_orders")
MAKES_A_FUNCTION = {"kafka_function", "storage_function", "scheduled_function", "worker_function", "http_function"}
USES = {("buy_orders", "exports")}
ACROSS_FEATURES = ("sweep", "internal_api")

TOP_LEVEL = {
    "Makefile",
    "README.md",
    "functions",
    "infra",
    "main.py",
    "pyproject.toml",
    "requirements-dev.in",
    "requirements-dev.txt",
    "requirements.in",
    "requirements.txt",
    "shared",
    "tests",
}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "tools"}


def modules() -> dict[str, Path]:
    """What is deployed: main.py, functions/ and shared/, by module name."""
    paths = [ROOT / "main.py", *(ROOT / "functions").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    return {name_of(path): path for path in sorted(paths)}


def name_of(path: Path) -> str:
    """A file's module name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in `tree`, with its line. From a package its names count as modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def is_in(module: str, packages: str | tuple[str, ...]) -> bool:
    """Whether `module` is one of `packages` or in one of them."""
    names = (packages,) if isinstance(packages, str) else packages
    return any(module == name or module.startswith(f"{name}.") for name in names)


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes of `tree` that run when the module is imported: all but the bodies of its functions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            waiting += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif not isinstance(node, ast.Lambda) and not is_main_guard(node):
            waiting += ast.iter_child_nodes(node)


def is_main_guard(node: ast.AST) -> bool:
    """Whether `node` is `if __name__ == "__main__"`: nothing that imports the module runs it."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def offences(broken: Iterator[str]) -> str:
    """One line an offence."""
    return "\n".join(broken)


def feature_of(module: str) -> str:
    """The room in functions/ that `module` is in, or its own name where it stands in functions/ itself."""
    return module.removeprefix("functions.").partition(".")[0]


def test_a_feature_uses_shared_and_never_another_feature() -> None:
    """A feature can be read and changed by itself. Buy orders use exports, whose files they send."""
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        if is_in(name, "functions") and feature_of(name) not in ACROSS_FEATURES
        for imported, line in imports(tree_of(path))
        if is_in(imported, "functions") and imported != "functions"
        if (feature_of(name), feature_of(imported)) not in {(feature_of(name), feature_of(name)), *USES}
    )


def test_what_crosses_features_uses_their_recovery_and_operations_alone() -> None:
    """Each feature says in these two modules what others may ask of it."""
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        if is_in(name, "functions") and feature_of(name) in ACROSS_FEATURES
        for imported, line in imports(tree_of(path))
        if is_in(imported, "functions") and feature_of(imported) in FEATURES
        if len(imported.split(".")) > len(("functions", "feature"))
        if imported.split(".")[2] not in ("recovery", "operations")
    )


def test_shared_never_imports_functions():
    """What is shared knows nothing of who uses it."""
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        if is_in(name, "shared")
        for imported, line in imports(tree_of(path))
        if is_in(imported, ("functions", "main"))
    )


def test_what_is_deployed_imports_neither_tests_nor_the_local_stack():
    """Both are left out of what is deployed."""
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        for imported, line in imports(tree_of(path))
        if is_in(imported, ("infra", "tests"))
    )


def test_the_environment_is_read_in_one_place():
    """Settings are one frozen value: what a function is told can be read in one page."""
    assert not offences(
        f"{name}:{node.lineno} reads {ast.unparse(node)}"
        for name, path in modules().items()
        if name not in READS_THE_ENVIRONMENT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb", "os.getenv")
    )
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        for imported, line in imports(tree_of(path))
        if imported in ("os.environ", "os.environb", "os.getenv")
    )


def test_nothing_is_connected_or_configured_at_import():
    """The framework imports main.py in a parent and forks: a client that was made there is dead in the worker."""
    assert not offences(
        f"{name}:{node.lineno} calls {ast.unparse(node.func)} at import"
        for name, path in modules().items()
        for node in at_import(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("clients.", "settings"))
    )


def test_importing_main_reads_no_database_no_broker_and_no_cloud():
    """With no environment at all, and no network, main.py is imported and starts no thread."""
    code = """
        import socket, threading
        def refused(*_): raise AssertionError("somebody opens a socket at import")
        socket.socket.connect = socket.getaddrinfo = refused
        import main
        print([thread.name for thread in threading.enumerate()])
    """
    assert said_by(code) == "['MainThread']"


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_where_it_is_used(library):
    """Every function imports main.py, so all of them pay for what main.py loads."""
    assert library not in loaded_by_main()


@cache
def loaded_by_main() -> set[str]:
    """Every module that `import main` loads."""
    return set(said_by("import sys, main; print(*sys.modules)").split())


def said_by(code: str) -> str:
    """What a fresh interpreter prints."""
    lines = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_sdks_stop_at_the_clients():
    """One place knows which error of an SDK means what; everything else would still work with another one."""
    assert not offences(
        f"{name}:{line} imports {imported}"
        for name, path in modules().items()
        if not is_in(name, EDGE)
        for imported, line in imports(tree_of(path))
        if is_in(imported, SDKS)
    )


@pytest.mark.parametrize("name", main.__all__)
def test_a_function_is_called_like_its_module(name):
    """The framework finds a function by its own name; Terraform and the tests by the module's."""
    function = getattr(main, name)

    assert function.__name__ == name
    assert [module for module in modules() if module.rpartition(".")[2] == name]


def test_main_has_every_function_and_nothing_else() -> None:
    """A module that makes a function and is not named in main.py would never be deployed."""
    found = {
        name.rpartition(".")[2]
        for name, path in modules().items()
        if is_in(name, "functions")
        if any(imported.rpartition(".")[2] in MAKES_A_FUNCTION for imported, _ in imports(tree_of(path)))
    }

    assert found == set(main.__all__)
    assert list(main.__all__) == sorted(main.__all__)


def test_the_top_level_holds_what_it_may():
    """Who opens the project sees what it is made of, and no more."""
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__pycache__"))}

    assert found <= TOP_LEVEL


def test_a_file_is_named_by_what_is_in_it():
    """A name that fits everything tells nothing."""
    files = [path for folder in ("functions", "shared", "infra", "tests") for path in (ROOT / folder).rglob("*.py")]

    assert not [str(path.relative_to(ROOT)) for path in files if path.stem in SAYS_NOTHING]
