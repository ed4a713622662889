"""The whole story, told on a running stack: imports, exports, the mail of a buy order, and the proof of each.

Uses the stack that runs on this directory, or starts one of its own beside it and stops it again. What it downloads
stays in `demo/` of the stack's directory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from infra.local import identity, state
from infra.local.demo import exports, imports, mail, screen
from infra.local.demo.databases import Databases
from infra.local.demo.shop import Shop, Unexpected
from infra.local.demo.stack import a_stack
from infra.local.state import State

FOLDER = "demo"  # of the stack's directory


def run() -> int:
    """Tells the story; 0 when everything came out as it should."""
    folder = state.here().path(FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    with a_stack(folder / "stack") as where:
        return tell(where, folder)


def tell(where: State, folder: Path) -> int:
    """Tells each chapter, whatever became of the one before; downloads go to `folder`."""
    told = where.load()["environment"]
    token = identity.token(identity.signing_key(where.directory), told["API_URL"], told["USER_UUID"])
    shop = Shop(told["API_URL"], told["WEBSHOP_UUID"], token)
    databases = Databases.of(told)
    chapters: dict[str, Callable[[], bool]] = {
        "Imports": lambda: imports.tell(shop, databases),
        "Exports": lambda: exports.tell(shop, databases, folder),
        "The mail of a buy order": lambda: mail.tell(shop, told),
    }
    good = True
    for title, chapter in chapters.items():
        screen.title(title)
        try:
            good &= chapter()
        except (Unexpected, OSError) as error:
            screen.fault(str(error))
            good = False
    print("\nEverything came out as it should." if good else "\nNot everything came out as it should.")
    return 0 if good else 1
