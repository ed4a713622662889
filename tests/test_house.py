"""The rules of the project's structure. The README gives the reasons; a test names each place that breaks a rule."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(main.__file__).parent

# The only package that may import SDKs.
CLIENTS = "shared.clients"
SDKS = ("google.cloud", "google.api_core", "google.auth", "confluent_kafka", "sendgrid", "python_http_client", "pg8000")

# Together they take more than a second to import, and most functions use few of them.
HEAVY_LIBRARIES = (
    "google.cloud.pubsub_v1",
    "google.cloud.storage",
    "google.cloud.sql.connector",
    "confluent_kafka",
    "fpdf",
    "openpyxl",
    "sendgrid",
)

# The only modules that may read the environment. functions-framework imports all others in a parent that forks.
ENVIRONMENT_READERS = {"main", "shared.settings"}

FEATURES = ("imports", "exports", "buy_orders")
FUNCTION_DECORATORS = {"kafka_function", "storage_function", "scheduled_function", "worker_function", "http_function"}
ALLOWED_USES = {("buy_orders", "exports")}
CROSS_FEATURE_MODULES = ("sweep", "internal_api")
INTERFACE_MODULES = ("recovery", "operations")  # of each feature

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
MEANINGLESS_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc", "tools"}


def deployed_modules() -> dict[str, Path]:
    """The modules that are deployed, by name: main.py, functions/ and shared/."""
    paths = [ROOT / "main.py", *(ROOT / "functions").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    return {module_name(path): path for path in sorted(paths)}


def module_name(path: Path) -> str:
    """The module name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    """Parses a file."""
    return ast.parse(path.read_text(), str(path))


