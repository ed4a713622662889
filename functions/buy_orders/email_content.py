"""The subject and text of an email, from one template per language."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from functions.buy_orders.addresses import to_one_line
from shared.problems import invalid_input

if TYPE_CHECKING:
    from functions.buy_orders.orders import Order

TEMPLATES = Path(__file__).parent / "templates"
ENDING = ".jinja"
MAX_MESSAGE_LENGTH = 5_000  # characters: about two pages


@dataclass(frozen=True)
class EmailContent:
    """The subject and the two bodies of an email."""

    subject: str  # one line
    text: str
    html: str


def languages() -> list[str]:
    """Returns the codes of the languages that have a template."""
    return sorted(path.name.removesuffix(ENDING) for path in TEMPLATES.glob(f"*{ENDING}"))


def check_options(message: str, language: str) -> None:
    """Raises Problem 422 for a message that is too long, or a language that has no template."""
    if len(message) > MAX_MESSAGE_LENGTH:
        raise invalid_input(
            "message", f"A message may have at most {MAX_MESSAGE_LENGTH:,} characters. This one has {len(message):,}."
        )
    if language not in languages():
        raise invalid_input(
            "language",
            f'There is no email template for the language "{to_one_line(language)}". Known: {", ".join(languages())}.',
        )


def render_content(order: Order, message: str, language: str) -> EmailContent:
    """Returns the content of the email for `order`. Raises Problem 422 as `check_options` does."""
    check_options(message, language)
    values = {"order": order, "message": message.strip(), "total": f"{order.total:,.2f}"}

    def render_block(name: str, *, escaped: bool) -> str:
        template = environment(escaped=escaped).get_template(f"{language}{ENDING}")
        return "".join(template.blocks[name](template.new_context(values))).strip()

    return EmailContent(
        subject=to_one_line(render_block("subject", escaped=False)),
        text=render_block("text", escaped=False) + "\n",
        html=render_block("html", escaped=True) + "\n",
    )


@cache
def environment(*, escaped: bool) -> Environment:
    """Returns the environment that reads the templates. `escaped` makes every value safe in HTML."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escaped,  # noqa: S701  # off only for the plain text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
