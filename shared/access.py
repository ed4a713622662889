"""Authentication and access: bearer tokens, and a port to what the platform knows of users, webshops and features."""

from __future__ import annotations

from functools import cache
from typing import Protocol
from uuid import UUID

import jwt
from sqlalchemy import Engine, Exists, exists, select

from shared import clients
from shared.errors import Unavailable
from shared.problems import Problem
from shared.settings import settings
from shared.tables.product import webshop_features, webshop_users

CLOCK_SKEW_SECONDS = 30  # between the issuer's clock and ours
KEYS_LIFETIME_SECONDS = 300  # for so long a key is accepted after the issuer has withdrawn it
KEYS_TIMEOUT_SECONDS = 10


class AccessPort(Protocol):
    """What the platform knows of users and webshops."""

    def may_access(self, user_uuid: UUID, webshop_uuid: UUID) -> bool:
        """Whether the user works for the webshop."""

    def has_feature(self, webshop_uuid: UUID, feature: str) -> bool:
        """Whether the webshop has booked the feature: "imports", "exports" or "buy_orders"."""


class ProductDatabaseAccess:
    """The access port over the platform's tables in the product database."""

    def __init__(self, product_db: Engine) -> None:
        """Opens one connection per question."""
        self._product_db = product_db

    def may_access(self, user_uuid: UUID, webshop_uuid: UUID) -> bool:
        """See AccessPort."""
        is_member = webshop_users.c.user_uuid == user_uuid, webshop_users.c.webshop_uuid == webshop_uuid
        return self._exists(exists().where(*is_member))

    def has_feature(self, webshop_uuid: UUID, feature: str) -> bool:
        """See AccessPort."""
        is_booked = webshop_features.c.webshop_uuid == webshop_uuid, webshop_features.c.feature == feature
        return self._exists(exists().where(*is_booked))

    def _exists(self, row: Exists) -> bool:
        with self._product_db.connect() as conn:
            return bool(conn.scalar(select(row)))


def access_port() -> AccessPort:
    """Returns the access port in use."""
    return ProductDatabaseAccess(clients.product_database())


def authenticate(authorization: str) -> UUID:
    """Returns the user of the bearer token in an Authorization header.

    Raises Problem 401 with a challenge when the token is missing, invalid, expired or from another issuer.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("The request has no bearer token. Send one in the Authorization header.")
    key = find_signing_key(token)
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
        raise invalid_token(error) from error


def find_signing_key(token: str) -> jwt.PyJWK:
    """Returns the issuer's key that the token names as the one it is signed with.

    Raises Problem 401 when the issuer has no such key, Unavailable when the issuer does not respond, and
    InvalidSettings when no issuer is set.
    """
    settings().require("token_jwks_url", "token_issuer", "token_audience")
    try:
        return issuer_keys(settings().token_jwks_url).get_signing_key_from_jwt(token)
    except jwt.PyJWKClientConnectionError as error:
        raise Unavailable(f"The token issuer's keys cannot be read: {error}") from error
    except jwt.PyJWTError as error:
        raise invalid_token(error) from error


@cache
def issuer_keys(jwks_url: str) -> jwt.PyJWKClient:
    """Returns the client of the issuer's public keys, which caches them for KEYS_LIFETIME_SECONDS."""
    return jwt.PyJWKClient(jwks_url, lifespan=KEYS_LIFETIME_SECONDS, timeout=KEYS_TIMEOUT_SECONDS)


def invalid_token(error: Exception) -> Problem:
    """401: there is a token, and it is not accepted."""
    return unauthorized(f"The bearer token was not accepted: {error}. Request a new one.", 'error="invalid_token"')


def unauthorized(detail: str, error: str = "") -> Problem:
    """401 with a challenge. https://www.rfc-editor.org/rfc/rfc6750#section-3 ."""
    challenge = ", ".join(part for part in ('Bearer realm="imports-and-exports"', error) if part)
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
