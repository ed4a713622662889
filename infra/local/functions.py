"""The functions that the local stack runs: the table (infra/functions.yaml) names them, main.py contains them."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from infra import function_table
from infra.function_table import Entry

SOURCE_VARIABLE = "FUNCTION_SOURCE"  # the functions framework's name for the file with the functions
TABLE_VARIABLE = "FUNCTION_TABLE"  # the file that describes the functions of another source
MAX_THREADS = 4  # of one function: more threads only compete for the one database server (measured)


@dataclass(frozen=True)
class Route:
    """A path of the HTTP API."""

    method: str
    path: str  # a werkzeug rule


@dataclass(frozen=True)
class Function:
    """How the stack runs a function."""

    name: str
    kind: str  # http, kafka, storage, schedule or worker
    topic: str = ""  # of a "kafka" function
    routes: tuple[Route, ...] = ()  # of an "http" function
    threads: int = MAX_THREADS  # requests that its process serves at once
    clients: tuple[str, ...] = ()  # names in shared.clients, which its process connects before it is ready


def source() -> Path:
    """Returns the file that contains the functions: main.py of the working directory, or FUNCTION_SOURCE."""
    return Path(os.environ.get(SOURCE_VARIABLE, "main.py")).resolve()


def table() -> Path:
    """Returns the file that describes the functions: infra/functions.yaml, or FUNCTION_TABLE."""
    return Path(os.environ.get(TABLE_VARIABLE, function_table.TABLE))


def load_main() -> ModuleType:
    """Imports the file that contains the functions. Raises what its import raises, and ImportError where it exits."""
    path = source()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:  # the settings are invalid
        raise ImportError(str(error)) from None
    return module


def discover() -> list[Function]:
    """Returns the functions of the table, in its order. Raises AttributeError where the source lacks one of them."""
    main = load_main()
    entries = function_table.read_table(table())
    return [describe(name, entry, routes_of(getattr(main, name))) for name, entry in entries.items()]


def routes_of(function: object) -> tuple[Route, ...]:
    """Returns the routes that a function declares; only an "http" function has any."""
    return tuple(Route(route.method, route.path) for route in getattr(function, "routes", ()))


def describe(name: str, entry: Entry, routes: tuple[Route, ...]) -> Function:
    """Derives from a function's entry how the stack runs it."""
    return Function(name, entry.kind, entry.topic, routes, min(entry.threads, MAX_THREADS), clients_of(entry))


def clients_of(entry: Entry) -> tuple[str, ...]:
    """Returns the names of the clients in shared.clients for the systems that a function may use."""
    names = [f"{database}_database" for database in entry.databases]
    if entry.kind == "worker":
        names.append("pubsub")  # a worker reads from Kafka with its own consumer, and publishes to Pub/Sub
    elif entry.kafka:
        names.append("kafka")
    if entry.bucket:
        names.append("storage")
    if "SENDGRID_API_KEY" in entry.secrets:
        names.append("email_service")
    return tuple(names)


def set_environment(function: Function) -> None:
    """Gives this process the environment variables that Cloud Run sets for `function`."""
    os.environ.update(FUNCTION_TARGET=function.name, K_SERVICE=function.name, THREADS=str(function.threads))


def connect(function: Function) -> None:
    """Opens the connections, so that the function's first request does not wait for them."""
    from shared import clients

    for name in function.clients:
        client = getattr(clients, name)()
        if name.endswith("_database"):
            client.connect().close()  # the pool keeps the connection
