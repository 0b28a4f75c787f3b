"""SCRAM: the client proves that it knows the password, and the server that it knows the client."""

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
    "argon2id13": (3, 64 * 1024),  # the second recommended option of RFC 9106
    "pbkdf2": (600_000, None),
}
"""The default number of iterations, and the default memory in KiB."""
SALT_BYTES: Final = 16
"""The only length that PyNaCl's Argon2 accepts."""


@dataclass(frozen=True)
class SCRAMAuthRequirement:
    """The password that a client must prove to know in SCRAM, and the role that it gets.

    `scram_credential` returns all fields except the last two.
    """

    stored_key: str | None = field(repr=False)
    """The key by which the client's proof is checked, in base64. None for an unknown user, who is
    challenged like any other and always refused."""
    server_key: str | None = field(repr=False)
    """The key by which the server proves that it knows the client, in base64."""
    salt: str
    """The random salt of the password hash, in base64."""
    kdf: KDF
    """The hash function of the password, ``argon2id13`` or ``pbkdf2``."""
    iterations: int
    """The number of iterations of the hash function."""
    memory: int | None = None
    """The memory of Argon2 in KiB; None for PBKDF2."""
    autobahn_stored_key: str | None = field(default=None, repr=False)
    """Like `stored_key`, for Autobahn's variant of SCRAM, which has only Argon2."""
    autobahn_server_key: str | None = field(default=None, repr=False)
    """Like `server_key`, for Autobahn's variant of SCRAM."""
    auth_role: str = "user"
    """The role of the session; WELCOME tells it to the client."""
    auth_provider: str = "dynamic"
    """The name of the party that authenticates the user; WELCOME tells it to the client."""


def scram_credential(
    password: str,
    *,
    kdf: KDF = "argon2id13",
    iterations: int | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """Return the data to store for a password, for ``SCRAMAuthRequirement(**stored)``.

    The data can be stored as JSON. A client takes as long for each login as this function takes;
    the server doesn't hash passwords at login.

    Arguments:
        password: the password.
        kdf: the hash function, ``argon2id13`` or ``pbkdf2``.
        iterations: the number of iterations. Default: 3 for Argon2, 600000 for PBKDF2.
        memory: the memory of Argon2 in KiB. Default: 65536, which is 64 MiB.

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
        if prepared != password:  # Autobahn doesn't apply SASLprep
            salted = scram.salted_password(password, salt, kdf, iterations, memory)
        salted = scram.autobahn_salted_password(salted)
        stored["memory"] = memory
        stored["autobahn_stored_key"] = _text(scram.stored_key(salted))
        stored["autobahn_server_key"] = _text(scram.server_key(salted))
    return stored


def scram_methods(
    requirement_provider: CompiledHandler, identity_provider: CompiledHandler
) -> Sequence[ChallengeMethod]:
    """Return the method of the specification, and Autobahn's variant."""
    requirements = _Requirements(requirement_provider)
    return [
        SCRAMMethod(requirements, identity_provider),
        AutobahnSCRAMMethod(requirements, identity_provider),
    ]


class _Requirements:
    """The requirements for clients; unknown users get a decoy modelled on a real one."""

    def __init__(self, requirement_provider: CompiledHandler) -> None:
        self._requirement_provider = requirement_provider
        self._decoy_secret = secrets.token_bytes(32)
        self._usual: SCRAMAuthRequirement | None = None

    async def requirement_of(self, session: Any, authid: str) -> SCRAMAuthRequirement:
        required: SCRAMAuthRequirement | None = await self._requirement_provider.call(
            {"session": session}
        )
        # Decoys are modelled on the first requirement, so that they are the same each time.
        self._usual = self._usual or required
        return self._decoy(authid) if required is None else required

    def _decoy(self, authid: str) -> SCRAMAuthRequirement:
        seed = hmac.digest(self._decoy_secret, authid.encode(), "sha256")
        if self._usual is None:
            iterations, memory = USUAL_COSTS["argon2id13"]
            salt = _text(hashlib.shake_256(seed).digest(SALT_BYTES))
            return SCRAMAuthRequirement(None, None, salt, "argon2id13", iterations, memory)
        usual = self._usual
        salt = _text(hashlib.shake_256(seed).digest(len(b64decode(usual.salt))))
        return SCRAMAuthRequirement(None, None, salt, usual.kdf, usual.iterations, usual.memory)


class SCRAMMethod:
    """The method ``wamp-scram`` of the specification.

    Unknown users are challenged as well, and refused after the same steps as a wrong password, so
    that clients can't find out which users exist. Channel binding is not supported, because ASGI
    servers don't expose the TLS connection that it needs.

    Spec: Advanced Profile, "Salted Challenge Response Authentication Mechanism".
    """

    name = "wamp-scram"

    def __init__(self, requirements: _Requirements, identity_provider: CompiledHandler) -> None:
        self._requirements = requirements
        self._identity_provider = identity_provider
        self._decoy_key = secrets.token_bytes(32)

    async def identify(self, session: Any) -> Any:
        """Challenge the client to prove its password; return its identity, or None."""
        authid, client_nonce = session.auth_id or "", session.auth_extra.get("nonce")
        if not scram.is_nonce(client_nonce):
            raise AuthenticationFailed("authextra.nonce is missing")
        if session.auth_extra.get("channel_binding") is not None:
            raise AuthenticationFailed("channel binding is not supported")
        requirement = await self._requirements.requirement_of(session, authid)
        nonce = client_nonce + _text(secrets.token_bytes(16))
        try:
            message = self._message(authid, client_nonce, nonce, requirement)
        except ValueError as error:
            raise AuthenticationFailed(f"authid: {error}") from None
        extra = self._extra(nonce, requirement)
        proof, client_extra = await session.challenge(self.name, extra)
        stored_key, server_key = self._keys(requirement)
        key = self._decoy_key if stored_key is None else b64decode(stored_key)
        is_proven = scram.is_client_proof(key, message, proof)
        if not is_proven or stored_key is None or not self._is_consistent(nonce, client_extra):
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
        if requirement.memory is not None:  # some clients don't accept null
            extra["memory"] = requirement.memory
        return extra

    def _keys(self, requirement: SCRAMAuthRequirement) -> tuple[str | None, str | None]:
        return requirement.stored_key, requirement.server_key

    def _is_consistent(self, nonce: str, client_extra: Mapping[str, Any]) -> bool:
        """Tell whether AUTHENTICATE repeats the nonce and has no channel binding."""
        return (
            client_extra.get("nonce") == nonce
            and client_extra.get("channel_binding") is None
            and client_extra.get("cbind_data") is None
        )

    def _welcome(self, signature: str) -> dict[str, Any]:
        return {"verifier": f"v={signature}"}


class AutobahnSCRAMMethod(SCRAMMethod):
    """The method ``scram`` of Autobahn, which follows an older draft of the specification."""

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

    def _is_consistent(self, nonce: str, client_extra: Mapping[str, Any]) -> bool:
        return True  # there is nothing to compare; the client's proof covers the nonce

    def _welcome(self, signature: str) -> dict[str, Any]:
        return {"scram_server_signature": signature}


def _text(octets: bytes) -> str:
    return b64encode(octets).decode()
