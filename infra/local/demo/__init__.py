"""The demo: runs imports, exports and the email of a buy order on a running stack, and checks every result.

It uses the stack of this directory if one is running. Otherwise it starts a stack of its own below this directory and
stops it at the end. Downloaded files stay in the folder `demo/` of the stack's directory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from infra.local import identity, state
from infra.local.demo import exports, imports, mail, screen
from infra.local.demo.databases import Databases
from infra.local.demo.shop import Shop, Unexpected
from infra.local.demo.stack import find_or_start_stack
from infra.local.state import State

FOLDER = "demo"  # below the stack's directory


def run() -> int:
    """Runs the demo. Returns the exit status: 0 when every check passed."""
    folder = state.find_state().path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with find_or_start_stack(folder / "stack") as stack:
        return run_chapters(stack, folder)


def run_chapters(stack: State, folder: Path) -> int:
    """Runs every chapter, also after one that failed. Downloads go to `folder`. Returns the exit status."""
    environment = stack.load()["environment"]
    token = identity.token(identity.signing_key(stack.directory), environment["API_URL"], environment["USER_UUID"])
    shop = Shop(environment["API_URL"], environment["WEBSHOP_UUID"], token)
    databases = Databases.of(environment)
    chapters: dict[str, Callable[[], bool]] = {
        "Imports": lambda: imports.run_chapter(shop, databases),
        "Exports": lambda: exports.run_chapter(shop, databases, folder),
        "The email of a buy order": lambda: mail.run_chapter(shop, environment),
    }
    passed = True
    for title, run_chapter in chapters.items():
        screen.print_title(title)
        try:
            passed &= run_chapter()
        except (Unexpected, OSError) as error:
            screen.print_difference(str(error))
            passed = False
    print(
        "\nEvery check passed." if passed else f"\nSome checks failed. See the lines that begin with {screen.FAILED}."
    )
    return 0 if passed else 1
