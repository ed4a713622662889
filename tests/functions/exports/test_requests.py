"""Validation of export requests. A refusal names the field at fault and says what is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from functions.exports.identifiers import DEFAULT_IDENTIFIERS, IDENTIFIERS
from functions.exports.requests import MAX_CONDITIONS, MAX_VALUES, CreateExport, validate
from functions.exports.source import FileType, Source
from functions.exports.sources import SOURCES
from shared.problems import Problem


def make_request(**fields: Any) -> CreateExport:
    """Decodes a request's body."""
    body = {"source": "products", "file_name": "x", "file_type": "CSV", **fields}
    return msgspec.json.decode(msgspec.json.encode(body), type=CreateExport)


def filter_by(column: str = "price", operator: str | None = "gt", **value: Any) -> dict[str, Any]:
    return {"filters": [{"column": column, "operator": operator, **value}]}


def nest_filters(depth: int) -> dict[str, Any]:
    filters: list[Any] = [{"column": "price", "operator": "gt", "value": 1}]
    for _ in range(depth):
        filters = [{"all": filters}]
    return {"filters": filters}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        pytest.param({"source": "users"}, "source", "Known sources: products, suppliers", id="unknown source"),
        pytest.param({"source": "product"}, "source", 'Did you mean "products"?', id="misspelled source"),
        pytest.param({"file_type": "DOCX"}, "file_type", "Known file types: CSV, XLSX.", id="unknown file type"),
        pytest.param(
            {"file_type": "PDF"},
            "file_type",
            "Products cannot be exported as PDF. Allowed: CSV, XLSX.",
            id="file type of another source",
        ),
        pytest.param({"columns": []}, "columns", "at least one column", id="no columns"),
        pytest.param({"columns": ["name", "price", "name"]}, "columns[2]", "named twice", id="repeated column"),
        pytest.param(
            {"columns": ["name", "prise"]},
            "columns[1]",
            'Did you mean "price"? Known columns: identifier, name',
            id="misspelled column",
        ),
        pytest.param(
            {"columns": ["name; drop table products"]}, "columns[0]", "There is no column", id="column with SQL"
        ),
        pytest.param(
            {"sorts": [{"column": "nope"}]}, "sorts[0].column", "Known columns: identifier", id="unknown sort column"
        ),
        pytest.param(
            {"sorts": [{"column": "name"}, {"column": "name"}]}, "sorts[1].column", "twice", id="repeated sort column"
        ),
        pytest.param(
            {"parents": {"supplier_uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}},
            "parents.supplier_uuid",
            "cannot be",
            id="unknown parent",
        ),
        pytest.param(
            filter_by("nope", value=1), "filters[0].column", "Known columns: identifier", id="unknown filter column"
        ),
        pytest.param(
            filter_by("price", "~", value=1),
            "filters[0].operator",
            "Allowed: eq, ne, in, is_null, gt",
            id="unknown operator",
        ),
        pytest.param(
            filter_by("price", "contains", value="1"),
            "filters[0].operator",
            "(decimal) has no operator",
            id="operator of another type",
        ),
        pytest.param(filter_by("price", None, value=1), "filters[0].operator", "Allowed", id="no operator"),
        pytest.param(
            filter_by("price", value="x"),
            "filters[0].value",
            'takes a number, such as 12.5, but the value is "x"',
            id="text for a number",
        ),
        pytest.param(filter_by("price", value=True), "filters[0].value", "takes a number", id="boolean for a number"),
        pytest.param(filter_by("price", value="1e9"), "filters[0].value", "takes a number", id="E-notation"),
        pytest.param(filter_by("price", value="NaN"), "filters[0].value", "takes a number", id="NaN"),
        pytest.param(filter_by("price", value=None), "filters[0].value", "is_null", id="null"),
        pytest.param(filter_by("price"), "filters[0].value", "the value is empty", id="no value"),
        pytest.param(filter_by("price", value=[1]), "filters[0].value", "takes a number", id="list for a number"),
        pytest.param(
            filter_by("stock_on_hand", value=1.5), "filters[0].value", "a whole number", id="decimal for an integer"
        ),
        pytest.param(filter_by("stock_on_hand", value=10**30), "filters[0].value", "a whole number", id="huge integer"),
        pytest.param(
            filter_by("unlimited_stock", "eq", value="yes"),
            "filters[0].value",
            "true or false",
            id="text for a boolean",
        ),
        pytest.param(
            filter_by("created_at", value="2026-05-31"),
            "filters[0].value",
            "2026-05-31T12:00:00Z",
            id="time without a zone",
        ),
        pytest.param(filter_by("uuid", "eq", value="1"), "filters[0].value", "a UUID", id="malformed uuid"),
        pytest.param(filter_by("name", "eq", value="a\0b"), "filters[0].value", "NUL", id="NUL"),
        pytest.param(filter_by("name", "in", value="a"), "filters[0].value", "takes a list", id="text for a list"),
        pytest.param(filter_by("name", "in", value=[]), "filters[0].value", "at least one", id="empty list"),
        pytest.param(
            filter_by("name", "in", value=["a", 1]), "filters[0].value[1]", "takes text", id="list with a number"
        ),
        pytest.param(
            filter_by("name", "in", value=["a"] * (MAX_VALUES + 1)),
            "filters[0].value",
            "at most 10,000",
            id="long list",
        ),
        pytest.param(
            filter_by("price", "between", value=[2, 1]),
            "filters[0].value",
            "Write the smaller value first",
            id="between, descending",
        ),
        pytest.param(
            filter_by("price", "between", value=["10", "9.5"]),
            "filters[0].value",
            "Write the smaller value first",
            id="between, descending texts",
        ),
        pytest.param(
            filter_by("price", "between", value=[1]), "filters[0].value", "two values", id="between, one value"
        ),
        pytest.param(
            filter_by("price", "is_null", value="yes"), "filters[0].value", "true or false", id="text for is_null"
        ),
        pytest.param({"filters": [{}]}, "filters[0]", "A filter is one of", id="empty filter"),
        pytest.param({"filters": [{"any": []}]}, "filters[0].any", "at least one filter", id="empty any"),
        pytest.param(
            {"filters": [{"any": [{"column": "a"}], "column": "b"}]},
            "filters[0]",
            "A filter is one of",
            id="group and column",
        ),
        pytest.param(
            {"filters": [{"all": [{"any": [filter_by(value="x")["filters"][0]]}]}]},
            "filters[0].all[0].any[0].value",
            "takes a number",
            id="nested filter",
        ),
        pytest.param(
            {"filters": filter_by(value=1)["filters"] * 10_000},
            "filters",
            f"may have at most {MAX_CONDITIONS:,} filters",
            id="10,000 filters",
        ),
        pytest.param(nest_filters(40), "filters" + "[0].all" * 10, "10 levels deep", id="40 levels"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(fields: dict[str, Any], field: str, message: str) -> None:
    """It is a 422 with the field at fault and a short message that helps."""
    request = make_request(**fields)

    with pytest.raises(Problem) as raised:
        validate(request)

    assert (raised.value.status, raised.value.type, raised.value.field_name) == (422, "refused-input", field)
    assert message in raised.value.detail
    assert len(raised.value.detail) < 1_000


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"delimiter": "\t"}, id="delimiter"),
        pytest.param({"sorts": [{"column": "name", "direction": "sideways"}]}, id="direction"),
        pytest.param({"colums": ["name"]}, id="misspelled field"),
        pytest.param({"columns": "name"}, id="text for a list"),
        pytest.param({"parents": {"supplier_uuid": "1"}}, id="parent not a uuid"),
        pytest.param({"filters": [{"column": "name", "operator": "eq", "value": {"a": 1}}]}, id="object for a value"),
    ],
)
def test_a_body_of_another_shape_is_refused_when_it_is_decoded(fields: dict[str, Any]) -> None:
    """The API answers 422 with the field."""
    with pytest.raises(msgspec.ValidationError, match=r"\$|unknown field"):
        make_request(**fields)


