"""SCRAM: a password proves itself, and the server proves that it knows something of it, too."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from serverwamp.auth.authentication import ChallengeMethod, CompiledHandler
from serverwamp.errors import AuthenticationFailed, ConfigurationError
from serverwamp.protocol.auth import scram
from serverwamp.protocol.auth.scram import KDF

ARGON2_OF_AUTOBAHN: Final = "argon2id-13"
USUAL_COSTS: Final[Mapping[KDF, tuple[int, int | None]]] = {
    "argon2id13": (3, 64 * 1024),  # the second choice of RFC 9106
    "pbkdf2": (600_000, None),
}
"""How many iterations, and how many KiB, where nothing else is said."""
SALT_BYTES: Final = 16
"""Argon2 of PyNaCl takes no other number."""


@dataclass(frozen=True)
class SCRAMAuthRequirement:
    """What a client has to prove to know, and what it is once it has.

    The fields without the last two are what `scram_credential` returns.
    """

    stored_key: str | None = field(repr=False)
    """By what a proof is checked, as base64. None for somebody unknown, who is to be challenged
    like everybody and can't succeed."""
    server_key: str | None = field(repr=False)
    """By what the server proves that it knows the client, as base64."""
    salt: str
    """Random, as base64."""
    kdf: KDF
    """By what the password was hashed, ``argon2id13`` or ``pbkdf2``."""
    iterations: int
    """How often."""
    memory: int | None = None
    """With how many KiB; None for PBKDF2."""
    autobahn_stored_key: str | None = field(default=None, repr=False)
    """The same as `stored_key`, for the dialect of Autobahn, that has Argon2 alone."""
    autobahn_server_key: str | None = field(default=None, repr=False)
    """The same as `server_key`, for that dialect."""
    auth_role: str = "user"
    """What the session may be; told to the client."""
    auth_provider: str = "dynamic"
    """Who vouches for the session; told to the client."""


