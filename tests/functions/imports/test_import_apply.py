"""import_apply, through the framework, over a real database."""

from uuid import uuid4

import msgspec
import pytest

from functions.imports import gate
from shared.messages import BatchApplied, ImportBatch, ProductsUpdated
from tests.world import World


@pytest.fixture
def batch(world: World):
    """Makes batches of an import whose gate is open."""
    import_uuid = uuid4()
    with world.looking["product"].begin() as product:
        gate.open_gate(product, import_uuid, 1)

    def made(columns: tuple[str, ...], *rows: tuple[str | None, ...], run: int = 1) -> ImportBatch:
        numbers = tuple(range(2, 2 + len(rows)))
        return ImportBatch(world.webshop, import_uuid, run, numbers, columns, rows)

    return made


def test_a_batch_delivered_twice_is_applied_once(world, batch):
    """A message may come again at any time; a sale in between must survive it."""
    (identifier,) = world.identifiers(1)
    message = batch(("identifier", "stock_on_hand"), (identifier, "5"))

    world.deliver(message)
    world.change("product", "update products set stock_on_hand = 3 where identifier = :i", i=identifier)
    world.deliver(message)

    assert world.products("stock_on_hand")[identifier] == 3
    key = (world.webshop, message.import_uuid, 1, 2)
    assert world.broker.sent == [BatchApplied(*key, 1, 0, ()), ProductsUpdated(*key, (identifier,))] * 2


def test_an_empty_cell_leaves_the_value_and_null_clears_it(world, batch):
    """What a merchant does not write stays as it is."""
    one, two = world.identifiers(2)
    world.change("product", "update products set price = 9.99, article_code = '007', name = 'old'")

    world.deliver(batch(("identifier", "price", "article_code", "name"), (one, "", None, "new"), (two, None, "", "")))

    found = world.products("price, article_code, name")
    assert [str(value) for value in found[one]] == ["9.99", "None", "new"]
    assert [str(value) for value in found[two]] == ["None", "007", "old"]


def test_what_is_equal_already_is_unchanged_and_not_mirrored(world, batch):
    """An unchanged file costs half, and nobody downstream hears of it."""
    one, two = world.identifiers(2)
    world.change("product", "update products set price = 1.50 where identifier = :i", i=one)
    world.change("product", "update products set price = 7 where identifier = :i", i=two)

    world.deliver(batch(("identifier", "price"), (one, "1.5"), (two, "1.50")))

    (applied, updated) = world.broker.sent
    assert (applied.updated, applied.unchanged) == (1, 1)
    assert updated.identifiers == (two,)


def test_rules_on_stored_values_refuse_the_row_and_no_other(world, batch):
    """A maximum below the minimum that is stored, and a product that is not there, each name what is wrong."""
    one, two = world.identifiers(2)
    world.change("product", "update products set minimum_stock = 10, maximum_stock = 20")

    world.deliver(batch(("identifier", "maximum_stock"), (one, "9"), ("nowhere", "9"), (two, "11")))

    (applied, _) = world.broker.sent
    assert [(row.row_number, row.errors[0].code) for row in applied.refused] == [
        (2, "maximum_below_minimum"),
        (3, "not_found"),
    ]
    assert applied.refused[0].errors[0].message == (
        "With this row the maximum stock would be 9, below the minimum stock of 10."
    )
    assert world.products("maximum_stock")[one] == 20
    assert world.products("maximum_stock")[two] == 11


def test_a_row_the_database_refuses_does_not_spoil_the_others(world, batch):
    """The platform may have rules that we do not know."""
    one, two, three = world.identifiers(3)
    world.change("product", "alter table products add constraint no_thirteen check (stock_on_hand <> 13) not valid")

    world.deliver(batch(("identifier", "stock_on_hand"), (one, "12"), (two, "13"), (three, "14")))

    (applied, updated) = world.broker.sent
    assert (applied.updated, [row.row_number for row in applied.refused]) == (2, [3])
    assert "no_thirteen" in applied.refused[0].errors[0].message
    assert set(updated.identifiers) == {one, three}


def test_another_webshops_product_is_not_found_and_not_touched(world, batch):
    """Every statement is bounded by the webshop."""
    (theirs,) = world.rows(
        "product",
        "select identifier, name from products where webshop_uuid = :o and identifier not in"
        " (select identifier from products where webshop_uuid = :w) limit 1",
        o=world.tenants.other_webshop_uuid,
        w=world.webshop,
    )

    world.deliver(batch(("identifier", "name"), (theirs[0], "stolen")))

    assert world.broker.sent[0].refused[0].errors[0].code == "not_found"
    assert not world.rows("product", "select 1 from products where name = 'stolen'")


@pytest.mark.parametrize("run", [0, 2])
def test_a_batch_of_another_run_is_fenced_off(world, batch, run):
    """Of what belongs to another attempt nothing is applied and nothing is sent."""
    (identifier,) = world.identifiers(1)

    status = world.deliver(batch(("identifier", "name"), (identifier, "late"), run=run))

    assert status == 200
    assert world.products("name")[identifier] != "late"
    assert not world.broker.sent


def test_twins_at_once_are_applied_once(world, batch):
    """Pub/Sub may push a message twice at the same moment; both end with the one outcome."""
    message = batch(("identifier", "stock_on_hand"), *[(identifier, "77") for identifier in world.identifiers(200)])

    world.at_once(*[lambda: world.deliver(message)] * 4)

    results = [sent for sent in world.broker.sent if isinstance(sent, BatchApplied)]
    assert len(results) == 4
    assert {(result.updated, result.unchanged, result.refused) for result in results} == {(200, 0, ())}


THIRTEEN = """
    create function no_thirteen() returns trigger language plpgsql as $$ begin
        if new.stock_on_hand = 13 then raise exception 'thirteen is not allowed'; end if; return new;
    end $$
"""


@pytest.mark.parametrize(
    "trigger",
    [
        "trigger t before update on products",
        "constraint trigger t after update on products deferrable initially deferred",
    ],
    ids=["at once", "at the end of the transaction"],
)
def test_a_row_that_a_trigger_refuses_does_not_spoil_the_others(world, batch, trigger):
    """Whatever way the platform has of refusing a row, it is one row."""
    one, two, three = world.identifiers(3)
    world.change("product", THIRTEEN)
    world.change("product", f"create {trigger} for each row execute function no_thirteen()")

    status = world.deliver(batch(("identifier", "stock_on_hand"), (one, "12"), (two, "13"), (three, "14")))

    (applied, _) = world.broker.sent
    assert (status, applied.updated, [row.row_number for row in applied.refused]) == (200, 2, [3])


def test_many_batches_with_the_same_products_at_once(world, batch):
    """Somebody else may write the products of a batch at the same moment: it comes out right all the same."""
    identifiers = world.identifiers(100)
    world.change("product", "update products set stock_on_hand = 0")
    forward = batch(("identifier", "stock_on_hand"), *[(identifier, "1") for identifier in identifiers])
    backward = batch(("identifier", "stock_on_hand"), *[(identifier, "2") for identifier in reversed(identifiers)])
    backward = msgspec.structs.replace(backward, row_numbers=tuple(range(1002, 1102)))

    for _ in range(3):
        world.at_once(lambda: world.deliver(forward), lambda: world.deliver(backward))

    assert {result.updated + result.unchanged for result in world.broker.of(BatchApplied)} == {100}
    stock = world.products("stock_on_hand")
    assert len({stock[identifier] for identifier in identifiers}) == 1
