"""buy_order_email: one email per delivery, with three files that are read in one snapshot."""

from __future__ import annotations

import csv
import io
import subprocess
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pypdf
import pytest

from functions.buy_orders import files
from shared.clients.mailer import Mail, MailDeferred, MailRejected, MailStatusUnknown
from shared.errors import PermanentError
from shared.messages import BuyOrderEmail
from tests.buy_orders_world import BuyOrdersWorld

LINES = 25  # of the seeded order
SKU, SUPPLIER_SKU, ARTICLE = "WEBSHOP_PRODUCT_SKU_CODE", "SUPPLIER_PRODUCT_SKU_CODE", "SUPPLIER_PRODUCT_ARTICLE_CODE"


def attachments_of(email: Mail) -> dict[str, bytes]:
    """Returns the content of an email's files by the ending of their names."""
    return {file.name.rpartition(".")[2]: file.content for file in email.files}


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def read_xlsx(content: bytes) -> list[tuple[Any, ...]]:
    return list(openpyxl.load_workbook(io.BytesIO(content)).worksheets[0].iter_rows(values_only=True))


def read_pdf(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)


def test_an_order_is_emailed_with_three_files(buy_orders: BuyOrdersWorld) -> None:
    """After one request over HTTP one email is SENT. The stored files are the same as the attached ones."""
    response = buy_orders.request_email(message="Please confirm.\nThanks <3")

    buy_orders.run()

    delivery = buy_orders.only_delivery()
    (email,) = buy_orders.accepted_emails()
    assert (response.status_code, response.json) == (202, {"uuid": delivery["uuid"], "status": "PENDING"})
    assert (delivery["status"], delivery["reason"], delivery["recipient"]) == ("SENT", "", email.recipient)
    assert delivery["sent_at"] >= delivery["created_at"]
    assert email.reference == delivery["uuid"]
    assert [file.name for file in email.files] == ["BO-10001.csv", "BO-10001.xlsx", "BO-10001.pdf"]
    assert [file.content for file in email.files] == [buy_orders.stored_files()[uri] for uri in delivery["file_uris"]]
    assert (email.reply_to, email.sender_name) == ("purchasing@huis-en-haard.example", "Huis & Haard")
    assert email.subject == "Purchase order BO-10001 from Huis & Haard"
    assert "Please confirm.\nThanks <3" in email.text
    assert "Please confirm.\nThanks &lt;3" in email.html
    assert "Huis &amp; Haard" in email.html
    buy_orders.recover()
    buy_orders.assert_settled()


def test_the_three_files_have_the_same_content(buy_orders: BuyOrdersWorld) -> None:
    """Libraries that did not write the files read the same lines, codes and total from each of them."""
    buy_orders.save_identifiers(ARTICLE, SUPPLIER_SKU, SKU)
    buy_orders.request_email()
    buy_orders.run()

    attachments = attachments_of(buy_orders.accepted_emails()[0])
    heading, *lines = read_csv(attachments["csv"])
    text = read_pdf(attachments["pdf"])

    codes = ["SKU code", "Supplier SKU code", "Supplier article code"]
    assert [name for name in heading if "code" in name] == codes
    assert len(lines) == LINES
    assert [[to_csv_cell(value) for value in row] for row in read_xlsx(attachments["xlsx"])] == [heading, *lines]
    assert [text.index(code) for code in codes] == sorted(text.index(code) for code in codes)
    for line in (dict(zip(heading, line, strict=True)) for line in lines):
        for code in codes:
            assert line[code].replace(" ", "") in text.replace("\n", "").replace(" ", ""), line
    total = sum(float(line[heading.index("Amount")]) for line in lines)
    assert f"{total:,.2f}" in text
    assert f"{total:,.2f}" in buy_orders.accepted_emails()[0].text


