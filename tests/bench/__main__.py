"""Measures the goals: `make bench` prints a table and writes `.local/bench.json`. Exits 1 if a goal is not met."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import tests.bench

RESULTS = Path(".local/bench.json")


def main() -> int:
    """Measures the parts that the command line names, by default all."""
    parts = sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__) if module.name != "__main__")
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(parts)}; by default all")
    names = parser.parse_args().parts or parts
    if unknown := sorted(set(names) - set(parts)):
        parser.error(f"unknown: {', '.join(unknown)}; the parts are: {', '.join(parts)}")
    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        figures |= importlib.import_module(f"tests.bench.{name}").measure()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    for name, figure in figures.items():
        verdict = "met" if figure["met"] else "NOT MET"
        print(f"{name:<62} {figure['value']:>12,.2f} {figure['unit']:<8} {figure['goal']:>12}  {verdict}")
    print(f"Written to {RESULTS}.")
    return 0 if all(figure["met"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
