"""The clients of databases, Kafka, Cloud Storage, Pub/Sub and the email service.

Each is made once per process, at its first use, after the fork. SDK types and errors stop here: a step gets an Engine
or one of the small classes beside this file.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from shared.settings import settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from shared.clients.broker import Kafka
    from shared.clients.bucket import Storage
    from shared.clients.mailer import Mailer
    from shared.clients.publisher import PubSub


@cache
def service_database() -> Engine:
    """Returns the engine of this project's own database."""
    from shared.clients.databases import connect_to

    return connect_to("SERVICE", settings().service_database, settings().threads)


@cache
def product_database() -> Engine:
    """Returns the engine of the platform's products, suppliers, orders and promotions."""
    from shared.clients.databases import connect_to

    return connect_to("PRODUCT", settings().product_database, settings().threads)


@cache
def legacy_database() -> Engine:
    """Returns the engine of the old platform's copy."""
    from shared.clients.databases import connect_to

    return connect_to("LEGACY", settings().legacy_database, settings().threads)


@cache
def kafka() -> Kafka:
    """Returns the producer of all messages."""
    from shared.clients.broker import Kafka

    return Kafka(settings())


@cache
def storage() -> Storage:
    """Returns the bucket of imports and exports."""
    from shared.clients.bucket import Storage

    return Storage(settings())


@cache
def pubsub() -> PubSub:
    """Returns the publisher, which kafka_bridge uses, and every event function for its dead letters."""
    from shared.clients.publisher import PubSub

    return PubSub(settings())


@cache
def email_service() -> Mailer:
    """Returns the client of the service that delivers emails."""
    from shared.clients.mailer import Mailer

    return Mailer(settings())
