"""The identity provider: its key, the key set that the gateway publishes, and tokens for any user."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from infra.local.state import write_atomically

KEY_SET_PATH = "/.well-known/jwks.json"
AUDIENCE = "imports-and-exports"
ALGORITHM = "RS256"
KEY_ID = "local"
KEY_BITS = 2048
TOKEN_LIFETIME_SECONDS = 24 * 3600  # a working day with one token


def signing_key(directory: Path) -> rsa.RSAPrivateKey:
    """Returns the key in `directory`. Creates it where it is missing."""
    path = directory / "identity-key.pem"
    if not path.exists():
        pem = rsa.generate_private_key(65537, KEY_BITS).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, pem, secret=True)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError(f"{path} does not contain an RSA key. Delete it: a new key will be created.")
    return key


def key_set(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Returns the JWKS that verifies the tokens of `key`."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return {"keys": [public | {"kid": KEY_ID, "alg": ALGORITHM, "use": "sig"}]}


def token(key: rsa.RSAPrivateKey, issuer: str, user_uuid: str) -> str:
    """Returns a bearer token for a user."""
    now = int(time.time())
    claims = {"sub": user_uuid, "iss": issuer, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_LIFETIME_SECONDS}
    return jwt.encode(claims, key, ALGORITHM, headers={"kid": KEY_ID})
