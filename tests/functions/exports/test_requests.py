"""What is refused before anything is rendered, and what the refusal says: the part at fault, and what is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from functions.exports.identifiers import DEFAULT_IDENTIFIERS, IDENTIFIERS
from functions.exports.requests import MAX_CONDITIONS, MAX_VALUES, CreateExport, checked
from functions.exports.source import FileType
from functions.exports.sources import SOURCES
from shared.problems import Problem


def request(**fields: Any) -> CreateExport:
    """A request's body as it is decoded."""
    body = {"source": "products", "file_name": "x", "file_type": "CSV", **fields}
    return msgspec.json.decode(msgspec.json.encode(body), type=CreateExport)


def filtering(column: str = "price", operator: str | None = "gt", **value: Any) -> dict[str, Any]:
    return {"filters": [{"column": column, "operator": operator, **value}]}


def nested(depth: int) -> dict[str, Any]:
    filters: list[Any] = [{"column": "price", "operator": "gt", "value": 1}]
    for _ in range(depth):
        filters = [{"all": filters}]
    return {"filters": filters}


@pytest.mark.parametrize(
    ("fields", "at", "says"),
    [
        pytest.param({"source": "users"}, "source", "Known: products, suppliers", id="unknown source"),
        pytest.param({"source": "product"}, "source", 'Did you mean "products"?', id="misspelled source"),
        pytest.param({"file_type": "DOCX"}, "file_type", "Known: CSV, XLSX.", id="unknown file type"),
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
            'Did you mean "price"? Known: identifier, name',
            id="misspelled column",
        ),
        pytest.param(
            {"columns": ["name; drop table products"]}, "columns[0]", "There is no column", id="column with SQL"
        ),
        pytest.param({"sorts": [{"column": "nope"}]}, "sorts[0].column", "Known: identifier", id="unknown sort column"),
        pytest.param(
            {"sorts": [{"column": "name"}, {"column": "name"}]}, "sorts[1].column", "twice", id="repeated sort column"
        ),
        pytest.param(
            {"parents": {"supplier_uuid": "5ab2a4ee-6d4f-4f3e-9f0c-2f1f1b6a0001"}},
            "parents.supplier_uuid",
            "cannot be",
            id="unknown parent",
        ),
        pytest.param(filtering("nope", value=1), "filters[0].column", "Known: identifier", id="unknown filter column"),
        pytest.param(
            filtering("price", "~", value=1),
            "filters[0].operator",
            "Allowed: eq, ne, in, is_null, gt",
            id="unknown operator",
        ),
        pytest.param(
            filtering("price", "contains", value="1"),
            "filters[0].operator",
            "(decimal) has no operator",
            id="operator of another type",
        ),
        pytest.param(filtering("price", None, value=1), "filters[0].operator", "Allowed", id="no operator"),
        pytest.param(
            filtering("price", value="x"),
            "filters[0].value",
            'takes a number, such as 12.5, not "x"',
            id="text for a number",
        ),
        pytest.param(filtering("price", value=True), "filters[0].value", "takes a number", id="boolean for a number"),
        pytest.param(filtering("price", value="1e9"), "filters[0].value", "takes a number", id="E-notation"),
        pytest.param(filtering("price", value="NaN"), "filters[0].value", "takes a number", id="NaN"),
        pytest.param(filtering("price", value=None), "filters[0].value", "is_null", id="null"),
        pytest.param(filtering("price"), "filters[0].value", "not nothing", id="no value"),
        pytest.param(filtering("price", value=[1]), "filters[0].value", "takes a number", id="list for a number"),
        pytest.param(
            filtering("stock_on_hand", value=1.5), "filters[0].value", "a whole number", id="decimal for an integer"
        ),
        pytest.param(filtering("stock_on_hand", value=10**30), "filters[0].value", "a whole number", id="huge integer"),
        pytest.param(
            filtering("unlimited_stock", "eq", value="yes"),
            "filters[0].value",
            "true or false",
            id="text for a boolean",
        ),
        pytest.param(
            filtering("created_at", value="2026-05-31"),
            "filters[0].value",
            "2026-05-31T12:00:00Z",
            id="time without a zone",
        ),
        pytest.param(filtering("uuid", "eq", value="1"), "filters[0].value", "a UUID", id="malformed uuid"),
        pytest.param(filtering("name", "eq", value="a\0b"), "filters[0].value", "NUL", id="NUL"),
        pytest.param(filtering("name", "in", value="a"), "filters[0].value", "takes a list", id="text for a list"),
        pytest.param(filtering("name", "in", value=[]), "filters[0].value", "at least one", id="empty list"),
        pytest.param(
            filtering("name", "in", value=["a", 1]), "filters[0].value[1]", "takes a text", id="list with a number"
        ),
        pytest.param(
            filtering("name", "in", value=["a"] * (MAX_VALUES + 1)),
            "filters[0].value",
            "at most 10,000",
            id="long list",
        ),
        pytest.param(
            filtering("price", "between", value=[2, 1]),
            "filters[0].value",
            "the smaller value stands first",
            id="between, descending",
        ),
        pytest.param(
            filtering("price", "between", value=["10", "9.5"]),
            "filters[0].value",
            "the smaller value stands first",
            id="between, descending texts",
        ),
        pytest.param(
            filtering("price", "between", value=[1]), "filters[0].value", "two values", id="between, one value"
        ),
        pytest.param(
            filtering("price", "is_null", value="yes"), "filters[0].value", "true or false", id="text for is_null"
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
            {"filters": [{"all": [{"any": [filtering(value="x")["filters"][0]]}]}]},
            "filters[0].all[0].any[0].value",
            "n",
            id="nested filter",
        ),
        pytest.param(
            {"filters": filtering(value=1)["filters"] * 10_000},
            "filters",
            f"may have {MAX_CONDITIONS:,} filters",
            id="10,000 filters",
        ),
        pytest.param(nested(40), "filters" + "[0].all" * 10, "10 deep", id="40 levels"),
    ],
)
def test_a_refusal_names_the_fault_and_what_is_allowed(fields: dict[str, Any], at: str, says: str) -> None:
    """422, the field, and a sentence that helps."""
    with pytest.raises(Problem) as raised:
        checked(request(**fields))

    assert (raised.value.status, raised.value.type, raised.value.at) == (422, "refused-input", at)
    assert says in raised.value.detail
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
def test_another_shape_is_refused_when_it_is_decoded(fields: dict[str, Any]) -> None:
    """The door makes 422 of it, with the field."""
    with pytest.raises(msgspec.ValidationError, match=r"\$|unknown field"):
        request(**fields)


