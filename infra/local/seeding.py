"""Seed (first cut)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from shared.tables import legacy, product, service


@dataclass(frozen=True)
class Tenants:
    """Who is in the seeded databases."""

    webshop_uuid: UUID
    user_uuid: UUID
    other_webshop_uuid: UUID
    other_user_uuid: UUID
    featureless_webshop_uuid: UUID
    buy_order_uuid: UUID


TENANTS = Tenants(
    webshop_uuid=UUID("0a1b2c3d-0001-4000-8000-000000000001"),
    user_uuid=UUID("0a1b2c3d-0002-4000-8000-000000000001"),
    other_webshop_uuid=UUID("0a1b2c3d-0001-4000-8000-000000000002"),
    other_user_uuid=UUID("0a1b2c3d-0002-4000-8000-000000000002"),
    featureless_webshop_uuid=UUID("0a1b2c3d-0001-4000-8000-000000000003"),
    buy_order_uuid=UUID("0a1b2c3d-0003-4000-8000-000000000001"),
)


def engine_to(url: str) -> sa.Engine:
    """An engine for a libpq URL."""
    return sa.create_engine(sa.make_url(url).set(drivername="postgresql+pg8000"), poolclass=sa.NullPool)


def migrate(service_url: str, product_url: str, legacy_url: str) -> None:
    """Makes the tables."""
    for url, metadata in (
        (service_url, service.metadata),
        (product_url, product.ours),
        (product_url, product.platform),
        (legacy_url, legacy.platform),
    ):
        metadata.create_all(engine_to(url))


def seed(product_url: str, legacy_url: str, products: int) -> Tenants:
    """First cut: tenants and plain products."""
    with engine_to(product_url).begin() as connection:
        for index, name in ((1, "first"), (2, "other"), (3, "featureless")):
            connection.execute(
                sa.text("insert into webshops (uuid, name, email_address, currency) values (:u, :n, :e, 'EUR')"),
                {"u": f"0a1b2c3d-0001-4000-8000-00000000000{index}", "n": name, "e": f"shop{index}@example.com"},
            )
        connection.execute(
            sa.text("""insert into users values (:a, 'Ann', 'ann@example.com'), (:b, 'Bob', 'bob@example.com')"""),
            {"a": TENANTS.user_uuid, "b": TENANTS.other_user_uuid},
        )
        connection.execute(
            sa.text("insert into webshop_users values (:w1, :a), (:w3, :a), (:w2, :b)"),
            {
                "a": TENANTS.user_uuid,
                "b": TENANTS.other_user_uuid,
                "w1": TENANTS.webshop_uuid,
                "w2": TENANTS.other_webshop_uuid,
                "w3": TENANTS.featureless_webshop_uuid,
            },
        )
        connection.execute(
            sa.text("""insert into webshop_features select uuid, f from webshops,
                unnest(array['imports', 'exports', 'buy_orders']) f where name <> 'featureless'""")
        )
        for shop, count in ((TENANTS.webshop_uuid, products), (TENANTS.other_webshop_uuid, 200)):
            connection.execute(
                sa.text("""insert into products (webshop_uuid, identifier, name, price, stock_on_hand)
                    select :w, 'P-' || lpad(i::text, 6, '0'), 'Product ' || i, mod(i, 1000) + 0.99, mod(i, 300)
                    from generate_series(1, :n) i"""),
                {"w": shop, "n": count},
            )
    with engine_to(legacy_url).begin() as connection:
        for shop, count in ((TENANTS.webshop_uuid, products), (TENANTS.other_webshop_uuid, 200)):
            connection.execute(
                sa.text("""insert into products (webshop_uuid, identifier, name, price, stock_on_hand)
                    select :w, 'P-' || lpad(i::text, 6, '0'), 'Product ' || i, mod(i, 1000) + 0.99, mod(i, 300)
                    from generate_series(1, :n) i where mod(i, 50) <> 0"""),
                {"w": shop, "n": count},
            )
    return TENANTS
