"""The authentication of a realm's clients.

Transport authenticators run first, in the order in which they were added. If none of them admits
the client, the client is challenged by the first of its own methods that the realm supports. An
exception in an authenticator means that the authentication has failed.

A client claims a name in HELLO. A challenge verifies that name. Without a challenge, the session
keeps the name only if the authenticator that admits the session assigns it.

Spec: Advanced Profile, "Authentication Methods".
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Protocol

from serverwamp.errors import (
    AuthenticationFailed,
    AuthenticationRequired,
    NoMatchingAuthMethod,
)
from serverwamp.protocol.auth import cra

logger: logging.Logger = logging.getLogger(__name__)

TRANSPORT_METHODS = ("cookie", "tls", "anonymous")
"""The names of authentication methods without a challenge, as clients offer them."""


@dataclass(frozen=True)
class CRAAuthRequirement:
    """The secret that a client must prove to know in WAMP-CRA, and the role that it gets.

    With `salt`, the secret is a key that `derive_cra_secret` derives from a password. The client
    receives `salt`, `iterations` and `keylen` with the challenge and derives the same key.
    """

    secret: str | bytes | None = field(repr=False)
    """The secret; with a salt, the result of `derive_cra_secret`. None for an unknown user, who is
    challenged like any other and always refused."""
    auth_role: str = "user"
    """The role of the session; WELCOME tells it to the client."""
    auth_provider: str = "dynamic"
    """The name of the party that authenticates the user; WELCOME tells it to the client."""
    salt: str | None = None
    """The salt of a derived secret; None if the secret is not derived."""
    iterations: int = 1000
    """The number of PBKDF2 iterations of a derived secret."""
    keylen: int = 32
    """The length of a derived secret in bytes, before base64."""


class CompiledHandler(Protocol):
    """A compiled function of the application."""

    async def call(self, sources: Mapping[str, Any]) -> Any:
        """Call the function with the values in `sources` that it has parameters for."""
        ...


class ChallengeMethod(Protocol):
    """An authentication method that challenges the client."""

    name: str

    async def identify(self, session: Any) -> Any:
        """Challenge the client; return its identity, or None."""
        ...


class TicketMethod:
    """Ticket authentication: the client sends a secret, which the application checks."""

    name = "ticket"

    def __init__(self, authenticator: CompiledHandler) -> None:
        self._authenticator = authenticator

    async def identify(self, session: Any) -> Any:
        """Ask the client for a ticket; return its identity, or None."""
        ticket, _ = await session.challenge(self.name, {})
        return await self.identity_of(session, ticket)

    async def identity_of(self, session: Any, ticket: str) -> Any:
        """Return the identity that a ticket proves, or None."""
        return await self._authenticator.call({"session": session, "ticket": ticket})


class CRAMethod:
    """WAMP-CRA: the client signs a text with a secret that it shares with the application.

    Unknown users are challenged as well, and refused after the same steps as a wrong signature, so
    that clients can't find out which users exist.
    """

    name = "wampcra"

    def __init__(
        self, requirement_provider: CompiledHandler, identity_provider: CompiledHandler
    ) -> None:
        self._requirement_provider = requirement_provider
        self._identity_provider = identity_provider
        self._decoy_secret = secrets.token_bytes(32)
        self._usual: CRAAuthRequirement | None = None

    async def identify(self, session: Any) -> Any:
        """Challenge the client to sign a text; return its identity, or None."""
        required = await self._requirement_provider.call({"session": session})
        requirement = self._required_or_decoy(required or None, session.auth_id or "")
        challenge = cra.cra_challenge(
            session=session.id,
            authid=session.auth_id or "",
            authrole=requirement.auth_role,
            authprovider=requirement.auth_provider,
            nonce=secrets.token_urlsafe(16),
            timestamp=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        )
        extra: dict[str, Any] = {"challenge": challenge}
        if requirement.salt is not None:
            extra.update(
                salt=requirement.salt,
                iterations=requirement.iterations,
                keylen=requirement.keylen,
            )
        signature, _ = await session.challenge(self.name, extra)
        secret = self._decoy_secret if requirement.secret is None else requirement.secret
        is_proven = cra.is_signature_of(secret, challenge, signature)
        if not is_proven or requirement.secret is None:
            return None
        session.auth_role = requirement.auth_role
        session.auth_provider = requirement.auth_provider
        return await self._identity_provider.call({"session": session})

    def _required_or_decoy(
        self, required: CRAAuthRequirement | None, authid: str
    ) -> CRAAuthRequirement:
        """Return the requirement; for an unknown user, a decoy modelled on a real one.

        All decoys are modelled on the first requirement, so that the challenge of an unknown user
        has the same parameters each time.
        """
        if self._usual is None:
            if required is None:
                return CRAAuthRequirement(secret=None)
            self._usual = replace(required, secret=None)
        salt = self._usual.salt
        if salt is not None:
            salt = cra.salt_like(salt, self._decoy_secret, authid)
        decoy = replace(self._usual, salt=salt)  # also for known users, to take the same time
        return required or decoy


Compile = Callable[[Callable[..., Any], Sequence[str]], CompiledHandler]
"""Compiles a function, given the sources of its leading parameters."""


class Authentication:
    """The compiled authenticators of a realm.

    Arguments:
        handler: if given, it authenticates all clients, and the others aren't used.
        transport: the transport authenticators, in their order.
        methods: the challenge-based methods.
    """

    def __init__(
        self,
        handler: CompiledHandler | None = None,
        transport: Sequence[CompiledHandler] = (),
        methods: Iterable[ChallengeMethod] = (),
    ) -> None:
        self._handler = handler
        self._transport = transport
        self._methods = {method.name: method for method in methods}

    # ---- authenticating a session

    @property
    def is_open(self) -> bool:
        """Whether there is no authenticator, so that all clients are admitted."""
        return self._handler is None and not self._transport and not self._methods

    async def authenticate(self, session: Any) -> None:
        """Authenticate a session, and set its ``auth_...`` attributes and its identity.

        Raises: WAMPError to refuse the session. Any other exception of an authenticator also
        refuses it.
        """
        if self._handler is not None:
            await self._authenticate_by_handler(session, self._handler)
        elif self.is_open:
            self._admit_anonymous(session)
        elif not await self._authenticate_by_transport(session):
            await self._authenticate_by_challenge(session)

    async def refresh(self, session: Any, renewed: Any, ticket: str) -> None:
        """Authenticate `renewed` by a ticket; if it is the same principal, update `session`.

        Raises: WAMPError if the ticket is refused or belongs to another principal; any exception of
        the authenticator.
        """
        method = self._methods.get(TicketMethod.name)
        if not isinstance(method, TicketMethod):
            raise NoMatchingAuthMethod("this realm offers no authentication by ticket")
        identity = await method.identity_of(renewed, ticket)
        _complete(renewed, role="user", method=method.name)
        if not _is_identity(identity) or _principal(renewed) != _principal(session):
            logger.debug("the new ticket of session %s was refused", session.id)
            raise AuthenticationFailed("authentication failed")
        session.identity = identity
        session.expires_at = renewed.expires_at

    async def _authenticate_by_handler(self, session: Any, handler: CompiledHandler) -> None:
        session._claim(session.auth_id)
        identity = await handler.call({"session": session})
        if _is_identity(identity):
            await session.mark_authenticated(identity)
        if not session.is_authenticated:
            raise AuthenticationFailed("authentication failed")
        _drop_claim(session)
        _complete(session, role="user", method=session.auth_method or _offered_transport(session))

    @staticmethod
    def _admit_anonymous(session: Any) -> None:
        session.auth_id = None  # nobody has verified the claimed name
        _complete(session, role="anonymous", provider="static", method=_offered_transport(session))

    async def _authenticate_by_transport(self, session: Any) -> bool:
        claim = session.auth_id
        for authenticator in self._transport:
            session._claim(claim)  # undo what an authenticator assigned without admitting it
            identity = await authenticator.call({"session": session})
            if _is_identity(identity):
                await session.mark_authenticated(identity)
                _drop_claim(session)
                _complete(session, role="user", method=_offered_transport(session))
                return True
        session._claim(claim)
        return False

    async def _authenticate_by_challenge(self, session: Any) -> None:
        method = self._chosen_method(session)
        identity = await method.identify(session)
        if not _is_identity(identity):
            logger.warning(
                "session %s: authentication of %.100r by %s failed",
                session.id,
                session.auth_id,
                method.name,
            )
            raise AuthenticationFailed("authentication failed")
        await session.mark_authenticated(identity)
        _complete(session, role="user", method=method.name)

    def _chosen_method(self, session: Any) -> ChallengeMethod:
        if not self._methods:
            raise AuthenticationFailed("authentication failed")
        for name in session.auth_methods:
            if name in self._methods:
                return self._methods[name]
        offered = " and ".join(self._methods)
        if set(session.auth_methods) <= {"anonymous"}:
            raise AuthenticationRequired(f"this realm requires authentication by {offered}")
        raise NoMatchingAuthMethod(f"this realm offers authentication by {offered}")


def _is_identity(value: Any) -> bool:
    """Tell whether an authenticator returned an identity: anything except None and False."""
    return value is not None and value is not False


def _principal(session: Any) -> tuple[str, str, str]:
    """Return the attributes that identify a principal; they can't change during a session."""
    return session.realm, session.auth_role, session.auth_id


def _drop_claim(session: Any) -> None:
    """Remove the name that the client claimed, unless an authenticator has assigned a name."""
    if session._is_claimed:
        session.auth_id = None


def _offered_transport(session: Any) -> str | None:
    """Return a method without a challenge that the client accepts; None if it accepts none."""
    if not session.auth_methods:
        return "anonymous"
    return next((name for name in session.auth_methods if name in TRANSPORT_METHODS), None)


def _complete(session: Any, *, role: str, method: str | None, provider: str = "dynamic") -> None:
    """Set the attributes that the authenticators didn't set."""
    session.auth_id = session.auth_id or secrets.token_urlsafe(12)
    session.auth_role = session.auth_role or role
    session.auth_provider = session.auth_provider or provider
    session.auth_method = method
