"""buy_order_email: one order, one snapshot, three files, one mail, whatever the world does meanwhile."""

from __future__ import annotations

import csv
import io
import subprocess
import uuid
from datetime import timedelta

import openpyxl
import pypdf
import pytest

from functions.buy_orders import files
from shared.clients.mailer import MailDeferred, MailRejected, MailStatusUnknown
from shared.errors import PermanentError
from shared.messages import BuyOrderEmail

LINES = 25  # of the seeded order that is shown
SKU, SUPPLIER_SKU, ARTICLE = "WEBSHOP_PRODUCT_SKU_CODE", "SUPPLIER_PRODUCT_SKU_CODE", "SUPPLIER_PRODUCT_ARTICLE_CODE"


def attached(mail):
    """A mail's files by their endings."""
    return {file.name.rpartition(".")[2]: file.content for file in mail.files}


def rows_of_csv(content):
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def text_of_pdf(content):
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)


def test_an_order_is_mailed_with_three_files(buying):
    """Asked for over HTTP, delivered once: SENT, one mail, and its files are stored as they were mailed."""
    asked = buying.ask_for_mail(message="Please confirm.\nThanks <3")

    buying.run()

    send = buying.only_send()
    (mail,) = buying.mail_service.taken
    assert (asked.status_code, asked.json) == (202, {"uuid": send["uuid"], "status": "PENDING"})
    assert (send["status"], send["reason"], send["recipient"]) == ("SENT", "", mail.recipient)
    assert send["sent_at"] >= send["created_at"]
    assert mail.reference == send["uuid"]
    assert [file.name for file in mail.files] == ["BO-10001.csv", "BO-10001.xlsx", "BO-10001.pdf"]
    assert [file.content for file in mail.files] == [buying.mailed_files()[uri] for uri in send["file_uris"]]
    assert (mail.reply_to, mail.sender_name) == ("purchasing@huis-en-haard.example", "Huis & Haard")
    assert mail.subject == "Purchase order BO-10001 from Huis & Haard"
    assert "Please confirm.\nThanks <3" in mail.text
    assert "Please confirm.\nThanks &lt;3" in mail.html
    assert "Huis &amp; Haard" in mail.html
    buying.recover()
    buying.assert_settled()


def test_the_three_files_say_the_same(buying):
    """Read by three programs that did not write them."""
    buying.save_identifiers(ARTICLE, SUPPLIER_SKU, SKU)
    buying.ask_for_mail()
    buying.run()

    mailed = attached(buying.mail_service.taken[0])
    heading, *lines = rows_of_csv(mailed["csv"])
    sheet = openpyxl.load_workbook(io.BytesIO(mailed["xlsx"])).worksheets[0]
    text = text_of_pdf(mailed["pdf"])

    codes = ["SKU code", "Supplier SKU code", "Supplier article code"]
    assert [name for name in heading if "code" in name] == codes
    assert len(lines) == LINES
    assert [[printed(cell) for cell in row] for row in sheet.iter_rows(values_only=True)] == [heading, *lines]
    assert [text.index(code) for code in codes] == sorted(text.index(code) for code in codes)
    for line in (dict(zip(heading, line, strict=True)) for line in lines):
        for code in codes:
            assert line[code].replace(" ", "") in text.replace("\n", "").replace(" ", ""), line
    total = sum(float(line[heading.index("Amount")]) for line in lines)
    assert f"{total:,.2f}" in text
    assert f"{total:,.2f}" in buying.mail_service.taken[0].text


