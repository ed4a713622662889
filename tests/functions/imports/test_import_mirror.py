"""import_mirror, called through functions-framework: the legacy database becomes equal to the product database."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from shared.columns import COLUMNS
from shared.messages import ProductsUpdated

if TYPE_CHECKING:
    from tests.world import World

MIRRORED_COLUMNS = ", ".join(column.key for column in COLUMNS)


def update_of(world: World, *identifiers: str) -> ProductsUpdated:
    """The message that says that an import changed these products."""
    return ProductsUpdated(world.webshop, uuid4(), 1, 2, identifiers)


def test_products_are_mirrored_as_they_are_now(world: World) -> None:
    """All columns are written, missing rows are inserted, and products that the message does not name stay."""
    one, two, three = world.identifiers(3)
    world.change("product", "update products set name = 'now', price = 9.90, product_url = null")
    world.change("legacy", "delete from products where identifier = :i", i=two)
    before = world.products(MIRRORED_COLUMNS, "legacy")[three]

    assert world.deliver(update_of(world, one, two)) == 200

    products, mirrored = world.products(MIRRORED_COLUMNS), world.products(MIRRORED_COLUMNS, "legacy")
    assert (mirrored[one], mirrored[two]) == (products[one], products[two])
    assert mirrored[three] == before


def test_a_product_that_no_longer_exists_leaves_no_empty_row(world: World) -> None:
    """It was removed between its change and the mirroring. A row that the legacy database already has stays."""
    one, two = world.identifiers(2)
    world.change("legacy", "delete from products where identifier = :i", i=one)
    world.change(
        "product", "update products set identifier = identifier || ' (old)' where identifier in (:a, :b)", a=one, b=two
    )

    assert world.deliver(update_of(world, one, two)) == 200

    mirrored = world.products("name", "legacy")
    assert one not in mirrored
    assert two in mirrored


def test_products_of_another_webshop_are_not_changed(world: World) -> None:
    """Two webshops may use the same identifier."""
    (one,) = world.identifiers(1)
    statement = "select name, price from products where webshop_uuid = :w and identifier = :i"
    foreign_product = {"w": world.tenants.other_webshop_uuid, "i": one}
    before = world.rows("legacy", statement, **foreign_product)
    world.change("product", "update products set name = 'changed'")

    world.deliver(update_of(world, one))

    assert before == world.rows("legacy", statement, **foreign_product) != []


def test_messages_about_the_same_products_at_once_do_not_deadlock(world: World) -> None:
    """They may wait for each other. In the end the values are those of the product database."""
    identifiers = world.identifiers(60)
    world.change("product", "update products set name = 'changed'")
    world.change(
        "legacy", "delete from products where identifier in (select identifier from products order by 1 limit 20)"
    )
    messages = [update_of(world, *identifiers[start : start + 40]) for start in (0, 10, 20)] * 2

    world.at_once(*[lambda message=message: world.deliver(message) for message in messages])
    for message in messages:
        world.deliver(message)

    products, mirrored = world.products(MIRRORED_COLUMNS), world.products(MIRRORED_COLUMNS, "legacy")
    assert [mirrored[identifier] for identifier in identifiers] == [products[identifier] for identifier in identifiers]
