"""The deployment: what the table of functions in infra/functions.tf says is what the functions themselves say."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hcl2.utils import SerializationOptions

import main
from infra import check
from shared import messages, settings

ROOT = Path(main.__file__).parent
INFRA = ROOT / "infra"
PLAIN = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)

DATABASES = {"service_database": "service", "product_database": "product", "legacy_database": "legacy"}


def local_values(file: str) -> dict[str, Any]:
    """The locals of one file, as far as they are plain values."""
    with (INFRA / file).open() as text:
        blocks = hcl2.load(text, serialization_options=PLAIN)["locals"]
    return {name: value for block in blocks for name, value in block.items()}


TABLE: dict[str, dict[str, Any]] = local_values("functions.tf")["functions"]
HTTP = [name for name in main.__all__ if getattr(main, name).trigger.kind == "http"]


def source_of(module: str) -> ast.Module | None:
    """A module of ours, parsed."""
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return ast.parse(candidate.read_text())
    return None


def imported(tree: ast.Module) -> set[str]:
    """The modules of shared/ that a module imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shared"):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def path_of(function: str) -> Path:
    """The file of `function`."""
    return next((ROOT / "functions").rglob(f"{function}.py"))


def clients_of(function: str) -> set[str]:
    """Which clients the module of `function`, and the modules of shared/ that it stands on, ask for by name."""
    module_of_function = ".".join(path_of(function).relative_to(ROOT).with_suffix("").parts)
    asked, seen, waiting = set(), set(), {module_of_function}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        # Every event function stands on delivery, which has a client of its own, for dead letters.
        if (tree := source_of(module)) and module != "shared.delivery" and not module.startswith("shared.clients"):
            waiting |= imported(tree) - seen
            asked |= {
                node.func.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "clients"
            }
    return asked


def covers(template: str, path: str) -> bool:
    """Whether a path template of the load balancer matches `path`.

    https://cloud.google.com/load-balancing/docs/url-map-concepts#wildcards-in-path-templates
    """
    pattern = re.escape(template).replace(r"\*\*", ".*").replace(r"\*", "[^/]+")
    return re.fullmatch(pattern, path) is not None


def test_terraform_names_the_functions_of_main():
    """One more function is one module, one line in main.py, one entry here."""
    assert set(TABLE) == set(main.__all__)


def test_every_function_has_its_test():
    """A function's test is found by the function's name."""
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "functions").rglob("test_*.py")}

    assert set(main.__all__) <= tests


def test_the_table_is_sorted_by_name():
    """Who looks for a function finds it."""
    assert list(TABLE) == sorted(TABLE)


@pytest.mark.parametrize("name", main.__all__)
def test_a_function_is_called_by_what_it_says_of_itself(name):
    """Kind and topic stand at the function; the deployment repeats them."""
    trigger = getattr(main, name).trigger

    assert (TABLE[name]["kind"], TABLE[name].get("topic", "")) == (trigger.kind, trigger.topic)


@pytest.mark.parametrize("name", main.__all__)
def test_a_function_may_reach_what_it_asks_for_and_nothing_else(name):
    """Least privilege, and no function that is refused what it needs."""
    entry, asked = TABLE[name], clients_of(name)

    assert set(entry.get("databases", ())) == {DATABASES[client] for client in asked & set(DATABASES)}
    assert bool(entry.get("bucket")) == ("storage" in asked)
    assert entry.get("kafka", False) == ("kafka" in asked or entry["kind"] == "worker")


def test_a_function_that_signs_urls_has_the_right_to():
    """A URL is signed in the name of the function's own account."""
    signing = {name for name in main.__all__ if ".signed_url(" in path_of(name).read_text()}

    assert {name for name, entry in TABLE.items() if entry.get("signs_urls")} == signing


@pytest.mark.parametrize("name", HTTP)
def test_the_load_balancer_leads_every_route_to_its_function(name):
    """The narrower template goes first; what no template covers would end at another function."""
    templates = sorted((path for entry in TABLE.values() for path in entry.get("paths", ())), reverse=True)
    for route in getattr(main, name).routes:
        path = re.sub("<[^>]+>", "00000000-0000-0000-0000-000000000000", route.path)

        chosen = next((template for template in templates if covers(template, path)), None)

        assert chosen in TABLE[name]["paths"], f"{route.method} {route.path} is led by {chosen}"


def test_every_topic_of_the_messages_is_there():
    """The bridge publishes to all of them; one that is missing would stop it."""
    topics = re.findall(r'^ +"(.+)",$', (INFRA / "topics.tf").read_text(), re.MULTILINE)

    assert sorted(topics) == sorted(messages.TOPICS)
    assert f'"{messages.DEAD_LETTERS}"' in (INFRA / "topics.tf").read_text()


class Recorded(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return default


def test_the_environment_is_what_the_settings_read():
    """A name that one of the two misspells would be a default in production."""
    environment = Recorded()
    settings.from_environment(environment)
    text = (INFRA / "settings.tf").read_text()
    given = set(re.findall(r"^ +([A-Z_]+) += ", text, re.MULTILINE))
    given |= {
        f"{name}{part}" for name in ("SERVICE", "PRODUCT", "LEGACY") for part in re.findall(r'\)}(_[A-Z_]+)"', text)
    }
    secret = set(re.findall('"([A-Z]+_[A-Z_]+)"', (INFRA / "secrets.tf").read_text()))
    secret |= {setting for entry in TABLE.values() for setting in entry.get("secrets", ())}

    assert given | secret <= environment.asked
    left_out = {
        name
        for name in environment.asked - given - secret
        if not name.endswith(("_DATABASE_URL", "_DATABASE_PASSWORD"))
    }
    assert not left_out, "a database is reached by its instance and an IAM login; everything else is given"


def test_alerts_look_for_what_the_functions_say():
    """An alert on a sentence that nobody logs any more would never go off."""
    phrases = re.findall(r'\\"(has [a-z ]+)\\"', (INFRA / "monitoring.tf").read_text())
    deployed = "".join(path.read_text() for folder in ("functions", "shared") for path in (ROOT / folder).rglob("*.py"))

    assert phrases
    assert not [phrase for phrase in phrases if phrase not in deployed]


def test_what_cannot_be_checked_is_said(monkeypatch, capsys, tmp_path):
    """A machine without Terraform passes the check, but not in silence."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TEST_SERVERS", raising=False)

    assert check.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "Terraform, format, validity and tests: NOT CHECKED, terraform is not installed",
        "Terraform, lint: NOT CHECKED, tflint is not installed",
    ]
