"""Measures the goals: `make bench` prints a table and writes `.local/bench.json`. A goal that is not met exits 1."""

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import tests.bench

RESULTS = Path(".local/bench.json")


def main() -> int:
    """Runs the parts that are asked for, or all."""
    parts = sorted(module.name for module in pkgutil.iter_modules(tests.bench.__path__) if module.name != "__main__")
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(parts)}; none means all")
    wanted = parser.parse_args().parts or parts
    if unknown := sorted(set(wanted) - set(parts)):
        parser.error(f"there is no part {', '.join(unknown)}; there are: {', '.join(parts)}")
    figures = {}
    for part in wanted:
        print(f"{part} …", file=sys.stderr, flush=True)
        figures |= importlib.import_module(f"tests.bench.{part}").measure()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    for name, figure in figures.items():
        verdict = "met" if figure["met"] else "NOT MET"
        print(f"{name:<62} {figure['value']:>12,.2f} {figure['unit']:<8} {figure['goal']:>12}  {verdict}")
    print(f"Written to {RESULTS}.")
    return 0 if all(figure["met"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
