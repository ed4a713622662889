"""import_mirror, through the framework: the legacy database comes to what the product database is."""

from uuid import uuid4

from shared.columns import COLUMNS
from shared.messages import ProductsUpdated
from tests.world import World

ALL = ", ".join(column.key for column in COLUMNS)


def updated(world: World, *identifiers: str) -> ProductsUpdated:
    return ProductsUpdated(world.webshop, uuid4(), 1, 2, identifiers)


def test_products_are_mirrored_as_they_are_now(world: World):
    """All columns, whatever the message was about; what legacy lacks is inserted; others are left alone."""
    one, two, three = world.identifiers(3)
    world.change("product", "update products set name = 'now', price = 9.90, product_url = null")
    world.change("legacy", "delete from products where identifier = :i", i=two)
    before = world.products(ALL, "legacy")[three]

    assert world.deliver(updated(world, one, two)) == 200

    here, there = world.products(ALL), world.products(ALL, "legacy")
    assert (there[one], there[two]) == (here[one], here[two])
    assert there[three] == before


def test_a_product_that_is_gone_leaves_no_empty_row(world):
    """It was removed between the change and its mirroring; what legacy had of it is not ours to remove."""
    one, two = world.identifiers(2)
    world.change("legacy", "delete from products where identifier = :i", i=one)
    world.change(
        "product", "update products set identifier = identifier || ' (old)' where identifier in (:a, :b)", a=one, b=two
    )

    assert world.deliver(updated(world, one, two)) == 200

    there = world.products("name", "legacy")
    assert one not in there
    assert two in there


def test_another_webshops_products_are_not_touched(world):
    """The same identifier may stand in two webshops."""
    (one,) = world.identifiers(1)
    theirs = "select name, price from products where webshop_uuid = :w and identifier = :i"
    other = {"w": world.tenants.other_webshop_uuid, "i": one}
    before = world.rows("legacy", theirs, **other)
    world.change("product", "update products set name = 'changed'")

    world.deliver(updated(world, one))

    assert before == world.rows("legacy", theirs, **other) != []


def test_messages_about_the_same_products_at_once(world):
    """They may wait for each other; they do not deadlock, and the values are the product database's."""
    identifiers = world.identifiers(60)
    world.change("product", "update products set name = 'changed'")
    world.change(
        "legacy", "delete from products where identifier in (select identifier from products order by 1 limit 20)"
    )
    messages = [updated(world, *identifiers[start : start + 40]) for start in (0, 10, 20)] * 2

    world.at_once(*[lambda message=message: world.deliver(message) for message in messages])
    for message in messages:
        world.deliver(message)

    here, there = world.products(ALL), world.products(ALL, "legacy")
    assert [there[identifier] for identifier in identifiers] == [here[identifier] for identifier in identifiers]
