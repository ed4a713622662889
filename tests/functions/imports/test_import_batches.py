"""import_batches, through the framework: bad files end in a clear state, good ones are cut into batches."""

import io
import zipfile

import pytest

from functions.imports.states import MAX_BATCH_BYTES, MAX_BATCH_ROWS, MAX_FILE_BYTES, Status, Step
from shared.messages import ImportBatch, ImportTrigger
from tests.world import World, ledger, table


def xlsx() -> bytes:
    """As much of a workbook as its first bytes show."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


HEADERS, ROWS = Status.FAILED_HEADERS, Status.FAILED_WITH_VALIDATION_ERRORS

BAD_FILES = {
    "empty": (b"", HEADERS, "empty"),
    "header only": (b"identifier,price\r\n", ROWS, "no rows"),
    "header and blank rows": (b"identifier,price\r\n\r\n,\r\n", ROWS, "no rows"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), HEADERS, "PNG"),
    "a workbook": (xlsx(), HEADERS, "XLSX"),
    "an unknown column": (b"identifier,prise\r\nA,1\r\n", HEADERS, '"price"'),
    "a repeated column": (b"identifier,price,Price\r\nA,1,2\r\n", HEADERS, "price"),
    "no identifier": (b"name,price\r\nA,1\r\n", HEADERS, "identifier"),
    "ten thousand columns": (b"identifier" + b",x" * 10_000 + b"\r\nA\r\n", HEADERS, "x"),
    "one huge cell": (b"identifier,name\r\nA," + b"x" * 5_000_000 + b"\r\n", ROWS, "The only row could not"),
    "an unclosed quote": (b'identifier,name\r\nA,"abc\r\nB,c\r\n', ROWS, "The only row could not"),
    "a NUL byte": (b"identifier,name\r\nA,a\0b\r\n", ROWS, "The only row could not"),
    "too large": (b"identifier,name\r\n" + b"x" * MAX_FILE_BYTES, ROWS, "5,242,880"),
}


@pytest.mark.parametrize(("content", "status", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_ends_with_a_reason_and_a_balanced_ledger(world: World, content, status, says):
    """A clear final state, nothing applied, nothing left on the way."""
    found = world.import_file(content)

    assert (found.status, found.progress_percent) == (status, 100), found.reason
    assert says in found.reason
    assert found.total_rows == found.updated_rows + found.unchanged_rows + found.failed_rows
    assert found.failed_rows == len(world.errors(found.uuid))
    assert not world.broker.of(ImportBatch)


@pytest.mark.parametrize("operation", ["INSERT", "UPSERT", "DELETE", "insert", "DROP TABLE imports"])
def test_any_operation_but_update_is_refused_by_name(world, operation):
    """Not guessed: a merchant who wants to insert must not get an update."""
    found = world.import_file("identifier,price\r\nA,1\r\n", operation=operation)

    assert (found.status, ledger(found)) == (Status.INVALID_OPERATION_TYPE, (0, 0, 0, 0))
    assert operation.upper() in found.reason
    assert "UPDATE" in found.reason


def test_batches_are_up_to_500_rows_and_say_where_they_come_from(world):
    """Row numbers are a spreadsheet's, refused and blank rows lie between them."""
    rows = [[f"A-{number}", "1"] for number in range(1100)]
    rows[3] = ["", "1"]
    rows[7] = ["", ""]
    import_uuid = world.upload(table([["identifier", "price"], *rows]))
    world.deliver_upload(import_uuid)
    (trigger,) = world.broker.take(ImportTrigger)
    world.deliver(trigger)

    batches = world.broker.take(ImportBatch)

    assert [len(batch.rows) for batch in batches] == [500, 500, 98]
    numbers = [number for batch in batches for number in batch.row_numbers]
    assert numbers == [number for number in range(2, 1102) if number not in (5, 9)]
    assert {batch.columns for batch in batches} == {("identifier", "price")}
    found = world.find(import_uuid)
    assert (found.processing_step, found.processing_offset, found.total_rows) == (Step.APPLY, 1099, 1099)
    assert (found.failed_rows, found.progress_percent) == (1, 0)


