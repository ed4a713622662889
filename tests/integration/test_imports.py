"""Imports as merchants and programs meet them, on the whole running stack."""

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
{0};a twin of row 2;3,00;1;
nobody's;no such product;3,00;1;
{5};too precise;9,999;1;
"""


def test_a_clean_file(shop: Shop, catalogue: Catalogue) -> None:
    """A clean file ends COMPLETED, and what it says stands in the product database and in the legacy database."""
    rows = new_values(catalogue.identifiers(700))

    import_uuid = shop.upload(csv_of(rows), "spring.csv", size_bytes=len(csv_of(rows)))
    seen = shop.wait_for_end(import_uuid)

    assert (seen["status"], seen["total_rows"], seen["updated_rows"]) == ("COMPLETED", 700, 700)
    assert (seen["file_name"], seen["user_uuid"], seen["run"]) == ("spring.csv", shop.user_uuid, 1)
    assert (seen["encoding"].lower(), seen["delimiter"], seen["processing_offset"]) == ("utf-8", ",", 700)
    catalogue.assert_applied(import_uuid, rows)


def test_a_large_file_shows_its_progress(shop: Shop, catalogue: Catalogue, databases: Databases) -> None:
    """Who looks at a large import while it runs sees it grow, and never shrink, until all is applied."""
    rows = new_values(catalogue.identifiers(20_000))
    seen: list[dict[str, Any]] = []

    def looked() -> bool:
        if found := shop.find(import_uuid):
            seen.append(found)
        return bool(seen) and seen[-1]["status"] not in ACTIVE

    with (
        Hold(databases.product, GATES) as nothing_is_sent,
        Hold(databases.product, ONE_PRODUCT, webshop=shop.webshop_uuid, identifier=list(rows)[-1]),
    ):
        import_uuid = shop.upload(csv_of(rows))
        wait_until(lambda: looked() or (seen and seen[-1]["total_rows"]), "the number of rows")
        nothing_is_sent.release()
        wait_until(lambda: looked() or seen[-1]["updated_rows"] >= 19_000, "95 per cent of the import")
        assert 95 <= seen[-1]["progress_percent"] <= 99
    wait_until(looked, "the end of the import")

    assert (seen[-1]["status"], seen[-1]["updated_rows"]) == ("COMPLETED", 20_000)
    for field, steps in (("progress_percent", 3), ("updated_rows", 3), ("processing_offset", 2)):
        values = [found[field] for found in seen]
        assert values == sorted(values)
        assert len(set(values)) >= steps, f"{field} was only ever {sorted(set(values))}"
    assert {found["total_rows"] for found in seen} <= {0, 20_000}
    catalogue.assert_applied(import_uuid, rows)


def test_a_mixed_file_is_mended_with_its_report(shop: Shop, catalogue: Catalogue) -> None:
    """What a spreadsheet saves: the good rows are applied; the report, mended in its cells, is uploaded as it is."""
    names = catalogue.identifiers(6)
    import_uuid = shop.upload(MIXED_ROWS.format(*names).replace("\n", "\r\n").encode("cp1252"), "Preise März.csv")
    seen = shop.wait_for_end(import_uuid)

    assert seen["status"] == "COMPLETED_WITH_ERRORS"
    assert (seen["updated_rows"], seen["failed_rows"], seen["total_rows"]) == (2, 6, 8)
    assert (seen["encoding"], seen["delimiter"]) == ("Windows-1252", ";")
    values = catalogue.values(names)
    assert values[names[0]] == ("Süßes für Müller, 5 €", Decimal("1234.50"), 7)
    assert values[names[4]] == ("Crème brûlée", Decimal("2.25"), -3)

    answer = shop.call("GET", f"imports/{import_uuid}/errors")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    report = list(csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig")), delimiter=";"))
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
    mended = io.StringIO()
    writer = csv.DictWriter(mended, report[0], delimiter=";", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(report)
    again = shop.wait_for_end(shop.upload(mended.getvalue().encode("utf-8-sig"), "mended.csv"))

    assert (again["status"], again["updated_rows"]) == ("COMPLETED", 6)
    assert again["skipped_columns"] == ["Row number", "Error columns", "Error codes", "Errors"]
    assert catalogue.values(names)[names[1]] == ("twelve five nil", Decimal("4.25"), 1)


def workbook() -> bytes:
    """The beginning of what a spreadsheet saves as XLSX."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


