"""import_batches, called through functions-framework: bad files end in a clear state, good ones become batches."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from functions.imports import gate, import_batches
from functions.imports.states import MAX_BATCH_BYTES, MAX_BATCH_ROWS, MAX_FILE_BYTES, Status, Step
from shared.messages import ImportBatch, ImportTrigger
from tests.world import ledger, table

if TYPE_CHECKING:
    from tests.world import World


def xlsx_start() -> bytes:
    """A ZIP archive with the first files of an XLSX workbook: enough to recognize the type."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


HEADERS, ROWS = Status.FAILED_HEADERS, Status.FAILED_WITH_VALIDATION_ERRORS

# id: the file, the state of its import, a part of the reason
BAD_FILES = {
    "empty": (b"", HEADERS, "empty"),
    "header only": (b"identifier,price\r\n", ROWS, "no rows"),
    "header and blank rows": (b"identifier,price\r\n\r\n,\r\n", ROWS, "no rows"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), HEADERS, "PNG"),
    "a workbook": (xlsx_start(), HEADERS, "XLSX"),
    "an unknown column": (b"identifier,prise\r\nA,1\r\n", HEADERS, '"price"'),
    "a repeated column": (b"identifier,price,Price\r\nA,1,2\r\n", HEADERS, "price"),
    "no identifier": (b"name,price\r\nA,1\r\n", HEADERS, "identifier"),
    "ten thousand columns": (b"identifier" + b",x" * 10_000 + b"\r\nA\r\n", HEADERS, "x"),
    "one huge cell": (b"identifier,name\r\nA," + b"x" * 5_000_000 + b"\r\n", ROWS, "The only row could not"),
    "an unclosed quote": (b'identifier,name\r\nA,"abc\r\nB,c\r\n', ROWS, "The only row could not"),
    "a NUL byte": (b"identifier,name\r\nA,a\0b\r\n", ROWS, "The only row could not"),
    "too large": (b"identifier,name\r\n" + b"x" * MAX_FILE_BYTES, ROWS, "5,242,880"),
}