@pytest.mark.parametrize("name", ["csv", "Csv", "CSV"])
def test_a_file_type_is_accepted_in_upper_and_lower_case(name: str) -> None:
    """No request is refused because of a capital letter."""
    assert validate(make_request(file_type=name)).file_type is FileType.CSV


def test_a_stored_request_is_read_back_unchanged() -> None:
    """The stored request is what is rendered, perhaps in another process."""
    request = make_request(
        columns=["name", "price"],
        sorts=[{"column": "price", "direction": "desc"}],
        filters=[{"any": [{"column": "price", "operator": "between", "value": [1, "2.50"]}]}],
        delimiter=";",
    )

    read_back = msgspec.json.decode(msgspec.json.encode(request), type=CreateExport)

    assert read_back == request
    assert validate(read_back).conditions == validate(request).conditions


def test_a_request_without_columns_selects_all() -> None:
    """This is the default of every source; for buy orders the next test shows the exception."""
    assert validate(make_request()).columns == SOURCES["products"].columns


def test_a_buy_order_has_the_chosen_identifiers_by_default() -> None:
    """The columns of the chosen identifiers are always in the same order."""
    identifiers = ("SUPPLIER_PRODUCT_ARTICLE_CODE", "SUPPLIER_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_SKU_CODE")

    keys = [column.key for column in validate(make_request(source="buy_orders"), identifiers).columns]

    assert [key for key in keys if "product" in key] == [
        "webshop_product_sku_code",
        "supplier_product_sku_code",
        "supplier_product_article_code",
    ]


def test_requested_columns_override_the_settings() -> None:
    """A request that names columns gets exactly these."""
    request = make_request(source="buy_orders", file_type="PDF", columns=["quantity", "supplier_product_name"])

    columns = validate(request, DEFAULT_IDENTIFIERS).columns

    assert [column.key for column in columns] == request.columns


def test_every_identifier_has_a_column() -> None:
    """The setting and the columns use the same list."""
    identifiers = [column.identifier for column in SOURCES["buy_orders"].columns if column.identifier]

    assert identifiers == list(IDENTIFIERS)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_is_valid(source: Source) -> None:
    """Keys and headings are unique, and the source fits in a sheet."""
    keys = [column.key for column in source.columns]
    headings = [column.heading for column in source.columns]

    assert len(set(keys)) == len(keys) < 98, (
        "PostgreSQL builds a row with one function call, which has at most 100 arguments"
    )
    assert len(set(headings)) == len(headings)
    assert len(source.heading) <= 31
    assert SOURCES[source.key] is source