def scram_credential(
    password: str,
    *,
    kdf: KDF = "argon2id13",
    iterations: int | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """Return what to store of a password: ``SCRAMAuthRequirement(**stored)`` is made of it.

    It can be written as JSON. Without `iterations` and `memory` (KiB) it is 3 times with 64 MiB for
    Argon2, and 600000 times for PBKDF2: each login takes the client as long as this takes here,
    and the server nothing.

    Raises: ConfigurationError for Argon2 without the extra ``crypto``; ValueError for a password
        with control characters.
    """
    usual_iterations, usual_memory = USUAL_COSTS[kdf]
    iterations, memory = iterations or usual_iterations, memory or usual_memory
    salt = secrets.token_bytes(SALT_BYTES)
    prepared = scram.saslprep(password)
    try:
        salted = scram.salted_password(prepared, salt, kdf, iterations, memory)
    except ImportError as missing:
        raise ConfigurationError("Argon2 needs PyNaCl: install serverwamp[crypto]") from missing
    stored = {
        "stored_key": _text(scram.stored_key(salted)),
        "server_key": _text(scram.server_key(salted)),
        "salt": _text(salt),
        "kdf": kdf,
        "iterations": iterations,
    }
    if kdf == "argon2id13":
        if prepared != password:  # Autobahn takes it as it is
            salted = scram.salted_password(password, salt, kdf, iterations, memory)
        salted = scram.autobahn_salted_password(salted)
        stored["memory"] = memory
        stored["autobahn_stored_key"] = _text(scram.stored_key(salted))
        stored["autobahn_server_key"] = _text(scram.server_key(salted))
    return stored


def scram_methods(
    requirement_provider: CompiledHandler, identity_provider: CompiledHandler
) -> Sequence[ChallengeMethod]:
    """Return the method of the specification, and that of Autobahn."""
    asked = _Asked(requirement_provider)
    return [
        SCRAMMethod(asked, identity_provider),
        AutobahnSCRAMMethod(asked, identity_provider),
    ]


class _Asked:
    """What is required of whom; of nobody the like of what was required of somebody."""

    def __init__(self, requirement_provider: CompiledHandler) -> None:
        self._requirement_provider = requirement_provider
        self._nobodys_secret = secrets.token_bytes(32)
        self._usual: SCRAMAuthRequirement | None = None

    async def requirement_of(self, session: Any, authid: str) -> SCRAMAuthRequirement:
        required: SCRAMAuthRequirement | None = await self._requirement_provider.call(
            {"session": session}
        )
        self._usual = self._usual or required  # the first, so that nobody's challenge stays
        return self._nobodys(authid) if required is None else required

    def _nobodys(self, authid: str) -> SCRAMAuthRequirement:
        seed = hmac.digest(self._nobodys_secret, authid.encode(), "sha256")
        if self._usual is None:
            iterations, memory = USUAL_COSTS["argon2id13"]
            salt = _text(hashlib.shake_256(seed).digest(SALT_BYTES))
            return SCRAMAuthRequirement(None, None, salt, "argon2id13", iterations, memory)
        usual = self._usual
        salt = _text(hashlib.shake_256(seed).digest(len(b64decode(usual.salt))))
        return SCRAMAuthRequirement(None, None, salt, usual.kdf, usual.iterations, usual.memory)


class SCRAMMethod:
    """The method as it is specified.

    Who is unknown is challenged, too, and refused after the same steps as for a wrong password.
    Channel binding would need to know the TLS connection, which no ASGI server tells.
    """

    name = "wamp-scram"

    def __init__(self, asked: _Asked, identity_provider: CompiledHandler) -> None:
        self._asked = asked
        self._identity_provider = identity_provider
        self._nobodys_key = secrets.token_bytes(32)

    async def identify(self, session: Any) -> Any:
        authid, client_nonce = session.auth_id or "", session.auth_extra.get("nonce")
        if not scram.is_nonce(client_nonce):
            raise AuthenticationFailed("authextra.nonce is missing")
        if session.auth_extra.get("channel_binding") is not None:
            raise AuthenticationFailed("channel binding is not supported")
        requirement = await self._asked.requirement_of(session, authid)
        nonce = client_nonce + _text(secrets.token_bytes(16))
        try:
            message = self._message(authid, client_nonce, nonce, requirement)
        except ValueError as error:
            raise AuthenticationFailed(f"authid: {error}") from None
        extra = self._extra(nonce, requirement)
        proof, told = await session.challenge(self.name, extra)
        stored_key, server_key = self._keys(requirement)
        key = self._nobodys_key if stored_key is None else b64decode(stored_key)
        is_proven = scram.is_client_proof(key, message, proof)
        if not is_proven or stored_key is None or not self._is_said_again(nonce, told):
            return None
        session.auth_role = requirement.auth_role
        session.auth_provider = requirement.auth_provider
        signature = scram.server_signature(b64decode(server_key or ""), message)
        session.welcome_extra = self._welcome(signature)
        return await self._identity_provider.call({"session": session})

    def _message(
        self, authid: str, client_nonce: str, nonce: str, requirement: SCRAMAuthRequirement
    ) -> str:
        salt, iterations = requirement.salt, requirement.iterations
        return scram.auth_message(authid, client_nonce, nonce, salt, iterations)

    def _extra(self, nonce: str, requirement: SCRAMAuthRequirement) -> dict[str, Any]:
        extra = {
            "nonce": nonce,
            "salt": requirement.salt,
            "kdf": requirement.kdf,
            "iterations": requirement.iterations,
        }
        if requirement.memory is not None:  # some clients don't take null
            extra["memory"] = requirement.memory
        return extra

    def _keys(self, requirement: SCRAMAuthRequirement) -> tuple[str | None, str | None]:
        return requirement.stored_key, requirement.server_key

    def _is_said_again(self, nonce: str, told: Mapping[str, Any]) -> bool:
        return (
            told.get("nonce") == nonce
            and told.get("channel_binding") is None
            and told.get("cbind_data") is None
        )

    def _welcome(self, signature: str) -> dict[str, Any]:
        return {"verifier": f"v={signature}"}


class AutobahnSCRAMMethod(SCRAMMethod):
    """The method as Autobahn has it, after an older draft."""

    name = "scram"

    def _message(
        self, authid: str, client_nonce: str, nonce: str, requirement: SCRAMAuthRequirement
    ) -> str:
        salt, iterations = requirement.salt, requirement.iterations
        return scram.autobahn_auth_message(authid, client_nonce, nonce, salt, iterations)

    def _extra(self, nonce: str, requirement: SCRAMAuthRequirement) -> dict[str, Any]:
        extra = super()._extra(nonce, requirement)
        return {**extra, "kdf": ARGON2_OF_AUTOBAHN if requirement.kdf != "pbkdf2" else "pbkdf2"}

    def _keys(self, requirement: SCRAMAuthRequirement) -> tuple[str | None, str | None]:
        return requirement.autobahn_stored_key, requirement.autobahn_server_key

    def _is_said_again(self, nonce: str, told: Mapping[str, Any]) -> bool:
        return True  # it says nothing more; the nonce is in what it has signed

    def _welcome(self, signature: str) -> dict[str, Any]:
        return {"scram_server_signature": signature}


def _text(octets: bytes) -> str:
    return b64encode(octets).decode()
