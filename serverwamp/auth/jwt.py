"""JSON Web Tokens as tickets, checked by PyJWT with a key or with an issuer's published keys.

Spec: RFC 7519, RFC 7517.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from serverwamp.errors import ConfigurationError
from serverwamp.session import Session

if TYPE_CHECKING:
    from jwt import PyJWK

logger: logging.Logger = logging.getLogger(__name__)

KEYS_TIMEOUT: Final = 10.0
"""Timeout for fetching an issuer's keys, in seconds."""

Authenticator = Callable[[Session, str], Awaitable[Mapping[str, Any] | None]]
FindKey = Callable[[str], Awaitable["PyJWK | str | bytes"]]


def jwt_authenticator(
    *,
    algorithms: Sequence[str],
    key: str | bytes | None = None,
    jwks: str | Mapping[str, Any] | None = None,
    audience: str | Sequence[str] | None = None,
    issuer: str | Sequence[str] | None = None,
    leeway: float = 0.0,
) -> Authenticator:
    """Return a function for `Realm.set_ticket_authenticator` that accepts JSON Web Tokens.

    A token must have the claims ``sub``, which becomes `Session.auth_id`, and ``exp``, which
    becomes `Session.expires_at`. All claims of the token, as a mapping, are the identity.

    Arguments:
        algorithms: the signature algorithms that are accepted, such as ``["EdDSA"]``.
        key: a secret, or a public key in PEM format.
        jwks: a JSON Web Key Set, or the URL of one; give either `key` or `jwks`. A URL is fetched
            when it is first needed, and again after five minutes or when a key is missing.
        audience: the accepted values of the claim ``aud``.
        issuer: the accepted values of the claim ``iss``.
        leeway: how many seconds the clocks of issuer and server may differ.

    Raises: ConfigurationError when both or neither of `key` and `jwks` are given, when `jwks` is
    not a key set, when `algorithms` is empty or contains ``none``, and without the extra
    ``jwt``.
    """
    if (key is None) is (jwks is None):
        raise ConfigurationError("JSON Web Tokens need either a key or a key set")
    if isinstance(algorithms, str) or not algorithms or "none" in map(str.lower, algorithms):
        raise ConfigurationError(f"{algorithms!r} is not a list of algorithms such as ['EdDSA']")
    try:
        import jwt
    except ImportError as missing:
        raise ConfigurationError("JSON Web Tokens need PyJWT: install serverwamp[jwt]") from missing
    try:
        find_key = _one(key) if key is not None else _of_set(jwks or {})
    except jwt.PyJWTError as error:
        raise ConfigurationError(f"the key set can't be used: {error}") from error

    async def authenticate(session: Session, ticket: str) -> Mapping[str, Any] | None:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                ticket,
                await find_key(ticket),
                algorithms=algorithms,
                audience=audience,
                issuer=issuer,
                leeway=leeway,
                options={"require": ["sub", "exp"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            logger.error("the keys for tokens could not be fetched: %s", error)
            return None
        except jwt.PyJWTError as error:  # not logged as text, which may quote the token
            kind = type(error).__name__
            logger.debug("the token of session %s was refused: %s", session.id, kind)
            return None
        session.auth_id = claims["sub"]
        session.expires_at = float(claims["exp"]) + leeway
        return claims

    return authenticate


def _one(key: str | bytes) -> FindKey:
    async def find(ticket: str) -> str | bytes:
        return key

    return find


def _of_set(jwks: str | Mapping[str, Any]) -> FindKey:
    import jwt

    if not isinstance(jwks, str):
        known = {key.key_id: key for key in jwt.PyJWKSet.from_dict(dict(jwks)).keys}

        async def find(ticket: str) -> PyJWK:
            key = known.get(jwt.get_unverified_header(ticket).get("kid"))
            if key is None:
                raise jwt.InvalidTokenError("the key set has no such key")
            return key

        return find

    client = jwt.PyJWKClient(jwks, timeout=KEYS_TIMEOUT)
    # An issuer that doesn't answer blocks only one worker thread, not all of them.
    limiter = anyio.CapacityLimiter(1)

    async def fetch(ticket: str) -> PyJWK:
        return await anyio.to_thread.run_sync(
            client.get_signing_key_from_jwt, ticket, abandon_on_cancel=True, limiter=limiter
        )

    return fetch