def printed(cell):
    """A cell's value as the CSV has it."""
    if cell is None:
        return ""
    if hasattr(cell, "date"):
        return cell.date().isoformat()
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def test_the_pdf_is_read_by_another_program_too(buying, tmp_path):
    """pdftotext, where it is there, finds every line's number and the order's."""
    buying.ask_for_mail()
    buying.run()
    file = tmp_path / "order.pdf"
    file.write_bytes(attached(buying.mail_service.taken[0])["pdf"])

    try:
        text = subprocess.run(["pdftotext", "-layout", file, "-"], check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        text = text_of_pdf(file.read_bytes())

    assert "BO-10001" in text
    assert "Page 1 of" in text or "1 of" in text


def test_the_files_are_of_one_moment(buying, monkeypatch):
    """A line that is changed while the files are made is changed in none of them."""
    render = files.render

    def render_and_change(*arguments):
        rows = render(*arguments)
        buying.change("product", "update buy_order_lines set quantity = 98765, unit_price = 1")
        return rows

    monkeypatch.setattr(files, "render", render_and_change)
    buying.ask_for_mail()
    buying.run()

    mailed = attached(buying.mail_service.taken[0])
    sheet = openpyxl.load_workbook(io.BytesIO(mailed["xlsx"])).worksheets[0]
    assert "98765" not in mailed["csv"].decode()
    assert not [row for row in sheet.iter_rows(values_only=True) if 98765 in row]
    assert "98765" not in text_of_pdf(mailed["pdf"])


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        pytest.param(MailDeferred("The mail service is busy (429).", 120), "FILES_READY", "busy (429)", id="429"),
        pytest.param(
            MailDeferred("The mail service cannot be reached."), "FILES_READY", "cannot be reached", id="unreachable"
        ),
        pytest.param(MailStatusUnknown("The mail service failed (502)."), "UNCERTAIN", "failed (502)", id="502"),
        pytest.param(
            MailStatusUnknown("The mail service gave no answer (TimeoutError)."),
            "UNCERTAIN",
            "gave no answer",
            id="time-out",
        ),
        pytest.param(
            MailRejected("The mail service refused the mail (400): No."),
            "FAILED",
            "refused the mail (400): No.",
            id="400",
        ),
    ],
)
def test_an_answer_decides_the_state(buying, answer, status, reason):
    """What proves that nothing was taken is tried again; what proves nothing never is."""
    buying.mail_service.answers.append(answer)
    buying.ask_for_mail()

    buying.run()
    buying.sweep()
    buying.run()

    send = buying.only_send()
    assert (send["status"], send["sent_at"]) == (status, None)
    assert reason in send["reason"]
    assert buying.mail_service.taken == []
    buying.recover()
    assert len(buying.mail_service.taken) == (status == "FILES_READY")
    assert buying.only_send()["status"] == ("SENT" if status == "FILES_READY" else status)
    buying.assert_settled()


@pytest.mark.parametrize("seconds", [1, 120, 3600])
def test_retry_after_is_kept(buying, seconds):
    """Neither a message that comes again nor sweep hands the mail over before the time that the service named."""
    buying.mail_service.answers.append(MailDeferred("busy", seconds))
    asked = buying.ask_for_mail().json
    (message,) = buying.broker.of(BuyOrderEmail)
    buying.run()

    row = buying.send_row(asked["uuid"])
    for moment in ("wake_at", "lease_until"):
        assert timedelta(seconds=seconds - 1) < row[moment] - row["updated_at"] < timedelta(seconds=seconds + 1)
    assert [buying.deliver(message), buying.sweep()] == [200, 200]
    buying.run()
    assert buying.mail_service.taken == []
    passed = f"interval '{seconds} s'"
    buying.change(
        "service", f"update buy_order_sends set wake_at = wake_at - {passed}, lease_until = lease_until - {passed}"
    )
    buying.sweep()
    buying.run()
    assert buying.only_send()["status"] == "SENT"


def test_a_mail_that_is_never_taken_fails_with_the_last_reason(buying):
    """After five attempts it is over, and says what was in the way."""
    buying.mail_service.answers.extend(MailDeferred("The mail service is busy (503).") for _ in range(10))
    buying.ask_for_mail()

    buying.recover()

    send = buying.only_send()
    assert send["status"] == "FAILED"
    assert send["reason"].startswith("The email could not be sent in 5 attempts")
    assert send["reason"].endswith("busy (503).")
    assert len(buying.mail_service.answers) == 5
    buying.assert_settled()


def test_another_service_s_message_is_a_record_of_its_own(buying):
    """Its uuid is the mail's: the message sent again, even with other words, is still the one mail."""
    message = buying.message(
        recipient="new@supplier.example", cc=("a@b.example", "NEW@supplier.example", "a@b.example")
    )

    statuses = [buying.deliver(message) for _ in range(3)]
    buying.deliver(buying.message(send_uuid=message.send_uuid, recipient="else@where.example"))

    (mail,) = buying.mail_service.taken
    assert statuses == [200, 200, 200]
    assert (mail.recipient, mail.cc) == ("new@supplier.example", ("a@b.example",))
    assert buying.only_send()["uuid"] == str(message.send_uuid)