def test_a_batch_stays_below_what_kafka_takes(world):
    """Long texts make smaller batches, every row still in one."""
    long = "€" * 255
    header = ["identifier", "name", "product_url"]
    rows = [[f"A-{number}", long, f"https://example.com/{'x' * 1900}"] for number in range(1500)]
    import_uuid = world.upload(table([header, *rows]))
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())

    batches = world.broker.take(ImportBatch)

    assert max(len(batch.encoded()) for batch in batches) < MAX_BATCH_BYTES + 100 * MAX_BATCH_ROWS
    assert len(batches) > 3
    assert sum(len(batch.rows) for batch in batches) == 1500


def test_abort_sends_nothing_when_any_row_is_refused(world):
    """With on_error=abort the file is applied whole or not at all; good rows say that nothing is wrong with them."""
    one, two = world.identifiers(2)

    found = world.import_file(table([["identifier", "price"], [one, "1"], [two, "x"]]), on_error="abort")

    assert (found.status, ledger(found)) == (ROWS, (2, 0, 0, 2))
    assert "nothing was applied" in found.reason
    assert not world.broker.of(ImportBatch)
    codes = {number: errors[0]["code"] for number, errors in world.errors(found.uuid).items()}
    assert codes == {2: "not_applied", 3: "not_a_number"}


@pytest.mark.parametrize(("cell", "code"), [("nowhere,9", "not_found"), ("{known},3", "maximum_below_minimum")])
def test_abort_asks_the_product_database_before_anything_is_sent(world, cell, code):
    """Unknown identifiers and rules on stored values count as refused rows too."""
    one, two = world.identifiers(2)
    world.change("product", "update products set minimum_stock = 5, maximum_stock = 50")
    content = f"identifier,maximum_stock\r\n{one},9\r\n{cell.format(known=two)}\r\n"

    found = world.import_file(content, on_error="abort")

    assert (found.status, ledger(found)) == (ROWS, (2, 0, 0, 2))
    codes = {number: errors[0]["code"] for number, errors in world.errors(found.uuid).items()}
    assert codes == {2: "not_applied", 3: code}
    assert world.products("maximum_stock")[one] == 50


def test_abort_with_nothing_refused_is_applied(world):
    """The careful way costs a question, not the import."""
    one, two = world.identifiers(2)

    found = world.import_file(table([["identifier", "price"], [one, "1"], [two, "2"]]), on_error="abort")

    assert (found.status, found.failed_rows) == (Status.COMPLETED, 0)


def test_a_product_that_vanishes_after_the_check_is_a_failed_row(world):
    """Between question and answer the world may change."""
    one, two = world.identifiers(2)
    import_uuid = world.upload(table([["identifier", "price"], [one, "1.11"], [two, "2.22"]]), on_error="abort")
    world.deliver_upload(import_uuid)
    world.deliver(world.broker.waiting.popleft())
    world.change("product", "update products set identifier = 'gone' where identifier = :i", i=two)

    world.run()

    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.COMPLETED_WITH_ERRORS, (2, 1, 0, 1))


def test_a_file_replaced_before_it_is_read_fails_the_import(world):
    """What is in the bucket now is not what was uploaded."""
    import_uuid = world.upload("identifier,price\r\nA,1\r\n")
    world.deliver_upload(import_uuid)
    world.put(import_uuid, "identifier,price\r\nB,2\r\n")

    world.run()

    found = world.find(import_uuid)
    assert (found.status, ledger(found)) == (Status.FAILED_UNEXPECTEDLY, (0, 0, 0, 0))
    assert "products.csv" in found.reason


@pytest.mark.parametrize(
    "ending", [pytest.param("\n", id="LF"), pytest.param("\r\n", id="CRLF"), pytest.param("\r", id="CR")]
)
@pytest.mark.parametrize("last", [True, False], ids=["final newline", "none"])
def test_line_ends_of_every_kind(world, ending, last):
    """Windows, Unix, an old Mac, with and without the last one."""
    one, two = world.identifiers(2)
    content = ending.join(["identifier,name", f"{one},Zwölf", f"{two},Elf"]) + (ending if last else "")

    found = world.import_file(content.encode("cp1252"))

    assert (found.status, found.encoding, ledger(found)) == (Status.COMPLETED, "Windows-1252", (2, 2, 0, 0))
    assert world.products("name")[one] == "Zwölf"
