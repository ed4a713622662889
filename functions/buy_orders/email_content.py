"""What the mail says: a template a language, filled in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from functions.buy_orders.addresses import one_line
from shared.problems import refused

if TYPE_CHECKING:
    from functions.buy_orders.orders import Order

TEMPLATES = Path(__file__).parent / "templates"
ENDING = ".jinja"
MAX_MESSAGE_LENGTH = 5_000  # characters: two pages


@dataclass(frozen=True)
class EmailContent:
    """A mail's words."""

    subject: str  # one line
    text: str
    html: str


def languages() -> list[str]:
    """The languages that there is a template for, by their codes."""
    return sorted(path.name.removesuffix(ENDING) for path in TEMPLATES.glob(f"*{ENDING}"))


def check(message: str, language: str) -> None:
    """Raises Problem 422 for a message that is too long, or a language that there is no template for."""
    if len(message) > MAX_MESSAGE_LENGTH:
        raise refused("message", f"A message may have {MAX_MESSAGE_LENGTH:,} characters. This has {len(message):,}.")
    if language not in languages():
        raise refused("language", f'There is no mail in "{one_line(language)}". Known: {", ".join(languages())}.')


def write(order: Order, message: str, language: str) -> EmailContent:
    """The letter that goes with `order`. Raises Problem 422 as `check` does."""
    check(message, language)
    values = {"order": order, "message": message.strip(), "total": f"{order.total:,.2f}"}

    def block(name: str, *, escaped: bool) -> str:
        template = environment(escaped=escaped).get_template(f"{language}{ENDING}")
        return "".join(template.blocks[name](template.new_context(values))).strip()

    return EmailContent(
        subject=one_line(block("subject", escaped=False)),
        text=block("text", escaped=False) + "\n",
        html=block("html", escaped=True) + "\n",
    )


@cache
def environment(*, escaped: bool) -> Environment:
    """Where templates are read from; `escaped` makes every value safe in HTML, whoever wrote the template."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escaped,  # noqa: S701  # off for the plain text alone
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
