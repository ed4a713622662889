"""An identity provider for the HTTP functions: real keys, real tokens, and a key set that is served over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask.testing import FlaskClient
from jwt.algorithms import RSAAlgorithm

from shared.settings import settings
from tests.world import World, app

ISSUER, AUDIENCE = "https://identity.test", "imports-and-exports"


@pytest.fixture(scope="session")
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def jwks_url(signing_key: rsa.RSAPrivateKey) -> Iterator[str]:
    """The address of the key set, which is served during the session."""
    key = {**RSAAlgorithm.to_jwk(signing_key.public_key(), as_dict=True), "kid": "test", "use": "sig", "alg": "RS256"}

    class KeySet(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"keys": [key]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), KeySet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    server.shutdown()
    server.server_close()


@pytest.fixture
def token(
    signing_key: rsa.RSAPrivateKey, jwks_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Makes bearer tokens. The functions accept them unless a given claim is invalid."""
    for name, value in (("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("JWKS_URL", jwks_url)):
        monkeypatch.setenv(f"TOKEN_{name}", value)
    settings.cache_clear()

    def make_token(user: UUID | str, **claims: object) -> str:
        valid = {"sub": str(user), "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600}
        return jwt.encode({**valid, **claims}, signing_key, algorithm="RS256", headers={"kid": "test"})

    yield make_token
    settings.cache_clear()


@pytest.fixture
def api_of(world: World, token: Callable[..., str]) -> Callable[[str, UUID | None], FlaskClient]:
    """Makes clients of an HTTP function that send a user's token, or no token (None)."""

    def make_client(function: str, user: UUID | None) -> FlaskClient:
        client = app(function).application.test_client()
        if user:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token(user)}"
        return client

    return make_client
