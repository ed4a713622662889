"""import_apply, called through functions-framework, on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import text

from functions.imports import gate
from shared.messages import BatchApplied, ImportBatch, ProductsUpdated
from tests.integration.waiting import wait_until

if TYPE_CHECKING:
    from tests.world import World


class MakeBatch(Protocol):
    """Makes a batch of the test's import: the columns, then the rows."""

    def __call__(self, columns: tuple[str, ...], *rows: tuple[str | None, ...], run: int = 1) -> ImportBatch: ...


@pytest.fixture
def make_batch(world: World) -> MakeBatch:
    """Makes batches of an import whose gate is open."""
    import_uuid = uuid4()
    with world.own_engines["product"].begin() as conn:
        gate.open_gate(conn, import_uuid, 1)

    def make(columns: tuple[str, ...], *rows: tuple[str | None, ...], run: int = 1) -> ImportBatch:
        row_numbers = tuple(range(2, 2 + len(rows)))
        return ImportBatch(world.webshop, import_uuid, run, row_numbers, columns, rows)

    return make


def test_a_batch_delivered_twice_is_applied_once(world: World, make_batch: MakeBatch) -> None:
    """A message may come again at any time. A sale between the two deliveries is not overwritten."""
    (identifier,) = world.identifiers(1)
    batch = make_batch(("identifier", "stock_on_hand"), (identifier, "5"))

    world.deliver(batch)
    world.change("product", "update products set stock_on_hand = 3 where identifier = :i", i=identifier)
    world.deliver(batch)

    assert world.products("stock_on_hand")[identifier] == 3
    key = (world.webshop, batch.import_uuid, 1, 2)
    assert world.broker.sent == [BatchApplied(*key, 1, 0, ()), ProductsUpdated(*key, (identifier,))] * 2


def test_an_empty_cell_leaves_the_value_and_null_clears_it(world: World, make_batch: MakeBatch) -> None:
    """Values that a merchant does not write stay as they are."""
    one, two = world.identifiers(2)
    world.change("product", "update products set price = 9.99, article_code = '007', name = 'old'")

    columns = ("identifier", "price", "article_code", "name")
    world.deliver(make_batch(columns, (one, "", None, "new"), (two, None, "", "")))

    products = world.products("price, article_code, name")
    assert [str(value) for value in products[one]] == ["9.99", "None", "new"]
    assert [str(value) for value in products[two]] == ["None", "007", "old"]


def test_equal_values_are_unchanged_and_not_mirrored(world: World, make_batch: MakeBatch) -> None:
    """An unchanged file costs half, and causes no work in the mirror."""
    one, two = world.identifiers(2)
    world.change("product", "update products set price = 1.50 where identifier = :i", i=one)
    world.change("product", "update products set price = 7 where identifier = :i", i=two)

    world.deliver(make_batch(("identifier", "price"), (one, "1.5"), (two, "1.50")))

    (result,), (update,) = world.broker.of(BatchApplied), world.broker.of(ProductsUpdated)
    assert (result.updated, result.unchanged) == (1, 1)
    assert update.identifiers == (two,)


def test_a_row_that_breaks_a_rule_on_stored_values_is_refused_alone(world: World, make_batch: MakeBatch) -> None:
    """A maximum below the stored minimum and an unknown product are each refused with their own error."""
    one, two = world.identifiers(2)
    world.change("product", "update products set minimum_stock = 10, maximum_stock = 20")

    world.deliver(make_batch(("identifier", "maximum_stock"), (one, "9"), ("nowhere", "9"), (two, "11")))

    (result,), (_,) = world.broker.of(BatchApplied), world.broker.of(ProductsUpdated)
    assert [(row.row_number, row.errors[0].code) for row in result.refused] == [
        (2, "maximum_below_minimum"),
        (3, "not_found"),
    ]
    assert result.refused[0].errors[0].message == (
        "With this row the maximum stock would be 9, below the minimum stock of 10."
    )
    assert world.products("maximum_stock")[one] == 20
    assert world.products("maximum_stock")[two] == 11


def test_a_row_that_the_database_refuses_is_refused_alone(world: World, make_batch: MakeBatch) -> None:
    """The platform may have rules that this project does not know."""
    one, two, three = world.identifiers(3)
    world.change("product", "alter table products add constraint no_thirteen check (stock_on_hand <> 13) not valid")

    world.deliver(make_batch(("identifier", "stock_on_hand"), (one, "12"), (two, "13"), (three, "14")))

    (result,), (update,) = world.broker.of(BatchApplied), world.broker.of(ProductsUpdated)
    assert (result.updated, [row.row_number for row in result.refused]) == (2, [3])
    assert "no_thirteen" in result.refused[0].errors[0].message
    assert set(update.identifiers) == {one, three}


def test_a_product_of_another_webshop_is_not_found_and_not_changed(world: World, make_batch: MakeBatch) -> None:
    """Every statement is limited to the webshop of its batch."""
    ((foreign_identifier,),) = world.rows(
        "product",
        "select identifier from products where webshop_uuid = :o and identifier not in"
        " (select identifier from products where webshop_uuid = :w) limit 1",
        o=world.tenants.other_webshop_uuid,
        w=world.webshop,
    )

    world.deliver(make_batch(("identifier", "name"), (foreign_identifier, "stolen")))

    (result,) = world.broker.of(BatchApplied)
    assert result.refused[0].errors[0].code == "not_found"
    assert not world.rows("product", "select 1 from products where name = 'stolen'")


