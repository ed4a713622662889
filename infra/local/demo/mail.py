"""The email of a buy order: requests it, follows it until it is delivered, and checks the email and its files."""

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
from shared.wording import format_count

DELIVERY_SECONDS = 60
POLL_SECONDS = 0.005  # two of the states last only a moment
FILE_TYPES = {".csv", ".xlsx", ".pdf"}


def run_chapter(shop: Shop, environment: Mapping[str, str]) -> bool:
    """Emails the seeded buy order and checks the email. Returns whether it is as expected."""
    folder = Path(environment["MAIL_DIR"])
    earlier = set(folder.glob("*.eml"))
    print(f"The buy order {environment['BUY_ORDER_UUID']} is emailed to its supplier:\n")

    delivery = send_email(shop, environment["BUY_ORDER_UUID"])
    print_delivery(delivery)
    stored = {uri.rpartition("/")[2]: fetch_object(environment, uri) for uri in delivery["file_uris"]}
    path, message = find_message(set(folder.glob("*.eml")) - earlier, stored)
    files = read_files(stored)
    print_message(path, message, stored, files)
    differences = list(check_message(message, delivery, files))

    for difference in differences:
        screen.print_difference(difference)
    return not differences


def send_email(shop: Shop, buy_order_uuid: str) -> Any:
    """Requests the email and waits until it is delivered. Returns the delivery.

    Raises Unexpected when the delivery fails or does not finish.
    """
    started_at = time.monotonic()
    requested = shop.json("POST", f"buy-orders/{buy_order_uuid}/email", {})
    states: list[str] = [requested["status"]]

    def find_delivered() -> Any:
        deliveries = shop.json("GET", f"buy-orders/{buy_order_uuid}/emails")["items"]
        [delivery] = [delivery for delivery in deliveries if delivery["uuid"] == requested["uuid"]]
        if delivery["status"] != states[-1]:
            states.append(delivery["status"])
        screen.print_progress(f"  {' → '.join(states)}")
        if delivery["status"] == "FAILED":
            raise Unexpected(f"The email delivery is FAILED: {delivery['reason']}")
        delivered = any(event["event"] == "delivered" for event in delivery["events"])
        return delivery if delivery["status"] == "SENT" and delivered else None

    delivery = wait_for("The email delivery", find_delivered, DELIVERY_SECONDS, POLL_SECONDS)
    screen.print_line(f"  {' → '.join(states)}, delivered after {time.monotonic() - started_at:.1f} s")
    return delivery


def print_delivery(delivery: Mapping[str, Any]) -> None:
    """Prints the events of the email service, and where the files are stored."""
    for event in delivery["events"]:
        time_of_day, reason = event["occurred_at"][11:19], f" ({event['reason']})" if event["reason"] else ""
        screen.print_paragraph(f"{time_of_day}  {event['event']:<10} {event['recipient']}{reason}")
    for folder in dict.fromkeys(uri.rpartition("/")[0] for uri in delivery["file_uris"]):
        bucket, _, path = folder.removeprefix("gs://").partition("/")
        print(f"\nIts files are stored in gs://{bucket}/ under\n  {path}/")


def fetch_object(environment: Mapping[str, str], uri: str) -> bytes:
    """Returns the bytes of an object in the bucket."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    quoted = urllib.parse.quote(path, safe="")
    url = f"{environment['STORAGE_EMULATOR_HOST']}/download/storage/v1/b/{bucket}/o/{quoted}?alt=media"
    with urllib.request.urlopen(url) as response:
        content: bytes = response.read()
        return content


def find_message(paths: set[Path], stored: Mapping[str, bytes]) -> tuple[Path, EmailMessage]:
    """Finds the email that has exactly the stored files attached. Raises Unexpected unless there is exactly one."""
    messages = {path: email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths}
    found = [(path, message) for path, message in messages.items() if dict(attachments_of(message)) == stored]
    if len(found) != 1:
        new = format_count(len(paths), "new email")
        raise Unexpected(f"Exactly one email should have the stored files attached, but {len(found)} of {new} do.")
    return found[0]


def attachments_of(message: EmailMessage) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the bytes of each attachment."""
    for part in message.iter_attachments():
        content = part.get_payload(decode=True)
        yield part.get_filename() or "", content if isinstance(content, bytes) else b""


def read_files(stored: Mapping[str, bytes]) -> dict[str, Contents]:
    """Reads the files, given as bytes by name. Returns their contents by name."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in stored.items():
            path = Path(folder) / name
            path.write_bytes(content)
            files[name] = contents.read(path)
    return files


def print_message(
    path: Path, message: EmailMessage, stored: Mapping[str, bytes], files: Mapping[str, Contents]
) -> None:
    """Prints the email's recipient, subject and attachments."""
    print(f"\nThe email {screen.shorten(path)}:")
    screen.print_paragraph(f"To: {message['To']}")
    screen.print_paragraph(f"Subject: {message['Subject']}")
    for name, file in files.items():
        print(f"  {name:<34} {len(stored[name]):>12,} bytes   {file}")


def check_message(message: EmailMessage, delivery: Mapping[str, Any], files: Mapping[str, Contents]) -> Iterator[str]:
    """Yields where the email differs from the expected one."""
    if delivery["recipient"] not in message["To"]:
        yield f"The email was sent to {message['To']}, not to {delivery['recipient']}."
    by_type = {Path(name).suffix: file for name, file in files.items()}
    if set(by_type) != FILE_TYPES or len(files) != len(FILE_TYPES):
        types = ", ".join(sorted(FILE_TYPES))
        yield f"The attachments are {', '.join(files)}, but should be one file of each type: {types}."
    elif by_type[".csv"] != by_type[".xlsx"] or not by_type[".csv"].rows:
        yield f"The CSV file has {by_type['.csv']}, the XLSX file {by_type['.xlsx']}, or their headings differ."
