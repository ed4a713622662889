"""The outside world: databases, Kafka, Cloud Storage, Pub/Sub, mail. Made once a process, at first use, after the fork.

SDK types and errors stop here: what a step gets is an Engine or one of the small classes beside this file.
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
    """This project's own database."""
    from shared.clients.databases import connect_to

    return connect_to("SERVICE", settings().service_database, settings().threads)


@cache
def product_database() -> Engine:
    """The platform's products, suppliers, orders, promotions."""
    from shared.clients.databases import connect_to

    return connect_to("PRODUCT", settings().product_database, settings().threads)


@cache
def legacy_database() -> Engine:
    """The old platform's copy."""
    from shared.clients.databases import connect_to

    return connect_to("LEGACY", settings().legacy_database, settings().threads)


@cache
def kafka() -> Kafka:
    """The producer of all messages."""
    from shared.clients.broker import Kafka

    return Kafka(settings())


@cache
def storage() -> Storage:
    """The bucket of imports and exports."""
    from shared.clients.bucket import Storage

    return Storage(settings())


@cache
def pubsub() -> PubSub:
    """The publisher: of the bridge, and of dead letters."""
    from shared.clients.publisher import PubSub

    return PubSub(settings())


@cache
def mail_service() -> Mailer:
    """Who delivers mails."""
    from shared.clients.mailer import Mailer

    return Mailer(settings())