@pytest.mark.parametrize(("content", "status", "reason_part"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_ends_with_a_reason_and_a_balanced_ledger(
    world: World, content: bytes, status: Status, reason_part: str
) -> None:
    """The import is final, every failed row has an error, and no batch was sent."""
    ended = world.import_file(content)

    assert (ended.status, ended.progress_percent) == (status, 100), ended.reason
    assert reason_part in ended.reason
    assert ended.total_rows == ended.updated_rows + ended.unchanged_rows + ended.failed_rows
    assert ended.failed_rows == len(world.errors(ended.uuid))
    assert not world.broker.of(ImportBatch)


@pytest.mark.parametrize("operation", ["INSERT", "UPSERT", "DELETE", "insert", "DROP TABLE imports"])
def test_an_operation_other_than_update_is_refused_by_name(world: World, operation: str) -> None:
    """The operation is not guessed: a merchant who wants to insert must not get an update."""
    ended = world.import_file("identifier,price\r\nA,1\r\n", operation=operation)

    assert (ended.status, ledger(ended)) == (Status.INVALID_OPERATION_TYPE, (0, 0, 0, 0))
    assert operation.upper() in ended.reason
    assert "UPDATE" in ended.reason


def test_batches_have_up_to_500_rows_with_the_row_numbers_of_a_spreadsheet(world: World) -> None:
    """Refused and blank rows are left out; the numbers of the other rows do not change."""
    rows = [[f"A-{number}", "1"] for number in range(1100)]
    rows[3] = ["", "1"]
    rows[7] = ["", ""]
    import_uuid = world.upload(table([["identifier", "price"], *rows]))
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)

    world.deliver(trigger)

    batches = world.broker.take(ImportBatch)
    assert [len(batch.rows) for batch in batches] == [500, 500, 98]
    row_numbers = [number for batch in batches for number in batch.row_numbers]
    assert row_numbers == [number for number in range(2, 1102) if number not in (5, 9)]
    assert {batch.columns for batch in batches} == {("identifier", "price")}
    sent = world.find(import_uuid)
    assert (sent.processing_step, sent.processing_offset, sent.total_rows) == (Step.APPLY, 1099, 1099)
    assert (sent.failed_rows, sent.progress_percent) == (1, 0)


def test_a_batch_is_smaller_than_the_message_limit_of_kafka(world: World) -> None:
    """Long texts make smaller batches, and every row is in one of them."""
    long_name = "€" * 255
    heading = ["identifier", "name", "product_url"]
    rows = [[f"A-{number}", long_name, f"https://example.com/{'x' * 1900}"] for number in range(1500)]
    import_uuid = world.upload(table([heading, *rows]))
    world.deliver_upload(import_uuid)

    world.deliver(world.broker.waiting.popleft())

    batches = world.broker.take(ImportBatch)
    assert max(len(batch.encode()) for batch in batches) < MAX_BATCH_BYTES + 100 * MAX_BATCH_ROWS
    assert len(batches) > 3
    assert sum(len(batch.rows) for batch in batches) == 1500


def test_abort_sends_nothing_when_any_row_is_refused(world: World) -> None:
    """With on_error=abort all rows are applied or none. A good row gets an error that says that it is not at fault."""
    one, two = world.identifiers(2)

    ended = world.import_file(table([["identifier", "price"], [one, "1"], [two, "x"]]), on_error="abort")

    assert (ended.status, ledger(ended)) == (ROWS, (2, 0, 0, 2))
    assert "nothing was applied" in ended.reason
    assert not world.broker.of(ImportBatch)
    codes = {number: errors[0]["code"] for number, errors in world.errors(ended.uuid).items()}
    assert codes == {2: "not_applied", 3: "not_a_number"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        pytest.param("nowhere,9", "not_found", id="unknown identifier"),
        pytest.param("{identifier},3", "maximum_below_minimum", id="rule on a stored value"),
    ],
)
def test_abort_checks_the_product_database_before_anything_is_sent(world: World, row: str, code: str) -> None:
    """Unknown identifiers and rules on stored values count as refused rows too."""
    one, two = world.identifiers(2)
    world.change("product", "update products set minimum_stock = 5, maximum_stock = 50")
    content = f"identifier,maximum_stock\r\n{one},9\r\n{row.format(identifier=two)}\r\n"

    ended = world.import_file(content, on_error="abort")

    assert (ended.status, ledger(ended)) == (ROWS, (2, 0, 0, 2))
    codes = {number: errors[0]["code"] for number, errors in world.errors(ended.uuid).items()}
    assert codes == {2: "not_applied", 3: code}
    assert world.products("maximum_stock")[one] == 50


def test_abort_applies_a_file_without_refused_rows(world: World) -> None:
    """The check costs one query; the import is applied as usual."""
    one, two = world.identifiers(2)

    ended = world.import_file(table([["identifier", "price"], [one, "1"], [two, "2"]]), on_error="abort")

    assert (ended.status, ended.failed_rows) == (Status.COMPLETED, 0)


def test_a_product_that_is_removed_after_the_check_is_a_failed_row(world: World) -> None:
    """Products may change between the check and the batch."""
    one, two = world.identifiers(2)
    import_uuid = world.upload(table([["identifier", "price"], [one, "1.11"], [two, "2.22"]]), on_error="abort")
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    world.change("product", "update products set identifier = 'gone' where identifier = :i", i=two)

    world.run()

    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.COMPLETED_WITH_ERRORS, (2, 1, 0, 1))


def test_a_file_that_is_replaced_before_it_is_read_fails_the_import(world: World) -> None:
    """The file in the bucket is not the one that the import was recorded for."""
    import_uuid = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(import_uuid)
    world.put(import_uuid, "identifier,price\r\nB,2\r\n")

    world.run()

    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.FAILED_UNEXPECTEDLY, (0, 0, 0, 0))
    assert "products.csv" in ended.reason


