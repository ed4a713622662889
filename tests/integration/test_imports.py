"""Imports by merchants and by programs, on a running stack."""

from __future__ import annotations

import csv
import io
import uuid
import zipfile
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from functions.imports.states import ACTIVE, MAX_FILE_BYTES
from tests.integration.catalogue import csv_of, new_values
from tests.integration.database import GATES, ONE_PRODUCT, Hold
from tests.integration.shop import put
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from google.cloud import storage  # type: ignore[attr-defined]  # a namespace that other packages type

    from tests.integration.catalogue import Catalogue
    from tests.integration.shop import Shop
    from tests.integration.stack import Databases, LocalStack

MIXED_ROWS = """identifier;name;price;stock_on_hand;ean_code
{0};Süßes für Müller, 5 €;1.234,50;7;4006381333931
{1};twelve five nil;12,5,0;1;
{2};one comma three digits;1,234;1;
{3};damaged by a spreadsheet;1,00;1;4,00638E+12
{4};Crème brûlée;2,25;-3;
{0};same product as row 2;3,00;1;
merchant's;no such product;3,00;1;
{5};too precise;9,999;1;
"""


def test_a_clean_file_is_applied_and_mirrored(shop: Shop, catalogue: Catalogue) -> None:
    """Its import ends COMPLETED, and its values are in the product database and in the legacy database."""
    rows = new_values(catalogue.identifiers(700))

    import_uuid = shop.upload(csv_of(rows), "spring.csv", size_bytes=len(csv_of(rows)))
    ended = shop.wait_for_end(import_uuid)

    assert (ended["status"], ended["total_rows"], ended["updated_rows"]) == ("COMPLETED", 700, 700)
    assert (ended["file_name"], ended["user_uuid"], ended["run"]) == ("spring.csv", shop.user_uuid, 1)
    assert (ended["encoding"].lower(), ended["delimiter"], ended["processing_offset"]) == ("utf-8", ",", 700)
    catalogue.assert_applied(import_uuid, rows)


def test_a_large_file_shows_its_progress(shop: Shop, catalogue: Catalogue, databases: Databases) -> None:
    """Its counts only grow while it runs, until all rows are applied."""
    rows = new_values(catalogue.identifiers(20_000))
    snapshots: list[dict[str, Any]] = []

    def is_ended() -> bool:
        """Adds a snapshot of the import, and says whether it is the last."""
        if snapshot := shop.find(import_uuid):
            snapshots.append(snapshot)
        return bool(snapshots) and snapshots[-1]["status"] not in ACTIVE

    with (
        Hold(databases.product, GATES) as gates,  # no batch is sent
        Hold(databases.product, ONE_PRODUCT, webshop=shop.webshop_uuid, identifier=list(rows)[-1]),
    ):
        import_uuid = shop.upload(csv_of(rows))
        wait_until(lambda: is_ended() or (snapshots and snapshots[-1]["total_rows"]), "the number of rows")
        gates.release()
        wait_until(lambda: is_ended() or snapshots[-1]["updated_rows"] >= 19_000, "95 per cent of the import")
        assert 95 <= snapshots[-1]["progress_percent"] <= 99
    wait_until(is_ended, "the end of the import")

    assert (snapshots[-1]["status"], snapshots[-1]["updated_rows"]) == ("COMPLETED", 20_000)
    for field, least_values in (("progress_percent", 3), ("updated_rows", 3), ("processing_offset", 2)):
        values = [snapshot[field] for snapshot in snapshots]
        assert values == sorted(values)
        assert len(set(values)) >= least_values, f"{field} was only {sorted(set(values))}"
    assert {snapshot["total_rows"] for snapshot in snapshots} <= {0, 20_000}
    catalogue.assert_applied(import_uuid, rows)


