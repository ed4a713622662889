"""Email addresses and names, in a form that is safe in the headers of an email."""

from __future__ import annotations

import re

from shared.problems import invalid_input

MAX_CC = 10  # a buy order goes to one supplier, not to a mailing list
MAX_ADDRESS_LENGTH = 254  # https://www.rfc-editor.org/errata/eid1690
MAX_NAME_LENGTH = 150  # longer names are cut: email programs show about 50 characters

# What the email service accepts: ASCII before the @, and a domain with a dot after it. Quoted local parts,
# which are very rare, are not accepted.
LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
DOMAIN = re.compile(r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}")


def parse_address(text: str, field: str) -> str:
    """Returns `text` as one email address with its domain in ASCII. Raises Problem 422 naming the request's `field`."""
    local_part, _, domain = text.strip(" ").rpartition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    address = f"{local_part}@{domain}"
    if not (LOCAL_PART.fullmatch(local_part) and DOMAIN.fullmatch(domain) and len(address) <= MAX_ADDRESS_LENGTH):
        detail = f'"{to_one_line(text)}" is not an email address. Write one address, such as orders@supplier.example.'
        raise invalid_input(field, detail)
    return address


def parse_copies(cc: tuple[str, ...], recipient: str) -> tuple[str, ...]:
    """Returns the addresses of `cc` without repetitions and without the recipient.

    The email service refuses an email with repeated addresses. Raises Problem 422 naming the invalid address.
    """
    if len(cc) > MAX_CC:
        raise invalid_input("cc", f"An email may have at most {MAX_CC} addresses in cc. This one has {len(cc)}.")
    unique_addresses = {recipient.lower(): recipient}
    for position, text in enumerate(cc):
        address = parse_address(text, f"cc[{position}]")
        unique_addresses.setdefault(address.lower(), address)
    return tuple(unique_addresses.values())[1:]


def to_one_line(text: str) -> str:
    """Returns `text` for a header: without line breaks, control characters and marks that change the text direction."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split())[:MAX_NAME_LENGTH]