def to_csv_cell(value: Any) -> str:
    """Returns the value of an XLSX cell as the CSV file has it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat()
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def test_another_program_reads_the_pdf(buy_orders: BuyOrdersWorld, tmp_path: Path) -> None:
    """pdftotext, if it is installed, finds the number of the order and of the page."""
    buy_orders.request_email()
    buy_orders.run()
    file = tmp_path / "order.pdf"
    file.write_bytes(attachments_of(buy_orders.accepted_emails()[0])["pdf"])

    try:
        text = subprocess.run(["pdftotext", "-layout", file, "-"], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        text = read_pdf(file.read_bytes())

    assert "BO-10001" in text
    assert "Page 1 of" in text or "1 of" in text


def test_the_files_are_read_in_one_snapshot(buy_orders: BuyOrdersWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change to the order while the files are rendered appears in none of them."""
    render = files.render

    def render_and_change(*arguments: Any) -> int:
        rows = render(*arguments)
        buy_orders.change("product", "update buy_order_lines set quantity = 98765, unit_price = 1")
        return rows

    monkeypatch.setattr(files, "render", render_and_change)
    buy_orders.request_email()
    buy_orders.run()

    attachments = attachments_of(buy_orders.accepted_emails()[0])
    assert "98765" not in attachments["csv"].decode()
    assert not [row for row in read_xlsx(attachments["xlsx"]) if 98765 in row]
    assert "98765" not in read_pdf(attachments["pdf"])


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        pytest.param(MailDeferred("The email service is busy (429).", 120), "FILES_READY", "busy (429)", id="429"),
        pytest.param(
            MailDeferred("The email service cannot be reached."), "FILES_READY", "cannot be reached", id="unreachable"
        ),
        pytest.param(MailStatusUnknown("The email service failed (502)."), "UNCERTAIN", "failed (502)", id="502"),
        pytest.param(
            MailStatusUnknown("The email service did not respond (TimeoutError)."),
            "UNCERTAIN",
            "did not respond",
            id="time-out",
        ),
        pytest.param(
            MailRejected("The email service refused the email (400): No."),
            "FAILED",
            "refused the email (400): No.",
            id="400",
        ),
    ],
)
def test_the_response_decides_the_state(buy_orders: BuyOrdersWorld, error: Exception, status: str, reason: str) -> None:
    """The email is sent again only if the response proves that it was not accepted."""
    buy_orders.fail_next_emails(error)
    buy_orders.request_email()

    buy_orders.run()
    buy_orders.sweep()
    buy_orders.run()

    delivery = buy_orders.only_delivery()
    assert (delivery["status"], delivery["sent_at"]) == (status, None)
    assert reason in delivery["reason"]
    assert buy_orders.accepted_emails() == []
    buy_orders.recover()
    assert len(buy_orders.accepted_emails()) == (status == "FILES_READY")
    assert buy_orders.only_delivery()["status"] == ("SENT" if status == "FILES_READY" else status)
    buy_orders.assert_settled()


@pytest.mark.parametrize("seconds", [1, 120, 3600])
def test_the_next_attempt_waits_for_retry_after(buy_orders: BuyOrdersWorld, seconds: int) -> None:
    """Neither a duplicate message nor sweep sends the email before the time that the email service named."""
    buy_orders.fail_next_emails(MailDeferred("busy", seconds))
    requested = buy_orders.request_email().json
    (message,) = buy_orders.broker.of(BuyOrderEmail)
    buy_orders.run()

    row = buy_orders.delivery_row(requested["uuid"])
    for column in ("wake_at", "lease_until"):
        assert timedelta(seconds=seconds - 1) < row[column] - row["updated_at"] < timedelta(seconds=seconds + 1)
    assert [buy_orders.deliver(message), buy_orders.sweep()] == [200, 200]
    buy_orders.run()
    assert buy_orders.accepted_emails() == []

    interval = f"interval '{seconds} s'"
    buy_orders.change(
        "service", f"update buy_order_sends set wake_at = wake_at - {interval}, lease_until = lease_until - {interval}"
    )
    buy_orders.sweep()
    buy_orders.run()
    assert buy_orders.only_delivery()["status"] == "SENT"


def test_a_delivery_is_given_up_with_its_last_reason(buy_orders: BuyOrdersWorld) -> None:
    """After five attempts the delivery is FAILED, and the reason says why the last one failed."""
    buy_orders.fail_next_emails(*(MailDeferred("The email service is busy (503).") for _ in range(10)))
    buy_orders.request_email()

    buy_orders.recover()

    delivery = buy_orders.only_delivery()
    assert delivery["status"] == "FAILED"
    assert delivery["reason"].startswith("The email could not be sent in 5 attempts")
    assert delivery["reason"].endswith("busy (503).")
    assert len(buy_orders.email_service.answers) == 5
    buy_orders.assert_settled()