def find_imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields each module that is imported anywhere in `tree`, with its line. An imported name counts as a module."""
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


def find_nodes_run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields the nodes of `tree` that run when the module is imported: all but the bodies of its functions."""
    remaining: list[ast.AST] = [tree]
    while remaining:
        node = remaining.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            remaining += [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif not isinstance(node, ast.Lambda) and not is_main_guard(node):
            remaining += ast.iter_child_nodes(node)


def is_main_guard(node: ast.AST) -> bool:
    """Whether `node` is `if __name__ == "__main__"`, which does not run when the module is imported."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def find_forbidden_imports(*packages: str, is_forbidden: Callable[[str, str], bool]) -> str:
    """One line for each import in the modules of `packages` for which `is_forbidden(module, imported)` is true."""
    return "\n".join(
        f"{name}:{line} imports {imported}"
        for name, path in deployed_modules().items()
        if is_in(name, packages)
        for imported, line in find_imports(parse(path))
        if is_forbidden(name, imported)
    )


def feature_of(module: str) -> str:
    """The folder in functions/ that `module` is in, or the module's own name if it is in functions/ itself."""
    return module.removeprefix("functions.").partition(".")[0]


def test_a_feature_uses_shared_and_never_another_feature() -> None:
    """A feature can be read and changed by itself. Buy orders use exports, because they send exported files."""

    def uses_another_feature(name: str, imported: str) -> bool:
        if feature_of(name) in CROSS_FEATURE_MODULES or not is_in(imported, "functions") or imported == "functions":
            return False
        return feature_of(name) != feature_of(imported) and (feature_of(name), feature_of(imported)) not in ALLOWED_USES

    assert not find_forbidden_imports("functions", is_forbidden=uses_another_feature)


def test_modules_across_features_use_only_their_recovery_and_operations() -> None:
    """These two modules of a feature are its interface for sweep and internal_api."""

    def uses_an_inner_module(name: str, imported: str) -> bool:
        if feature_of(name) not in CROSS_FEATURE_MODULES:
            return False
        feature, _, module = imported.removeprefix("functions.").partition(".")
        return feature in FEATURES and bool(module) and not is_in(module, INTERFACE_MODULES)

    assert not find_forbidden_imports("functions", is_forbidden=uses_an_inner_module)


def test_functions_never_import_main() -> None:
    """main.py imports the functions. If one imported main, also in its main guard, the two would form a circle."""
    assert not find_forbidden_imports("functions", is_forbidden=lambda _, imported: is_in(imported, "main"))


def test_shared_never_imports_functions() -> None:
    """What is shared does not depend on the modules that use it."""
    assert not find_forbidden_imports("shared", is_forbidden=lambda _, imported: is_in(imported, ("functions", "main")))


def test_deployed_modules_import_neither_tests_nor_the_local_stack() -> None:
    """Both are missing in a deployment."""
    packages = ("main", "functions", "shared")

    assert not find_forbidden_imports(*packages, is_forbidden=lambda _, imported: is_in(imported, ("infra", "tests")))


def test_the_environment_is_read_in_one_place() -> None:
    """The settings are one frozen value, and one page documents all of them."""
    variables = ("os.environ", "os.environb", "os.getenv")

    offences = [
        f"{name}:{node.lineno} reads {ast.unparse(node)}"
        for name, path in deployed_modules().items()
        if name not in ENVIRONMENT_READERS
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in variables
    ]

    assert not offences
    assert not find_forbidden_imports(
        "main", "functions", "shared", is_forbidden=lambda _, imported: imported in variables
    )


def test_nothing_is_connected_or_configured_at_import() -> None:
    """functions-framework imports main.py in a parent and forks: a client made there does not work in the worker."""
    offences = [
        f"{name}:{node.lineno} calls {ast.unparse(node.func)} at import"
        for name, path in deployed_modules().items()
        for node in find_nodes_run_at_import(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("clients.", "settings"))
    ]

    assert not offences


def test_importing_main_opens_no_connection_and_starts_no_thread() -> None:
    """main.py can be imported with an empty environment and without a network."""
    code = """
        import socket, threading
        def refuse(*_): raise AssertionError("a socket is opened at import")
        socket.socket.connect = socket.getaddrinfo = refuse
        import main
        print([thread.name for thread in threading.enumerate()])
    """

    assert run_python(code) == "['MainThread']"


@pytest.mark.parametrize("library", HEAVY_LIBRARIES)
def test_a_heavy_library_is_imported_where_it_is_used(library: str) -> None:
    """Every function imports main.py, so each of them waits for everything that main.py loads."""
    assert library not in modules_loaded_by_main()


@cache
def modules_loaded_by_main() -> set[str]:
    """Every module that `import main` loads."""
    return set(run_python("import sys, main; print(*sys.modules)").split())


def run_python(code: str) -> str:
    """Runs `code` in a new interpreter, with an empty environment, and returns what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    completed = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_only_the_clients_import_sdks() -> None:
    """Only they know the meaning of an SDK's errors: everything else would work with another SDK."""

    def is_sdk_outside_of_the_clients(name: str, imported: str) -> bool:
        return is_in(imported, SDKS) and not is_in(name, CLIENTS)

    assert not find_forbidden_imports("main", "functions", "shared", is_forbidden=is_sdk_outside_of_the_clients)


@pytest.mark.parametrize("name", main.__all__)
def test_a_function_has_the_name_of_its_module(name: str) -> None:
    """functions-framework finds a function by its own name; Terraform and the tests find it by the module's."""
    function = getattr(main, name)

    assert function.__name__ == name
    assert [module for module in deployed_modules() if module.rpartition(".")[2] == name]


def test_main_has_every_function_and_nothing_else() -> None:
    """A function that is missing in main.py would never be deployed."""
    function_modules = {
        name.rpartition(".")[2]
        for name, path in deployed_modules().items()
        if is_in(name, "functions")
        if any(imported.rpartition(".")[2] in FUNCTION_DECORATORS for imported, _ in find_imports(parse(path)))
    }

    assert function_modules == set(main.__all__)
    assert list(main.__all__) == sorted(main.__all__)


def test_the_top_level_has_only_known_files() -> None:
    """A reader who opens the project sees its parts and nothing else."""
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith((".", "__pycache__"))}

    assert names <= TOP_LEVEL


def test_no_file_has_a_meaningless_name() -> None:
    """A name that fits every content says nothing about the content."""
    files = [path for folder in ("functions", "shared", "infra", "tests") for path in (ROOT / folder).rglob("*.py")]

    assert not [str(path.relative_to(ROOT)) for path in files if path.stem in MEANINGLESS_NAMES]
