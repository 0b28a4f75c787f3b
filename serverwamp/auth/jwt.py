"""JSON Web Tokens as tickets: checked by PyJWT, with a key or with the published keys of an issuer.

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
"""Seconds, for fetching the keys of an issuer."""

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
    """Return what `Realm.set_ticket_authenticator` takes, for tickets that are JSON Web Tokens.

    A token has to be signed by one of `algorithms`, with `key` (a secret, or a public key in PEM)
    or with one of `jwks`: a JSON Web Key Set, or the URL of one, which is fetched when it is
    needed, and again after five minutes or for a key that it doesn't have. A token has to say
    ``sub``, which becomes `auth_id`, and ``exp``, which becomes `expires_at`; clocks may differ by
    `leeway` seconds. The claims are the identity.

    Raises: ConfigurationError for a key and a key set, or neither; for what is no key set; for
        ``none`` among the algorithms; without the extra ``jwt``.
    """
    if (key is None) is (jwks is None):
        raise ConfigurationError("JSON Web Tokens need either a key or a key set")
    if isinstance(algorithms, str) or not algorithms or "none" in map(str.lower, algorithms):
        raise ConfigurationError(f"{algorithms!r} is no list of algorithms, as ['EdDSA'] is")
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
        except jwt.PyJWTError as error:  # its text may quote the token
            logger.debug("session %s: its token isn't good: %s", session.id, type(error).__name__)
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
    # An issuer that doesn't answer keeps one thread, and not all that there are.
    limiter = anyio.CapacityLimiter(1)

    async def fetch(ticket: str) -> PyJWK:
        return await anyio.to_thread.run_sync(
            client.get_signing_key_from_jwt, ticket, abandon_on_cancel=True, limiter=limiter
        )

    return fetch