# id: the file, what is asked for, the state it ends in, a word of the reason
REFUSED = {
    "unknown heading": (b"identifier,prise\r\nP-000001,1.00\r\n", {}, "FAILED_HEADERS", "prise"),
    "repeated heading": (b"identifier,price,Price\r\nP-000001,1.00,2.00\r\n", {}, "FAILED_HEADERS", "price"),
    "no identifier": (b"name,price\r\nMug,1.00\r\n", {}, "FAILED_HEADERS", "identifier"),
    "empty file": (b"", {}, "FAILED_HEADERS", "empty"),
    "picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", {}, "FAILED_HEADERS", "PNG"),
    "workbook": (workbook(), {}, "FAILED_HEADERS", "XLSX"),
    "heading alone": (b"identifier,price\r\n", {}, "FAILED_WITH_VALIDATION_ERRORS", "no rows"),
    "too large": (b"identifier\r\n".ljust(MAX_FILE_BYTES + 1, b"x"), {}, "FAILED_WITH_VALIDATION_ERRORS", "5 MB"),
    "nothing applies": (b"identifier,price\r\nno-such,1.00\r\n", {}, "FAILED_WITH_VALIDATION_ERRORS", "None"),
    "abort": (
        b"identifier,price\r\nP-000001,123456.78\r\nno-such,1.00\r\n",
        {"on_error": "abort"},
        "FAILED_WITH_VALIDATION_ERRORS",
        "on_error=abort",
    ),
    "insert": (b"identifier,price\r\nnew,1.00\r\n", {"operation": "INSERT"}, "INVALID_OPERATION_TYPE", "INSERT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_refused(shop: Shop, databases: Databases, case: str) -> None:
    """What cannot be imported ends in the state that says why, with a reason to act on, and changes no product."""
    content, wanted, status, word = REFUSED[case]

    import_uuid = shop.upload(content, **wanted)
    seen = shop.wait_for_end(import_uuid)

    assert seen["status"] == status
    assert word.lower() in seen["reason"].lower()
    assert seen["updated_rows"] == seen["unchanged_rows"] == 0
    outcomes = "select coalesce(sum(updated), 0) from import_outcomes where import_uuid = cast(:uuid as uuid)"
    assert databases.product.value(outcomes, uuid=import_uuid) == 0


def test_a_declared_size_over_the_limit_is_refused_before_the_upload(shop: Shop) -> None:
    """A client that says how large its file is need not send it in vain."""
    answer = shop.call("POST", "imports", {"file_name": "large.csv", "size_bytes": MAX_FILE_BYTES + 1})

    assert answer.status == 422
    assert "5 MB" in answer.json["detail"]


def put_file(bucket: storage.Bucket, path: str, content: bytes, metadata: dict[str, str]) -> None:
    blob = bucket.blob(path)
    blob.metadata = metadata
    blob.upload_from_string(content, content_type="text/csv")


def test_a_program_puts_a_file_into_the_bucket(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """A file with its metadata is an import without any call of the API; a path that is none of ours is ignored."""
    rows = new_values(catalogue.identifiers(30))
    import_uuid = str(uuid.uuid4())
    metadata = {"user-uuid": shop.user_uuid, "operation": "UPDATE", "on-error": "partial"}
    before = shop.uuids()
    others = (
        f"imports/{uuid.uuid4()}.csv",
        f"imports/{shop.webshop_uuid}/{uuid.uuid4()}/too/deep.csv",
        f"imports/{shop.webshop_uuid}/not-a-uuid/products.csv",
    )

    for path in others:
        put_file(stack.bucket(), path, csv_of(rows), metadata)
    put_file(stack.bucket(), f"imports/{shop.webshop_uuid}/{import_uuid}/nightly.csv", csv_of(rows), metadata)
    seen = shop.wait_for_end(import_uuid)

    assert (seen["status"], seen["file_name"]) == ("COMPLETED", "nightly.csv")
    catalogue.assert_applied(import_uuid, rows)
    wait_until(lambda: all(stack.is_delivered(path) for path in others), "the events of the other files")
    assert shop.uuids() - before == {import_uuid}
    for path in others:
        assert stack.read_log("import_upload").count(path) == 1


def test_a_file_without_a_user_fails_with_that_reason(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """Nobody can be asked about such a file: it is not imported, it is not lost either, and a user may retry it."""
    rows = new_values(catalogue.identifiers(10))
    import_uuid = str(uuid.uuid4())

    put_file(stack.bucket(), f"imports/{shop.webshop_uuid}/{import_uuid}/f.csv", csv_of(rows), {"operation": "UPDATE"})
    seen = shop.wait_for_end(import_uuid)

    assert (seen["status"], seen["user_uuid"]) == ("FAILED_UNEXPECTEDLY", None)
    assert "user-uuid" in seen["reason"]

    assert shop.retry(import_uuid).status == 202
    retried = shop.wait_for_end(import_uuid)

    assert (retried["status"], retried["user_uuid"], retried["run"]) == ("COMPLETED", shop.user_uuid, 2)


def test_two_imports_at_the_same_moment(shop: Shop, catalogue: Catalogue, databases: Databases) -> None:
    """One import a webshop: the second is refused, or fails with the first one's uuid, and a retry applies it whole."""
    first_rows, second_rows = (new_values(catalogue.identifiers(600)) for _ in range(2))
    [blocked] = catalogue.identifiers(1)
    first, second = shop.start_import("first.csv"), shop.start_import("second.csv")

    with Hold(databases.product, ONE_PRODUCT, webshop=shop.webshop_uuid, identifier=blocked):
        put(first, csv_of(first_rows))
        shop.wait_for(first["uuid"], "to be imported", status="IMPORTING")
        put(second, csv_of(second_rows))
        seen = shop.wait_for_end(second["uuid"])

        assert seen["status"] == "FAILED_UNEXPECTEDLY"
        assert first["uuid"] in seen["reason"]
        for answer in (shop.retry(second["uuid"]), shop.call("POST", "imports", {"file_name": "third.csv"})):
            assert (answer.status, answer.json["active_import_uuid"]) == (409, first["uuid"])
            assert answer.headers["Content-Type"] == "application/problem+json"

    assert shop.wait_for_end(first["uuid"])["status"] == "COMPLETED"
    catalogue.assert_applied(first["uuid"], first_rows)
    assert shop.retry(second["uuid"]).json["status"] == "IN_QUEUE"
    assert shop.wait_for_end(second["uuid"])["status"] == "COMPLETED"
    catalogue.assert_applied(second["uuid"], second_rows, run=2)
    assert shop.retry(second["uuid"]).status == 409


def test_nobody_sees_the_imports_of_another_webshop(stack: LocalStack, shop: Shop, catalogue: Catalogue) -> None:
    """The user of another webshop, with a valid token, cannot find, retry, report or list it; nor can nobody."""
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
