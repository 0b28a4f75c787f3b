"""WAMP-cryptosign: the client has a private key, and the server knows the public key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from serverwamp.auth.authentication import CompiledHandler
from serverwamp.errors import AuthenticationFailed, ConfigurationError


@dataclass(frozen=True)
class CryptosignAuthRequirement:
    """The key that a client must prove to have in WAMP-cryptosign, and the role that it gets.

    `cryptosign_credential` returns the first field.
    """

    public_key: str | None
    """The Ed25519 public key, as 64 hexadecimal digits. None for an unknown user, who is challenged
    like any other and always refused."""
    auth_role: str = "user"
    """The role of the session; WELCOME tells it to the client."""
    auth_provider: str = "dynamic"
    """The name of the party that authenticates the user; WELCOME tells it to the client."""


def cryptosign_credential(private_key: str) -> dict[str, str]:
    """Return the data to store for a client, for ``CryptosignAuthRequirement(**stored)``.

    `private_key` is 64 hexadecimal digits, for example from ``secrets.token_hex(32)``. Only the
    client keeps it.

    Raises: ConfigurationError without the extra ``crypto``; ValueError when `private_key` is not a
    key.
    """
    return {"public_key": mathematics().public_key_of(private_key)}


def mathematics() -> Any:
    """Import and return the module `protocol.auth.cryptosign`.

    Raises: ConfigurationError when PyNaCl isn't installed.
    """
    try:
        from serverwamp.protocol.auth import cryptosign
    except ImportError as missing:
        raise ConfigurationError("cryptosign needs PyNaCl: install serverwamp[crypto]") from missing
    module: ModuleType = cryptosign
    return module


class ServerProof:
    """The server's own key, with which it proves its identity to clients; None for no key.

    Raises: ConfigurationError when PyNaCl isn't installed, and when `private_key` is not a key.
    """

    def __init__(self, private_key: str | None) -> None:
        self._mathematics = mathematics()
        self._private_key = private_key
        try:
            self._public_key = private_key and self._mathematics.public_key_of(private_key)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def answer(self, challenge: Any) -> dict[str, str]:
        """Return the entries of CHALLENGE that answer the client's own challenge, if any."""
        if self._private_key is None or not self._mathematics.is_key(challenge):
            return {}
        signature = self._mathematics.signed_challenge(self._private_key, challenge)
        return {"pubkey": self._public_key, "signature": signature}


class CryptosignMethod:
    """WAMP-cryptosign: the client signs 32 random bytes, which are used for one session only.

    Unknown users are challenged as well, and refused after the same steps as a wrong key, so that
    clients can't find out which users exist.

    Channel binding is not supported, even if the client asks for it: ASGI servers don't expose the
    TLS connection that it needs.
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
        self._decoy_key: str = self._mathematics.public_key_of(secrets.token_hex(32))

    async def identify(self, session: Any) -> Any:
        """Challenge the client to sign random bytes; return its identity, or None."""
        announced = session.auth_extra.get("pubkey")
        if announced is not None and not self._mathematics.is_key(announced):
            raise AuthenticationFailed("authextra.pubkey is not a key")
        required: CryptosignAuthRequirement | None = await self._requirement_provider.call(
            {"session": session}
        )
        key = None if required is None else required.public_key
        challenge = secrets.token_hex(32)
        extra = {"challenge": challenge, **self._proof.answer(session.auth_extra.get("challenge"))}
        signature, _ = await session.challenge(self.name, extra)
        is_proven = self._mathematics.is_signed_challenge(
            key or self._decoy_key, challenge, signature
        )
        if not is_proven or required is None or key is None:
            return None
        if announced is not None and announced.lower() != key.lower():
            return None
        session.auth_role = required.auth_role
        session.auth_provider = required.auth_provider
        session.auth_id = session.auth_id or key
        return await self._identity_provider.call({"session": session})
