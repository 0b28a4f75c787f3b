"""WAMP-cryptosign: the client has a private key, and the server knows the public one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from serverwamp.auth.authentication import CompiledHandler
from serverwamp.errors import AuthenticationFailed, ConfigurationError


@dataclass(frozen=True)
class CryptosignAuthRequirement:
    """Whose key a client has to have, and what it is once it has proved that.

    The first field is what `cryptosign_credential` returns.
    """

    public_key: str | None
    """The Ed25519 public key, as 64 hexadecimal digits. None for somebody unknown, who is to be
    challenged like everybody and can't succeed."""
    auth_role: str = "user"
    """What the session may be; told to the client."""
    auth_provider: str = "dynamic"
    """Who vouches for the session; told to the client."""


def cryptosign_credential(private_key: str) -> dict[str, str]:
    """Return what to store of a client's key: ``CryptosignAuthRequirement(**stored)``.

    `private_key` is 64 hexadecimal digits, such as ``secrets.token_hex(32)`` makes; the client
    alone keeps it.

    Raises: ConfigurationError without the extra ``crypto``; ValueError for what isn't a key.
    """
    return {"public_key": mathematics().public_key_of(private_key)}


def mathematics() -> Any:
    """Return the module `protocol.auth.cryptosign`.

    Raises: ConfigurationError where PyNaCl isn't installed.
    """
    try:
        from serverwamp.protocol.auth import cryptosign
    except ImportError as missing:
        raise ConfigurationError("cryptosign needs PyNaCl: install serverwamp[crypto]") from missing
    module: ModuleType = cryptosign
    return module


class ServerProof:
    """What proves to clients which server it is, where it has a key.

    Raises: ConfigurationError where PyNaCl isn't installed, and for what isn't a key.
    """

    def __init__(self, private_key: str | None) -> None:
        self._mathematics = mathematics()
        self._private_key = private_key
        try:
            self._public_key = private_key and self._mathematics.public_key_of(private_key)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def answer(self, challenge: Any) -> dict[str, str]:
        """Return what CHALLENGE says to a client that has sent a challenge of its own."""
        if self._private_key is None or not self._mathematics.is_key(challenge):
            return {}
        signature = self._mathematics.signed_challenge(self._private_key, challenge)
        return {"pubkey": self._public_key, "signature": signature}


class CryptosignMethod:
    """The client signs 32 random octets, which are good for this one session.

    Who is unknown is challenged, too, and refused after the same steps as for a wrong key.
    """

    name = "cryptosign"

    def __init__(
        self,
        requirement_provider: CompiledHandler,
        identity_provider: CompiledHandler,
        proof: ServerProof,
    ) -> None:
        self._proof = proof
        self._requirement_provider = requirement_provider
        self._identity_provider = identity_provider
        self._mathematics = mathematics()
        self._nobodys_key: str = self._mathematics.public_key_of(secrets.token_hex(32))

    async def identify(self, session: Any) -> Any:
        announced = session.auth_extra.get("pubkey")
        if announced is not None and not self._mathematics.is_key(announced):
            raise AuthenticationFailed("authextra.pubkey is not a key")
        required: CryptosignAuthRequirement | None = await self._requirement_provider.call(
            {"session": session}
        )
        key = None if required is None else required.public_key
        challenge = secrets.token_hex(32)
        # No channel binding, whatever the client asks for: it would need to know the TLS
        # connection, which no ASGI server tells.
        extra = {"challenge": challenge, **self._proof.answer(session.auth_extra.get("challenge"))}
        signature, _ = await session.challenge(self.name, extra)
        is_proven = self._mathematics.is_signed_challenge(
            key or self._nobodys_key, challenge, signature
        )
        if not is_proven or required is None or key is None:
            return None
        if announced is not None and announced.lower() != key.lower():
            return None
        session.auth_role = required.auth_role
        session.auth_provider = required.auth_provider
        session.auth_id = session.auth_id or key
        return await self._identity_provider.call({"session": session})