@pytest.mark.parametrize("name", ["csv", "Csv", "CSV"])
def test_a_file_type_is_taken_in_any_case(name: str) -> None:
    """Nobody should be refused for a capital letter."""
    assert checked(request(file_type=name)).file_type is FileType.CSV


def test_a_request_is_kept_and_read_again_as_it_was() -> None:
    """What is stored beside the export is what is rendered, perhaps in another process."""
    asked = request(
        columns=["name", "price"],
        sorts=[{"column": "price", "direction": "desc"}],
        filters=[{"any": [{"column": "price", "operator": "between", "value": [1, "2.50"]}]}],
        delimiter=";",
    )

    again = msgspec.json.decode(msgspec.json.encode(asked), type=CreateExport)

    assert again == asked
    assert checked(again).conditions == checked(asked).conditions


def test_no_columns_means_all_of_them() -> None:
    """But of a product's identifiers on a buy order only those that are set, in an order that is always the same."""
    assert checked(request()).columns == SOURCES["products"].columns
    chosen = ("SUPPLIER_PRODUCT_ARTICLE_CODE", "SUPPLIER_PRODUCT_SKU_CODE", "WEBSHOP_PRODUCT_SKU_CODE")

    keys = [column.key for column in checked(request(source="buy_orders"), chosen).columns]

    assert [key for key in keys if "product" in key] == [
        "webshop_product_sku_code",
        "supplier_product_sku_code",
        "supplier_product_article_code",
    ]


def test_columns_win_over_settings() -> None:
    """Who names columns gets those."""
    asked = request(source="buy_orders", file_type="PDF", columns=["quantity", "supplier_product_name"])

    assert [column.key for column in checked(asked, DEFAULT_IDENTIFIERS).columns] == asked.columns


def test_every_identifier_has_its_column() -> None:
    """The setting is chosen from the same list."""
    assert [c.identifier for c in SOURCES["buy_orders"].columns if c.identifier] == list(IDENTIFIERS)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_is_whole(source: Any) -> None:
    """Keys and headings are unique, and a spreadsheet's sheet and row can hold them."""
    keys = [column.key for column in source.columns]
    headings = [column.heading for column in source.columns]

    assert len(set(keys)) == len(keys) < 98, "one function call of the server holds a row: 100 arguments"
    assert len(set(headings)) == len(headings)
    assert len(source.heading) <= 31
    assert SOURCES[source.key] is source
