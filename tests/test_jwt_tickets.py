"""Tickets that are JSON Web Tokens."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serverwamp import Application, ConfigurationError, Session, WAMPError, jwt_authenticator
from serverwamp.testing import connect

FAILED = "wamp.error.authentication_failed"
SECRET = "a secret that is long enough for its algorithm"
PRIVATE, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PEM = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def public_jwk(key: Ed25519PrivateKey, kid: str) -> dict[str, Any]:
    jwk = jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": kid, "use": "sig"}


def token(
    key: Any = PRIVATE, algorithm: str = "EdDSA", kid: str | None = None, **claims: Any
) -> str:
    all_claims = {"sub": "joe", "exp": int(time.time()) + 600, "aud": "wamp", **claims}
    present = {name: value for name, value in all_claims.items() if value is not None}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(present, key, algorithm=algorithm, headers=headers)


def with_tokens(**checks: Any) -> Application:
    app = Application()
    options = {"algorithms": ["EdDSA"], "audience": "wamp", **checks}
    app.set_ticket_authenticator(jwt_authenticator(**options))

    @app.route("whoami")
    async def whoami(session: Session) -> Any:
        return [session.auth_id, session.expires_at, session.identity]

    @app.route("refresh")
    async def refresh(session: Session, ticket: str) -> None:
        await session.refresh(ticket)

    return app


async def is_refused(app: Application, ticket: str) -> bool:
    try:
        async with connect(app, authid="joe", ticket=ticket):
            return False
    except WAMPError as error:
        return error.uri == FAILED


async def test_a_token() -> None:
    until = int(time.time()) + 300
    async with connect(with_tokens(key=PEM), authid="ann", ticket=token(exp=until, role="x")) as c:
        assert c.welcome["authid"] == "joe"
        auth_id, expires_at, claims = (await c.call("whoami")).args
        assert (auth_id, expires_at) == ("joe", until)
        assert claims == {"sub": "joe", "exp": until, "aud": "wamp", "role": "x"}
        await c.call("refresh", (token(exp=until + 300),))
        assert (await c.call("whoami")).args[1] == until + 300
        for bad in (token(sub="ann"), token(OTHER), "rubbish"):
            with pytest.raises(WAMPError, match=FAILED):
                await c.call("refresh", (bad,))


async def test_a_secret() -> None:
    app = with_tokens(key=SECRET, algorithms=["HS256"])
    async with connect(app, ticket=token(SECRET, "HS256")) as client:
        assert client.welcome["authid"] == "joe"
    assert await is_refused(app, token("another secret that is just as long", "HS256"))


async def test_clocks_that_differ() -> None:
    over = int(time.time()) - 5
    app = with_tokens(key=PEM, leeway=60)
    async with connect(app, ticket=token(exp=over, nbf=int(time.time()) + 30)) as client:
        assert (await client.call("whoami")).args[1] == over + 60


async def test_the_session_ends_with_its_token() -> None:
    now = time.time()
    app = with_tokens(key=PEM, leeway=now % 1 + 0.3)  # a token names whole seconds
    async with connect(app, ticket=token(exp=int(now))) as client:
        goodbye = await client.expect(lambda m: m[0] == 6, "GOODBYE")
        assert goodbye[2] == "wamp.close.killed"


BAD: dict[str, dict[str, Any]] = {
    "expired": {"exp": int(time.time()) - 10},
    "not yet good": {"nbf": int(time.time()) + 10**8},
    "for nobody": {"sub": None},
    "for ever": {"exp": None},
    "for another audience": {"aud": "mail"},
    "for any audience": {"aud": None},
    "of another issuer": {"iss": "eve"},
    "of no issuer": {"iss": None},
    "by another key": {"key": OTHER},
    "by another algorithm": {"key": SECRET, "algorithm": "HS256"},
    "unsigned": {"key": None, "algorithm": "none"},
}


@pytest.mark.parametrize("claims", BAD.values(), ids=BAD)
async def test_a_token_that_is_not_good(
    claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = with_tokens(key=PEM, issuer="the site")
    good = {"iss": "the site"}
    ticket = token(**{**good, **claims})
    with caplog.at_level(logging.DEBUG):
        assert await is_refused(app, ticket)
        assert not await is_refused(app, token(**good))
    assert ticket not in caplog.text
    assert "was refused: " in caplog.text


@pytest.mark.parametrize(
    "ticket", ["", "a", "a.b.c", "....", "\u00fc.\u00fc.\u00fc", "e30.e30.e30"]
)
async def test_what_is_no_token(ticket: str) -> None:
    assert await is_refused(with_tokens(key=PEM), ticket)


async def test_a_key_set() -> None:
    app = with_tokens(jwks={"keys": [public_jwk(PRIVATE, "one"), public_jwk(OTHER, "other")]})
    for key, kid in ((PRIVATE, "one"), (OTHER, "other")):
        assert not await is_refused(app, token(key, kid=kid))
    for kid in ("other", "unheard-of", None):
        assert await is_refused(app, token(kid=kid))


# ---- a key set that is published


class Issuer(ThreadingHTTPServer):
    """Serves a key set, and counts how often it does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.keys: list[Any] = []
        self.fetched = 0
        self.works = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/keys"


class Requests(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.fetched += 1
        body = json.dumps({"keys": self.server.keys}).encode()
        self.send_response(200 if self.server.works else 500)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


async def test_published_keys(issuer: Issuer) -> None:
    issuer.keys = [public_jwk(PRIVATE, "one")]
    app = with_tokens(jwks=issuer.url)
    assert issuer.fetched == 0
    for _ in range(3):
        assert not await is_refused(app, token(kid="one"))
    for number in range(5):  # nobody can have them fetched again and again
        assert await is_refused(app, token(OTHER, kid=f"made up {number}"))
    assert issuer.fetched == 1


async def test_keys_that_cannot_be_fetched(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.keys, issuer.works = [public_jwk(PRIVATE, "one")], False
    app = with_tokens(jwks=issuer.url)
    assert await is_refused(app, token(kid="one"))
    assert "could not be fetched" in caplog.text
    issuer.works = True
    assert not await is_refused(app, token(kid="one"))


# ---- configuration


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "either a key"),
        ({"key": SECRET, "jwks": {"keys": []}}, "either a key"),
        ({"key": SECRET, "algorithms": []}, "algorithms"),
        ({"key": SECRET, "algorithms": "HS256"}, "algorithms"),
        ({"key": SECRET, "algorithms": ["HS256", "None"]}, "algorithms"),
        ({"jwks": {"keys": []}}, "key set"),
        ({"jwks": "file:///etc/keys"}, "key set"),
    ],
)
def test_what_cannot_be_configured(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        jwt_authenticator(**{"algorithms": ["EdDSA"], **options})


def test_without_pyjwt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigurationError, match=r"serverwamp\[jwt\]"):
        jwt_authenticator(key=SECRET, algorithms=["HS256"])