@pytest.mark.parametrize("run", [pytest.param(0, id="lower run"), pytest.param(2, id="higher run")])
def test_a_batch_of_another_run_is_not_applied(world: World, make_batch: MakeBatch, run: int) -> None:
    """The gate is open for one run: batches of another one change nothing and send nothing."""
    (identifier,) = world.identifiers(1)

    status = world.deliver(make_batch(("identifier", "name"), (identifier, "late"), run=run))

    assert status == 200
    assert world.products("name")[identifier] != "late"
    assert not world.broker.sent


def test_a_batch_delivered_four_times_at_once_is_applied_once(world: World, make_batch: MakeBatch) -> None:
    """Pub/Sub may push a message twice at the same moment. Every delivery sends the same batch result."""
    rows = [(identifier, "77") for identifier in world.identifiers(200)]
    batch = make_batch(("identifier", "stock_on_hand"), *rows)

    world.at_once(*[lambda: world.deliver(batch)] * 4)

    results = world.broker.of(BatchApplied)
    assert len(results) == 4
    assert {(result.updated, result.unchanged, result.refused) for result in results} == {(200, 0, ())}


REFUSE_THIRTEEN = """
    create function no_thirteen() returns trigger language plpgsql as $$ begin
        if new.stock_on_hand = 13 then raise exception 'thirteen is not allowed'; end if; return new;
    end $$
"""


@pytest.mark.parametrize(
    "trigger",
    [
        pytest.param("trigger t before update on products", id="at once"),
        pytest.param(
            "constraint trigger t after update on products deferrable initially deferred",
            id="at the end of the transaction",
        ),
    ],
)
def test_a_row_that_a_trigger_refuses_is_refused_alone(world: World, make_batch: MakeBatch, trigger: str) -> None:
    """A trigger may refuse at once or at the commit. Either way it costs one row."""
    one, two, three = world.identifiers(3)
    world.change("product", REFUSE_THIRTEEN)
    world.change("product", f"create {trigger} for each row execute function no_thirteen()")

    status = world.deliver(make_batch(("identifier", "stock_on_hand"), (one, "12"), (two, "13"), (three, "14")))

    (result,), (_,) = world.broker.of(BatchApplied), world.broker.of(ProductsUpdated)
    assert (status, result.updated, [row.row_number for row in result.refused]) == (200, 2, [3])


def test_batches_with_the_same_products_at_once_do_not_deadlock(world: World, make_batch: MakeBatch) -> None:
    """Both batches list the same products, in opposite order. All rows are applied, by one batch after the other."""
    identifiers = world.identifiers(100)
    world.change("product", "update products set stock_on_hand = 0")
    columns = ("identifier", "stock_on_hand")
    forward = make_batch(columns, *[(identifier, "1") for identifier in identifiers])
    backward = make_batch(columns, *[(identifier, "2") for identifier in reversed(identifiers)])
    backward = msgspec.structs.replace(backward, row_numbers=tuple(range(1002, 1102)))

    for _ in range(3):
        world.at_once(lambda: world.deliver(forward), lambda: world.deliver(backward))

    assert {result.updated + result.unchanged for result in world.broker.of(BatchApplied)} == {100}
    stock = world.products("stock_on_hand")
    assert len({stock[identifier] for identifier in identifiers}) == 1


def test_a_batch_that_waits_too_long_for_a_lock_is_delivered_again(world: World, make_batch: MakeBatch) -> None:
    """The fault is not in its rows: none of them is refused for it."""
    (identifier,) = world.identifiers(1)
    batch = make_batch(("identifier", "stock_on_hand"), (identifier, "5"))
    ((database,),) = world.rows("product", "select current_database()")
    world.change("product", f"alter database \"{database}\" set lock_timeout = '50ms'")
    world.product_db.dispose()  # new connections have the time-out

    with world.own_engines["product"].begin() as conn:
        conn.execute(text("select 1 from products where identifier = :i for update"), {"i": identifier})
        assert world.deliver(batch) == 503
    assert world.deliver(batch) == 200

    assert world.products("stock_on_hand")[identifier] == 5
    assert [result.refused for result in world.broker.of(BatchApplied)] == [()]


def test_a_result_that_is_recorded_at_the_same_moment_is_sent_again(world: World, make_batch: MakeBatch) -> None:
    """Two deliveries of one batch at once both find no result. The later one sends the result of the other."""
    (identifier,) = world.identifiers(1)
    batch = make_batch(("identifier", "stock_on_hand"), (identifier, str(world.products("stock_on_hand")[identifier])))
    other_delivery = world.own_engines["product"].connect()
    other_delivery.execute(
        text(
            "insert into import_outcomes (import_uuid, run, first_row, webshop_uuid, updated, unchanged, refused,"
            " identifiers, mirrored_at, mirror_due_at) values (:i, 1, 2, :w, 0, 7, '[]', '[]', now(), now())"
        ),
        {"i": batch.import_uuid, "w": batch.webshop_uuid},
    )
    statuses = []

    def commit_once_the_other_waits() -> None:
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        wait_until(lambda: world.rows("product", waiting), "the second delivery to wait for the first")
        other_delivery.commit()
        other_delivery.close()

    world.at_once(lambda: statuses.append(world.deliver(batch)), commit_once_the_other_waits)

    assert statuses == [200]
    assert [result.unchanged for result in world.broker.of(BatchApplied)] == [7]
