"""The table of functions, infra/functions.yaml, agrees with the functions in main.py."""

from __future__ import annotations

import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import main
from infra import function_table
from infra.function_table import InvalidTable

if TYPE_CHECKING:
    from pathlib import Path

TABLE = function_table.read_table()
USED_CLIENT = re.compile(r"\bclients\.(\w+)\(\)")


def find_routes(name: str) -> tuple[Any, ...]:
    """Returns the routes of a function; only an http function has any."""
    return getattr(getattr(main, name), "routes", ())


def read_source(name: str) -> str:
    """Returns the text of a function's module. An http function is made from the operations in its module."""
    modules = {route.operation.__module__ for route in find_routes(name)} or {getattr(main, name).__module__}
    return "".join(inspect.getsource(sys.modules[module]) for module in sorted(modules))


def matches(template: str, path: str) -> bool:
    """Tells whether a path template of the load balancer matches `path`.

    https://cloud.google.com/load-balancing/docs/url-map-concepts#wildcards-in-path-templates
    """
    pattern = re.escape(template).replace(r"\*\*", ".*").replace(r"\*", "[^/]+")
    return re.fullmatch(pattern, path) is not None


def test_the_table_names_the_functions_of_main_in_alphabetical_order() -> None:
    """A function that is missing from the table is not deployed; one that is missing from main.py cannot start."""
    assert list(TABLE) == sorted(main.__all__)


@pytest.mark.parametrize("name", main.__all__)
def test_kind_and_topic_match_the_function(name: str) -> None:
    """The code decides how an event is decoded; the table decides which service sends it."""
    trigger = getattr(main, name).trigger

    assert (TABLE[name].kind, TABLE[name].topic) == (trigger.kind, trigger.topic)


@pytest.mark.parametrize("name", main.__all__)
def test_paths_match_exactly_the_routes_of_the_function(name: str) -> None:
    """The load balancer uses the first template that matches. load_balancer.tf sorts narrow templates first."""
    templates = sorted((path for entry in TABLE.values() for path in entry.paths), reverse=True)
    paths = [re.sub("<[^>]+>", "00000000-0000-0000-0000-000000000000", route.path) for route in find_routes(name)]

    chosen = [next((template for template in templates if matches(template, path)), None) for path in paths]

    assert set(chosen) == set(TABLE[name].paths)


@pytest.mark.parametrize("name", main.__all__)
def test_a_function_has_access_only_to_what_it_uses(name: str) -> None:
    """Every right that a function does not need helps an attacker who takes it over."""
    entry, source = TABLE[name], read_source(name)
    used = set(USED_CLIENT.findall(source))
    if not all(route.public for route in find_routes(name)):
        used.add("product_database")  # shared.access looks up there what a user may see

    assert {f"{database}_database" for database in entry.databases} == {
        client for client in used if client.endswith("_database")
    }
    assert bool(entry.bucket) == ("storage" in used)
    assert entry.kafka == ("kafka" in used or entry.kind == "worker")
    assert ("SENDGRID_API_KEY" in entry.secrets) == ("email_service" in used)
    assert entry.signs_urls == (".sign_url(" in source)


ENTRY = "sweep: {kind: schedule, memory_mb: 512, threads: 1, max_instances: 1"


@pytest.mark.parametrize(
    ("rest", "error"),
    [
        pytest.param(", time_out: 5}", "sweep: Object contains unknown field `time_out`", id="unknown key"),
        pytest.param(", timeout_seconds: 5s}", "sweep: Expected `int | null`, got `str`", id="wrong type"),
        pytest.param(", databases: [servce]}", "sweep: Invalid enum value 'servce'", id="unknown database"),
    ],
)
def test_an_error_in_the_table_is_reported(tmp_path: Path, rest: str, error: str) -> None:
    """A misspelled key that is ignored would use the default in production."""
    (tmp_path / "functions.yaml").write_text(ENTRY + rest)

    with pytest.raises(InvalidTable, match=re.escape(error)):
        function_table.read_table(tmp_path / "functions.yaml")


def test_a_missing_key_is_reported(tmp_path: Path) -> None:
    """A function's size has no default."""
    (tmp_path / "functions.yaml").write_text("sweep: {kind: schedule}")

    with pytest.raises(InvalidTable, match="sweep: Object missing required field `memory_mb`"):
        function_table.read_table(tmp_path / "functions.yaml")