def test_the_corrected_error_report_of_a_mixed_file_can_be_imported(shop: Shop, catalogue: Catalogue) -> None:
    """A spreadsheet saved the file. Its good rows are applied; only cells of the report are corrected."""
    identifiers = catalogue.identifiers(6)
    import_uuid = shop.upload(MIXED_ROWS.format(*identifiers).replace("\n", "\r\n").encode("cp1252"), "Preise März.csv")
    first = shop.wait_for_end(import_uuid)

    assert first["status"] == "COMPLETED_WITH_ERRORS"
    assert (first["updated_rows"], first["failed_rows"], first["total_rows"]) == (2, 6, 8)
    assert (first["encoding"], first["delimiter"]) == ("Windows-1252", ";")
    values = catalogue.values(identifiers)
    assert values[identifiers[0]] == ("Süßes für Müller, 5 €", Decimal("1234.50"), 7)
    assert values[identifiers[4]] == ("Crème brûlée", Decimal("2.25"), -3)

    response = shop.call("GET", f"imports/{import_uuid}/errors")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    report = list(csv.DictReader(io.StringIO(response.body.decode("utf-8-sig")), delimiter=";"))
    assert [row["Row number"] for row in report] == ["3", "4", "5", "7", "8", "9"]
    assert [row["Error columns"] for row in report] == [
        "price",
        "price",
        "ean_code",
        "identifier",
        "identifier",
        "price",
    ]
    assert [row["name"] for row in report][:2] == ["twelve five nil", "one comma three digits"]
    assert "row 2" in report[3]["Errors"].lower()

    for row in report:
        row["price"], row["ean_code"] = "4,25", "4006381333931"
    report[3]["identifier"], report[4]["identifier"] = catalogue.identifiers(8)[6:]
    corrected = io.StringIO()
    writer = csv.DictWriter(corrected, report[0], delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(report)
    second = shop.wait_for_end(shop.upload(corrected.getvalue().encode("utf-8-sig"), "corrected.csv"))

    assert (second["status"], second["updated_rows"]) == ("COMPLETED", 6)
    assert second["skipped_columns"] == ["Row number", "Error columns", "Error codes", "Errors"]
    assert catalogue.values(identifiers)[identifiers[1]] == ("twelve five nil", Decimal("4.25"), 1)


def xlsx_start() -> bytes:
    """A ZIP archive with the first files of an XLSX workbook: enough to recognize the type."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


# id: the file, the options of its import, the final state, a part of the reason
REFUSED_FILES: dict[str, tuple[bytes, dict[str, str], str, str]] = {
    "unknown heading": (b"identifier,prise\r\nP-000001,1.00\r\n", {}, "FAILED_HEADERS", "prise"),
    "repeated heading": (b"identifier,price,Price\r\nP-000001,1.00,2.00\r\n", {}, "FAILED_HEADERS", "price"),
    "no identifier": (b"name,price\r\nMug,1.00\r\n", {}, "FAILED_HEADERS", "identifier"),
    "empty file": (b"", {}, "FAILED_HEADERS", "empty"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", {}, "FAILED_HEADERS", "PNG"),
    "workbook": (xlsx_start(), {}, "FAILED_HEADERS", "XLSX"),
    "heading alone": (b"identifier,price\r\n", {}, "FAILED_WITH_VALIDATION_ERRORS", "no rows"),
    "too large": (b"identifier\r\n".ljust(MAX_FILE_BYTES + 1, b"x"), {}, "FAILED_WITH_VALIDATION_ERRORS", "5 MB"),
    "nothing applies": (b"identifier,price\r\nno-such,1.00\r\n", {}, "FAILED_WITH_VALIDATION_ERRORS", "The only row"),
    "abort": (
        b"identifier,price\r\nP-000001,123456.78\r\nno-such,1.00\r\n",
        {"on_error": "abort"},
        "FAILED_WITH_VALIDATION_ERRORS",
        "on_error=abort",
    ),
    "insert": (b"identifier,price\r\nnew,1.00\r\n", {"operation": "INSERT"}, "INVALID_OPERATION_TYPE", "INSERT"),
}


@pytest.mark.parametrize("case", REFUSED_FILES)
def test_a_refused_file_changes_no_product(shop: Shop, databases: Databases, case: str) -> None:
    """The final state and the reason say why the file was refused."""
    content, options, status, reason_part = REFUSED_FILES[case]

    import_uuid = shop.upload(content, **options)
    ended = shop.wait_for_end(import_uuid)

    assert ended["status"] == status
    assert reason_part.lower() in ended["reason"].lower()
    assert ended["updated_rows"] == ended["unchanged_rows"] == 0
    statement = "select coalesce(sum(updated), 0) from import_outcomes where import_uuid = cast(:uuid as uuid)"
    assert databases.product.value(statement, uuid=import_uuid) == 0


def test_a_declared_size_over_the_limit_is_refused_before_the_upload(shop: Shop) -> None:
    """A client that declares the size does not send a file that cannot be imported."""
    response = shop.call("POST", "imports", {"file_name": "large.csv", "size_bytes": MAX_FILE_BYTES + 1})

    assert response.status == 422
    assert "5 MB" in response.json["detail"]


def put_file(bucket: storage.Bucket, path: str, content: bytes, metadata: dict[str, str]) -> None:
    """Writes an object as a program does, without the API."""
    blob = bucket.blob(path)
    blob.metadata = metadata
    blob.upload_from_string(content, content_type="text/csv")


def test_a_file_that_a_program_writes_is_imported(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """A file with its metadata becomes an import without a call of the API. Other paths are ignored and logged."""
    rows = new_values(catalogue.identifiers(30))
    import_uuid = str(uuid.uuid4())
    metadata = {"user-uuid": shop.user_uuid, "operation": "UPDATE", "on-error": "partial"}
    before = shop.uuids()
    other_paths = (
        f"imports/{uuid.uuid4()}.csv",
        f"imports/{shop.webshop_uuid}/{uuid.uuid4()}/too/deep.csv",
        f"imports/{shop.webshop_uuid}/not-a-uuid/products.csv",
    )

    for path in other_paths:
        put_file(stack.bucket(), path, csv_of(rows), metadata)
    put_file(stack.bucket(), f"imports/{shop.webshop_uuid}/{import_uuid}/nightly.csv", csv_of(rows), metadata)
    ended = shop.wait_for_end(import_uuid)

    assert (ended["status"], ended["file_name"]) == ("COMPLETED", "nightly.csv")
    catalogue.assert_applied(import_uuid, rows)
    wait_until(lambda: all(stack.is_delivered(path) for path in other_paths), "the events of the other files")
    assert shop.uuids() - before == {import_uuid}
    for path in other_paths:
        assert stack.read_log("import_upload").count(path) == 1


def test_a_file_without_a_user_fails_with_that_reason(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """Such an import has no user to ask, so its rows are not applied. A user of the webshop may retry it."""
    rows = new_values(catalogue.identifiers(10))
    import_uuid = str(uuid.uuid4())

    put_file(stack.bucket(), f"imports/{shop.webshop_uuid}/{import_uuid}/f.csv", csv_of(rows), {"operation": "UPDATE"})
    failed = shop.wait_for_end(import_uuid)

    assert (failed["status"], failed["user_uuid"]) == ("FAILED_UNEXPECTEDLY", None)
    assert "user-uuid" in failed["reason"]

    assert shop.retry(import_uuid).status == 202
    retried = shop.wait_for_end(import_uuid)

    assert (retried["status"], retried["user_uuid"], retried["run"]) == ("COMPLETED", shop.user_uuid, 2)


def test_of_two_imports_at_once_one_runs(shop: Shop, catalogue: Catalogue, databases: Databases) -> None:
    """The API refuses the other import, or it fails with the uuid of the first. A retry applies all of it."""
    first_rows, second_rows = (new_values(catalogue.identifiers(600)) for _ in range(2))
    [blocked] = catalogue.identifiers(1)
    first, second = shop.start_import("first.csv"), shop.start_import("second.csv")

    with Hold(databases.product, ONE_PRODUCT, webshop=shop.webshop_uuid, identifier=blocked):
        put(first, csv_of(first_rows))
        shop.wait_for(first["uuid"], "to be imported", status="IMPORTING")
        put(second, csv_of(second_rows))
        failed = shop.wait_for_end(second["uuid"])

        assert failed["status"] == "FAILED_UNEXPECTEDLY"
        assert first["uuid"] in failed["reason"]
        for response in (shop.retry(second["uuid"]), shop.call("POST", "imports", {"file_name": "third.csv"})):
            assert (response.status, response.json["active_import_uuid"]) == (409, first["uuid"])
            assert response.headers["Content-Type"] == "application/problem+json"

    assert shop.wait_for_end(first["uuid"])["status"] == "COMPLETED"
    catalogue.assert_applied(first["uuid"], first_rows)
    assert shop.retry(second["uuid"]).json["status"] == "IN_QUEUE"
    assert shop.wait_for_end(second["uuid"])["status"] == "COMPLETED"
    catalogue.assert_applied(second["uuid"], second_rows, run=2)
    assert shop.retry(second["uuid"]).status == 409


def test_imports_are_hidden_from_users_of_other_webshops(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """A valid token of another webshop's user does not help to find, retry or list them, nor does an invalid token."""
    import_uuid = shop.upload(csv_of(new_values(catalogue.identifiers(5))))
    shop.wait_for_end(import_uuid)
    stranger = stack.other_shop()

    assert stranger.find(import_uuid) is None
    assert import_uuid not in stranger.uuids()
    assert stranger.retry(import_uuid).status == 404
    assert stranger.call("GET", f"imports/{import_uuid}/errors").status == 404
    for token, status in ((stranger.token, {403, 404}), ("none", {401})):
        intruder = type(shop)(shop.api_url, shop.webshop_uuid, stranger.user_uuid, token)
        for path in ("imports", f"imports/{import_uuid}", f"imports/{import_uuid}/errors"):
            assert intruder.call("GET", path).status in status