def test_the_same_message_ten_times_at_once_is_one_mail(buying):
    """One delivery takes the lease; the others have nothing to do."""
    message = buying.message()
    statuses = []

    buying.at_once(*[lambda: statuses.append(buying.deliver(message))] * 10)

    assert statuses == [200] * 10
    assert len(buying.mail_service.taken) == 1
    assert buying.only_send()["status"] == "SENT"


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
            "There is no such buy order",
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
        pytest.param("", {"buy_order_uuid": uuid.UUID(int=7)}, "There is no such buy order", id="unknown order"),
    ],
)
def test_an_order_that_cannot_be_mailed_fails_with_a_reason(buying, caplog, change, fields, reason):
    """Recorded, logged once, dead-lettered: nothing that is tried again mends it."""
    if change:
        buying.change("product", change.replace(":order", f"'{buying.order}'"))
    message = buying.message(**fields)

    assert buying.deliver(message) == 200

    row = buying.send_row(message.send_uuid)
    assert row["status"] == "FAILED"
    assert reason in row["reason"]
    assert [letter.attributes["topic"] for letter in buying.dead_letters.letters] == ["webshop.buy-order.email"]
    assert [record.levelname for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == ["ERROR"]
    assert buying.mail_service.taken == []
    buying.recover()
    buying.assert_settled()


def test_an_order_of_another_webshop_is_not_mailed(buying):
    """A message may name any order; only the webshop's own is found."""
    other = buying.tenants.other_webshop_uuid
    (foreign,) = buying.rows("product", "select uuid from buy_orders where webshop_uuid = :w limit 1", w=other)[0]
    message = buying.message(buy_order_uuid=foreign)

    buying.deliver(message)

    assert buying.send_row(message.send_uuid)["reason"] == "There is no such buy order."
    assert buying.mail_service.taken == []


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
def test_a_message_that_is_none_is_dead_lettered(buying, caplog, data):
    """Logged once, never again delivered."""
    assert buying.push_bytes(BuyOrderEmail, data) == 200

    (letter,) = buying.dead_letters.letters
    assert letter.data == data
    assert [record.levelname for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == ["ERROR"]


def test_a_message_that_lacks_a_field_is_dead_lettered(buying):
    """Every field without a default is needed."""
    whole = buying.message().encoded()

    assert buying.push_bytes(BuyOrderEmail, whole.replace(b"buy_order_uuid", b"order")) == 200

    (letter,) = buying.dead_letters.letters
    assert "buy_order_uuid" in letter.attributes["reason"]


def test_line_breaks_in_names_stay_out_of_the_headers(buying):
    """A name or number with CR LF cannot add a header to the mail, nor a path or a quote to a file's name."""
    buying.change("product", "update webshops set name = E'Shop\\r\\nBcc: evil@else.example'")
    buying.change("product", "update suppliers set name = E'Supplier\\r\\n, Ltd; \\u202e'")
    buying.change("product", f"update buy_orders set number = E'B/../\\r\\n\"ö\" 1' where uuid = '{buying.order}'")
    buying.deliver(buying.message())

    (mail,) = buying.mail_service.taken
    assert mail.subject == 'Purchase order B/../ "ö" 1 from Shop Bcc: evil@else.example'
    assert mail.sender_name == "Shop Bcc: evil@else.example"
    assert mail.recipient_name == "Supplier , Ltd;"
    assert [file.name for file in mail.files] == ["B.-1.csv", "B.-1.xlsx", "B.-1.pdf"]


def test_files_that_no_mail_may_have_are_not_sent(buying, monkeypatch):
    """More than 20 MB together is known before the mail service is asked."""
    monkeypatch.setattr(files, "MAX_EMAIL_BYTES", 5_000)
    message = buying.message()

    buying.deliver(message)

    row = buying.send_row(message.send_uuid)
    assert (row["status"], row["file_uris"]) == ("FAILED", [])
    assert "the limit of an email" in row["reason"]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_or_missing_file_is_not_sent(empty):
    """Three files, each with something in it, or no mail."""
    made = [files.File(name, "text/csv", b"content") for name in ("a.csv", "a.xlsx", "a.pdf")]
    made[empty] = files.File("empty", "text/csv", b"")

    for wrong, rows in ((tuple(made), [1, 1, 1]), (tuple(made[:2]), [1, 1]), ((*made[:2], made[0]), [1, 0, 1])):
        with pytest.raises(PermanentError, match="empty"):
            files.check_files(wrong, rows)


def test_files_are_kept_as_long_as_exports_are(buying):
    """Then sweep takes them off the record and out of the bucket; the record stays."""
    buying.ask_for_mail()
    buying.run()
    buying.recover()
    assert len(buying.mailed_files()) == 3

    buying.change("service", "update buy_order_sends set finished_at = finished_at - interval '31 days'")
    buying.sweep()

    assert buying.only_send()["file_uris"] == []
    assert buying.only_send()["status"] == "SENT"
    assert buying.mailed_files() == {}
    buying.assert_settled()
