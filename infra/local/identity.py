"""The identity provider: a key, the key set that the gateway publishes, and tokens for whoever is on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from infra.local.state import write_whole

KEY_SET_PATH = "/.well-known/jwks.json"
AUDIENCE = "imports-and-exports"
ALGORITHM = "RS256"
KEY_ID = "local"
KEY_BITS = 2048
TOKEN_LIFE_SECONDS = 24 * 3600  # a day's work without asking again


def signing_key(directory: Path) -> rsa.RSAPrivateKey:
    """The key that stands in `directory`; made there where it is missing."""
    path = directory / "identity-key.pem"
    if not path.exists():
        pem = rsa.generate_private_key(65537, KEY_BITS).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(path, pem, secret=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{path} holds no RSA key; remove it, and a new one is made.")
    return key


def key_set(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """The JWKS that tokens of `key` are checked with."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {"keys": [public | {"kid": KEY_ID, "alg": ALGORITHM, "use": "sig"}]}


def token(key: rsa.RSAPrivateKey, issuer: str, user_uuid: str) -> str:
    """A bearer token for a user, valid for a day."""
    now = int(time.time())
    claims = {"sub": user_uuid, "iss": issuer, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_LIFE_SECONDS}
    return jwt.encode(claims, key, ALGORITHM, headers={"kid": KEY_ID})