@pytest.mark.parametrize(
    "line_end", [pytest.param("\n", id="LF"), pytest.param("\r\n", id="CRLF"), pytest.param("\r", id="CR")]
)
@pytest.mark.parametrize(
    "has_final_line_end", [pytest.param(True, id="final line end"), pytest.param(False, id="no final line end")]
)
def test_every_kind_of_line_end_is_read(world: World, line_end: str, has_final_line_end: bool) -> None:
    """Files of Windows, of Unix and of an old Mac, with and without the last line end."""
    one, two = world.identifiers(2)
    content = line_end.join(["identifier,name", f"{one},Zwölf", f"{two},Elf"])
    content += line_end if has_final_line_end else ""

    ended = world.import_file(content.encode("cp1252"))

    assert (ended.status, ended.encoding, ledger(ended)) == (Status.COMPLETED, "Windows-1252", (2, 2, 0, 0))
    assert world.products("name")[one] == "Zwölf"


def deliver_trigger_without_broker(world: World) -> ImportTrigger:
    """Uploads a file of one good row, validates it, and fails to send its batch. Returns the trigger."""
    (identifier,) = world.identifiers(1)
    import_uuid = world.upload(f"identifier,price\r\n{identifier},1.00\r\n")
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    world.broker.down = True
    assert world.deliver(trigger) == 503
    world.broker.down = False
    return trigger


def test_a_failed_claim_shortens_its_lease(world: World) -> None:
    """A fault that passes costs an import two seconds instead of a whole lease."""
    deliver_trigger_without_broker(world)

    ends_within = "lease_until <= clock_timestamp() + interval '2 s'"
    assert world.rows("service", f"select processing_step, {ends_within} from imports") == [("PUBLISH", True)]


def test_batches_that_have_their_results_are_not_sent_again(world: World) -> None:
    """The next worker finds every result stored, and ends the import."""
    trigger = deliver_trigger_without_broker(world)
    world.change("service", "update import_batches set updated = size, unchanged = 0, failed = 0")
    world.let_time_pass()

    assert world.deliver(trigger) == 200

    assert not world.broker.of(ImportBatch)
    ended = world.find(trigger.import_uuid)
    assert (ended.status, ended.reason) == (
        Status.COMPLETED,
        "The only row is applied: 1 updated, 0 already up to date.",
    )


def test_rows_that_differ_from_the_validated_ones_are_not_sent(world: World) -> None:
    """The batches of a run stay as they were validated, even if later code reads the file differently."""
    trigger = deliver_trigger_without_broker(world)
    world.change("service", "update import_batches set row_numbers = '{[7,8)}'")
    world.let_time_pass()

    assert world.deliver(trigger) == 200

    assert not world.broker.of(ImportBatch)
    ended = world.find(trigger.import_uuid)
    assert (ended.status, ledger(ended)) == (Status.FAILED_UNEXPECTEDLY, (1, 0, 0, 1))
    assert "not the same as when it was validated" in ended.reason


def test_a_worker_that_loses_its_lease_stops_validating(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stores nothing: the file belongs to the worker that has claimed the import since."""
    monkeypatch.setattr(import_batches, "RENEW_AFTER_SECONDS", -1)
    import_uuid = world.upload("identifier,price\r\nnowhere,1\r\n,2\r\n")
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    world.bucket.before_read = lambda: world.change("service", "update imports set token = token + 1")

    assert world.deliver(trigger) == 200

    current = world.find(import_uuid)
    assert (current.status, current.processing_step, ledger(current)) == (Status.IMPORTING, Step.VALIDATE, (0, 0, 0, 0))
    assert not world.errors(import_uuid)


def test_a_claim_that_finds_its_gate_closed_ends_the_import(world: World) -> None:
    """The worker that closed it died before it wrote the final state. The next one writes it, and sends nothing."""
    (identifier,) = world.identifiers(1)
    import_uuid = world.upload(table([["identifier", "price"], [identifier, "1.11"]]))
    world.deliver_upload(import_uuid)
    with world.own_engines["product"].begin() as conn:
        gate.close_gate(conn, import_uuid, 1, "The file is gone.")

    world.run()

    ended = world.find(import_uuid)
    assert (ended.status, ledger(ended)) == (Status.FAILED_UNEXPECTEDLY, (1, 0, 0, 1))
    assert "The file is gone." in ended.reason
    assert not world.broker.of(ImportBatch)
