"""Email addresses and names in the form that the headers of an email allow."""

from __future__ import annotations

import re

from shared.problems import invalid_input

MAX_CC = 10  # a buy order goes to a supplier, not to a list
MAX_ADDRESS_LENGTH = 254  # https://www.rfc-editor.org/errata/eid1690
MAX_NAME_LENGTH = 150  # longer ones are cut: email programs show a third of it

# What the email service accepts: ASCII before the @, a domain with a dot after it. Quoted local parts are not in use.
LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
DOMAIN = re.compile(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}")


def checked_address(text: str, at: str) -> str:
    """`text` as one email address, its domain in ASCII. Raises Problem 422 naming the field `at`."""
    local_part, _, domain = text.strip(" ").rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    address = f"{local_part}@{domain}"
    if not (LOCAL_PART.fullmatch(local_part) and DOMAIN.fullmatch(domain) and len(address) <= MAX_ADDRESS_LENGTH):
        sentence = f'"{one_line(text)}" is not an email address. Write one address, such as orders@supplier.example.'
        raise invalid_input(at, sentence)
    return address


def checked_copies(copies: tuple[str, ...], recipient: str) -> tuple[str, ...]:
    """The addresses that get a copy, each once, without the recipient: the email service refuses repeated addresses.

    Raises Problem 422 naming the invalid one.
    """
    if len(copies) > MAX_CC:
        raise invalid_input("cc", f"An email may have {MAX_CC} addresses in copy. This one has {len(copies)}.")
    once = {recipient.lower(): recipient}
    for position, copy in enumerate(copies):
        address = checked_address(copy, f"cc[{position}]")
        once.setdefault(address.lower(), address)
    return tuple(once.values())[1:]


def one_line(text: str) -> str:
    """`text` as part of a header: without line breaks, control characters and marks that change the text direction."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split())[:MAX_NAME_LENGTH]
