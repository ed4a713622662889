"""The functions of main.py, found by what they say of themselves, and how each is run here."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

SOURCE_VARIABLE = "FUNCTION_SOURCE"  # the functions framework's own name for the file to serve from


@dataclass(frozen=True)
class Route:
    """A path of the HTTP API."""

    method: str
    path: str  # a werkzeug rule


@dataclass(frozen=True)
class Function:
    """What the stack knows of a function."""

    name: str
    kind: str  # http, kafka, storage, schedule or worker
    topic: str = ""  # of a "kafka" function
    routes: tuple[Route, ...] = ()  # of an "http" function


@dataclass(frozen=True)
class Sizing:
    """How a function's process is run here."""

    threads: int = 4  # requests it serves at once
    clients: tuple[str, ...] = ()  # of shared/clients; connected before it says that it is ready


# More threads than these only fight for the one database server (measured). A function that is not named here runs too.
SIZINGS = {
    "buy_order_email": Sizing(threads=2, clients=("service_database", "product_database", "storage", "mail_service")),
    "buy_orders_api": Sizing(clients=("service_database", "product_database", "kafka")),
    "email_events": Sizing(threads=2, clients=("service_database",)),
    "export_download": Sizing(clients=("service_database", "product_database", "storage")),
    "export_history": Sizing(threads=2, clients=("service_database",)),
    "export_render": Sizing(clients=("service_database", "product_database", "kafka", "storage")),
    "exports_api": Sizing(clients=("service_database", "product_database", "kafka", "storage")),
    "import_upload": Sizing(clients=("service_database", "kafka", "storage")),
    "import_batches": Sizing(clients=("service_database", "product_database", "kafka", "storage")),
    "import_apply": Sizing(threads=4, clients=("product_database", "kafka")),
    "import_mirror": Sizing(threads=1, clients=("product_database", "legacy_database")),
    "import_progress": Sizing(threads=2, clients=("service_database",)),
    "imports_api": Sizing(clients=("service_database", "product_database", "kafka", "storage")),
    "kafka_bridge": Sizing(threads=1, clients=("pubsub",)),
    "sweep": Sizing(threads=1, clients=("service_database", "product_database", "kafka", "storage")),
}
DEFAULT_SIZING = Sizing()


def sizing(name: str) -> Sizing:
    """How the function `name` is run."""
    return SIZINGS.get(name, DEFAULT_SIZING)


def source() -> Path:
    """The file that names the functions: main.py of the working directory, or FUNCTION_SOURCE."""
    return Path(os.environ.get(SOURCE_VARIABLE, "main.py")).resolve()


def load_main() -> ModuleType:
    """Imports the functions' file. Raises whatever its import raises, ImportError where it exits."""
    path = source()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as refusal:  # invalid settings
        raise ImportError(str(refusal)) from None
    return module


def discover() -> list[Function]:
    """Every function that main.py offers, in its order."""
    main = load_main()
    return [described(name, getattr(main, name)) for name in main.__all__]


def described(name: str, function: Any) -> Function:
    """`function` by what it says of itself."""
    routes = tuple(Route(route.method, route.path) for route in getattr(function, "routes", ()))
    return Function(name, function.trigger.kind, function.trigger.topic, routes)


def take_place(name: str) -> None:
    """Gives this process the environment that Cloud Run gives the function `name`."""
    os.environ.update(FUNCTION_TARGET=name, K_SERVICE=name, THREADS=str(sizing(name).threads))


def connect(name: str) -> None:
    """Opens the connections that the function's first request would wait for."""
    if names := sizing(name).clients:
        from shared import clients

        clients.connect(*names)