def test_a_message_of_another_service_creates_one_delivery(buy_orders: BuyOrdersWorld) -> None:
    """The message's uuid is the key: neither a duplicate nor another message with that uuid sends a second email."""
    message = buy_orders.message(
        recipient="new@supplier.example", cc=("a@b.example", "NEW@supplier.example", "a@b.example")
    )

    statuses = [buy_orders.deliver(message) for _ in range(3)]
    buy_orders.deliver(buy_orders.message(send_uuid=message.send_uuid, recipient="else@where.example"))

    (email,) = buy_orders.accepted_emails()
    assert statuses == [200, 200, 200]
    assert (email.recipient, email.cc) == ("new@supplier.example", ("a@b.example",))
    assert buy_orders.only_delivery()["uuid"] == str(message.send_uuid)


def test_ten_concurrent_duplicates_send_one_email(buy_orders: BuyOrdersWorld) -> None:
    """One worker claims the delivery. The others have nothing to do."""
    message = buy_orders.message()
    statuses: list[int] = []

    buy_orders.at_once(*[lambda: statuses.append(buy_orders.deliver(message))] * 10)

    assert statuses == [200] * 10
    assert len(buy_orders.accepted_emails()) == 1
    assert buy_orders.only_delivery()["status"] == "SENT"


@pytest.mark.parametrize(
    ("change", "fields", "reason"),
    [
        pytest.param(
            "delete from buy_order_lines where buy_order_uuid = :order", {}, "BO-10001 has no lines", id="no lines"
        ),
        pytest.param(
            "update suppliers set email_address = null", {}, "has no email address", id="supplier without an address"
        ),
        pytest.param(
            "update suppliers set email_address = ''", {}, "has no email address", id="supplier with an empty address"
        ),
        pytest.param(
            "update suppliers set email_address = 'a@b.example; c@d.example'",
            {},
            '"a@b.example; c@d.example" is not a',
            id="supplier with two addresses",
        ),
        pytest.param(
            "update buy_orders set deleted_at = now() where uuid = :order",
            {},
            "The buy order was not found",
            id="deleted",
        ),
        pytest.param(
            "update webshops set email_address = 'nobody'",
            {},
            '"nobody" is not an email address',
            id="webshop's address is malformed",
        ),
        pytest.param(
            "",
            {"recipient": "a@b.example\r\nBcc: everybody@else.example"},
            "is not an email address",
            id="line break in the recipient",
        ),
        pytest.param("", {"recipient": ""}, "is not an email address", id="empty recipient"),
        pytest.param("", {"cc": ("nobody",)}, '"nobody" is not an email address', id="malformed copy"),
        pytest.param("", {"message": "x" * 5_001}, "5,000 characters", id="long message"),
        pytest.param("", {"language": "../en"}, "Known: en", id="unknown language"),
        pytest.param("", {"buy_order_uuid": uuid.UUID(int=7)}, "The buy order was not found", id="unknown order"),
    ],
)
def test_an_order_that_cannot_be_emailed_fails_with_a_reason(
    buy_orders: BuyOrdersWorld, caplog: pytest.LogCaptureFixture, change: str, fields: dict[str, Any], reason: str
) -> None:
    """The failure is recorded, logged once and dead-lettered, because a retry cannot help."""
    if change:
        buy_orders.change("product", change.replace(":order", f"'{buy_orders.order}'"))
    message = buy_orders.message(**fields)

    assert buy_orders.deliver(message) == 200

    row = buy_orders.delivery_row(message.send_uuid)
    assert row["status"] == "FAILED"
    assert reason in row["reason"]
    assert [message.attributes["topic"] for message in buy_orders.dead_letters.messages] == ["webshop.buy-order.email"]
    assert [record.levelname for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == ["ERROR"]
    assert buy_orders.accepted_emails() == []
    buy_orders.recover()
    buy_orders.assert_settled()


def test_an_order_of_another_webshop_is_not_emailed(buy_orders: BuyOrdersWorld) -> None:
    """A message may name any order. Only an order of the message's webshop is found."""
    message = buy_orders.message(buy_order_uuid=buy_orders.find_order_of_another_webshop())

    buy_orders.deliver(message)

    assert buy_orders.delivery_row(message.send_uuid)["reason"] == "The buy order was not found. Check its uuid."
    assert buy_orders.accepted_emails() == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no json", id="not JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"webshop_uuid": "x"}', id="malformed uuid"),
        pytest.param(b'{"message": "a\\u0000b"}', id="NUL in a text"),
    ],
)
def test_a_malformed_message_is_dead_lettered(
    buy_orders: BuyOrdersWorld, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """It is logged once and not delivered again."""
    assert buy_orders.push_bytes(BuyOrderEmail, data) == 200

    (dead_letter,) = buy_orders.dead_letters.messages
    assert dead_letter.data == data
    assert [record.levelname for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == ["ERROR"]


def test_a_message_without_a_required_field_is_dead_lettered(buy_orders: BuyOrdersWorld) -> None:
    """The reason names the field."""
    data = buy_orders.message().encode()

    assert buy_orders.push_bytes(BuyOrderEmail, data.replace(b"buy_order_uuid", b"order")) == 200

    (dead_letter,) = buy_orders.dead_letters.messages
    assert "buy_order_uuid" in dead_letter.attributes["reason"]


def test_line_breaks_in_names_stay_out_of_the_headers(buy_orders: BuyOrdersWorld) -> None:
    """A name or number with a line break cannot add a header to the email, nor a path or a quote to a file's name."""
    buy_orders.change("product", "update webshops set name = E'Shop\\r\\nBcc: evil@else.example'")
    buy_orders.change("product", "update suppliers set name = E'Supplier\\r\\n, Ltd; \\u202e'")
    buy_orders.change(
        "product", f"update buy_orders set number = E'B/../\\r\\n\"ö\" 1' where uuid = '{buy_orders.order}'"
    )

    buy_orders.deliver(buy_orders.message())

    (email,) = buy_orders.accepted_emails()
    assert email.subject == 'Purchase order B/../ "ö" 1 from Shop Bcc: evil@else.example'
    assert email.sender_name == "Shop Bcc: evil@else.example"
    assert email.recipient_name == "Supplier , Ltd;"
    assert [file.name for file in email.files] == ["B.-1.csv", "B.-1.xlsx", "B.-1.pdf"]


def test_files_that_are_too_large_are_not_sent(buy_orders: BuyOrdersWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of all files together is checked before the email is sent."""
    monkeypatch.setattr(files, "MAX_EMAIL_BYTES", 5_000)
    message = buy_orders.message()

    buy_orders.deliver(message)

    row = buy_orders.delivery_row(message.send_uuid)
    assert (row["status"], row["file_uris"]) == ("FAILED", [])
    assert "the limit of an email" in row["reason"]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_or_missing_file_is_not_sent(empty: int) -> None:
    """An email has three files, and none of them is empty."""
    rendered = [files.File(name, "text/csv", b"content") for name in ("a.csv", "a.xlsx", "a.pdf")]
    rendered[empty] = files.File("empty", "text/csv", b"")

    for invalid, rows in ((rendered, [1, 1, 1]), (rendered[:2], [1, 1]), ([*rendered[:2], rendered[0]], [1, 0, 1])):
        with pytest.raises(PermanentError, match="empty"):
            files.check_files(invalid, rows)


def test_files_are_deleted_after_the_retention(buy_orders: BuyOrdersWorld) -> None:
    """Sweep detaches the files from the delivery and deletes them. The delivery stays."""
    buy_orders.request_email()
    buy_orders.run()
    buy_orders.recover()
    assert len(buy_orders.stored_files()) == 3

    buy_orders.change("service", "update buy_order_sends set finished_at = finished_at - interval '31 days'")
    buy_orders.sweep()

    assert buy_orders.only_delivery()["file_uris"] == []
    assert buy_orders.only_delivery()["status"] == "SENT"
    assert buy_orders.stored_files() == {}
    buy_orders.assert_settled()
