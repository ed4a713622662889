"""The mail of a buy order: asked for, followed until it is delivered, and opened."""

from __future__ import annotations

import email
import email.policy
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from infra.local.demo import contents, screen
from infra.local.demo.contents import Contents
from infra.local.demo.shop import Shop, Unexpected, wait_for

MAIL_SECONDS = 60
POLL_SECONDS = 0.005  # two of its states last a moment
FILE_TYPES = {".csv", ".xlsx", ".pdf"}


def tell(shop: Shop, told: Mapping[str, str]) -> bool:
    """Has the seeded order mailed and shows what went out; whether that is what should."""
    letters = Path(told["MAIL_DIR"])
    before = set(letters.glob("*.eml"))
    print(f"The buy order {told['BUY_ORDER_UUID']}, mailed to its supplier:\n")

    send = follow(shop, told["BUY_ORDER_UUID"])
    show(send)
    stored = {uri.rpartition("/")[2]: object_at(told, uri) for uri in send["file_uris"]}
    path, letter = the_letter(set(letters.glob("*.eml")) - before, stored)
    faults = list(faults_of(path, letter, send, stored))

    for fault in faults:
        screen.fault(fault)
    return not faults


def follow(shop: Shop, buy_order_uuid: str) -> Any:
    """Asks for the mail and waits until it is delivered; the send, at the end. Raises Unexpected when it never is."""
    started = time.monotonic()
    asked = shop.json("POST", f"buy-orders/{buy_order_uuid}/email", {})
    states: list[str] = [asked["status"]]

    def over() -> Any:
        sends = shop.json("GET", f"buy-orders/{buy_order_uuid}/emails")["items"]
        [send] = [send for send in sends if send["uuid"] == asked["uuid"]]
        if send["status"] != states[-1]:
            states.append(send["status"])
        screen.passing(f"  {' → '.join(states)}")
        if send["status"] == "FAILED":
            raise Unexpected(f"The send is FAILED: {send['reason']}")
        delivered = any(event["event"] == "delivered" for event in send["events"])
        return send if send["status"] == "SENT" and delivered else None

    send = wait_for("The mail", over, MAIL_SECONDS, POLL_SECONDS)
    screen.lasting(f"  {' → '.join(states)}, delivered after {time.monotonic() - started:.1f} s")
    return send


def show(send: Mapping[str, Any]) -> None:
    """Prints what the mail service told, and where the files lie."""
    for event in send["events"]:
        moment, said = event["occurred_at"][11:19], event["reason"] and f"({event['reason']})"
        screen.paragraph(f"{moment}  {event['event']:<10} {event['recipient']} {said}")
    for folder in dict.fromkeys(uri.rpartition("/")[0] for uri in send["file_uris"]):
        bucket, _, path = folder.removeprefix("gs://").partition("/")
        print(f"\nIts files lie in gs://{bucket}/ at\n  {path}/")


def object_at(told: Mapping[str, str], uri: str) -> bytes:
    """The bytes of an object in the bucket."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    quoted = urllib.parse.quote(path, safe="")
    url = f"{told['STORAGE_EMULATOR_HOST']}/download/storage/v1/b/{bucket}/o/{quoted}?alt=media"
    with urllib.request.urlopen(url) as response:
        found: bytes = response.read()
        return found


def the_letter(new: set[Path], stored: Mapping[str, bytes]) -> tuple[Path, EmailMessage]:
    """The letter that these files went out with. Raises Unexpected when there is none, or more than one."""
    letters = {path: email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in new}
    found = [(path, letter) for path, letter in letters.items() if dict(attachments(letter)) == stored]
    if len(found) != 1:
        raise Unexpected(f"{len(found)} letters went out with exactly these files, of {len(new)} new ones.")
    return found[0]


def attachments(letter: EmailMessage) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file in a letter."""
    for part in letter.iter_attachments():
        content = part.get_payload(decode=True)
        yield part.get_filename() or "", content if isinstance(content, bytes) else b""


def faults_of(path: Path, letter: EmailMessage, send: Mapping[str, Any], stored: Mapping[str, bytes]) -> Iterator[str]:
    """Prints the letter; where it is not what it should be."""
    print(f"\nThe letter {screen.short(path)}:")
    screen.paragraph(f"To: {letter['To']}")
    screen.paragraph(f"Subject: {letter['Subject']}")
    read: dict[str, Contents] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in stored.items():
            file = Path(folder) / name
            file.write_bytes(content)
            read[file.suffix] = contents.read(file)
            print(f"  {name:<34} {len(content):>12,} bytes   {read[file.suffix]}")
    if send["recipient"] not in letter["To"]:
        yield f"The letter went to {letter['To']}, not to {send['recipient']}."
    if set(read) != FILE_TYPES or len(stored) != len(FILE_TYPES):
        yield f"The letter holds {', '.join(stored)}: one of {', '.join(FILE_TYPES)} each was to be there."
    elif read[".csv"] != read[".xlsx"] or not read[".csv"].rows:
        yield f"The CSV holds {read['.csv']}, the XLSX {read['.xlsx']}; or their headings differ."
