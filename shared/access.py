"""Who is asking, and what they may see: bearer tokens, and a port that knows users, webshops and features."""

from __future__ import annotations

from functools import cache
from typing import Protocol
from uuid import UUID

import jwt
from sqlalchemy import Engine, exists, select

from shared import clients
from shared.errors import Unavailable
from shared.problems import Problem
from shared.settings import settings
from shared.tables.product import webshop_features, webshop_users

CLOCK_SKEW_SECONDS = 30  # between the issuer's clock and ours
KEYS_LIFETIME_SECONDS = 300  # how long a key that the issuer withdrew is still taken


class AccessPort(Protocol):
    """What the platform knows of users and webshops."""

    def may_see(self, user_uuid: UUID, webshop_uuid: UUID) -> bool:
        """Whether the user works for the webshop."""

    def has_feature(self, webshop_uuid: UUID, feature: str) -> bool:
        """Whether the webshop has booked the feature: "imports", "exports" or "buy_orders"."""


class ProductDatabaseAccess:
    """Reads the platform's own tables."""

    def __init__(self, product: Engine) -> None:
        """Reads over `product`."""
        self._product = product

    def may_see(self, user_uuid: UUID, webshop_uuid: UUID) -> bool:
        """See AccessPort."""
        row = exists().where(webshop_users.c.user_uuid == user_uuid, webshop_users.c.webshop_uuid == webshop_uuid)
        with self._product.connect() as product:
            return bool(product.scalar(select(row)))

    def has_feature(self, webshop_uuid: UUID, feature: str) -> bool:
        """See AccessPort."""
        row = exists().where(webshop_features.c.webshop_uuid == webshop_uuid, webshop_features.c.feature == feature)
        with self._product.connect() as product:
            return bool(product.scalar(select(row)))


def port() -> AccessPort:
    """The access port in use."""
    return ProductDatabaseAccess(clients.product_database())


def user_of(authorization: str) -> UUID:
    """The user whose bearer token stands in an Authorization header.

    Raises Problem 401 with a challenge when there is none, or it is not one of ours, or it has expired.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("Send a bearer token in the Authorization header.")
    key = signing_key(token)
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            issuer=settings().token_issuer,
            audience=settings().token_audience,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return UUID(claims["sub"])
    except (jwt.PyJWTError, ValueError) as error:
        raise unauthorized(f"The bearer token is not accepted: {error}.", 'error="invalid_token"') from error


def signing_key(token: str) -> jwt.PyJWK:
    """The issuer's key that the token says it is signed with.

    Raises Problem 401 when the issuer has no such key, Unavailable when the issuer does not answer, and
    InvalidSettings when no issuer is set.
    """
    settings().require("token_jwks_url", "token_issuer", "token_audience")
    try:
        return keys(settings().token_jwks_url).get_signing_key_from_jwt(token)
    except jwt.PyJWKClientConnectionError as error:
        raise Unavailable(f"The issuer's keys cannot be read: {error}") from error
    except jwt.PyJWTError as error:
        raise unauthorized(f"The bearer token is not accepted: {error}.", 'error="invalid_token"') from error


@cache
def keys(jwks_url: str) -> jwt.PyJWKClient:
    """The issuer's public keys, kept for KEYS_LIFETIME_SECONDS."""
    return jwt.PyJWKClient(jwks_url, lifespan=KEYS_LIFETIME_SECONDS, timeout=10)


def unauthorized(detail: str, error: str = "") -> Problem:
    """401 with a challenge. https://www.rfc-editor.org/rfc/rfc6750#section-3 ."""
    challenge = ", ".join(part for part in ('Bearer realm="imports-and-exports"', error) if part)
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
