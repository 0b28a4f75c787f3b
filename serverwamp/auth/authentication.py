"""How a realm finds out who a client is.

Transport authenticators come first, in their order; then the first challenge-based method that
the client offers and the realm has. Whatever an authenticator raises is a failed authentication.

A client says its name in HELLO. A challenge proves that name; where there is none, it counts only
if the authenticator that admits the session assigns it.

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
"""The names by which clients offer what needs no challenge."""


@dataclass(frozen=True)
class CRAAuthRequirement:
    """What a client has to prove to know, and what it is once it has.

    With `salt` the secret is a derived one, as `derive_cra_secret` makes it of a password: the
    client gets `salt`, `iterations` and `keylen` (bytes) with its challenge and derives it again.
    """

    secret: str | bytes | None = field(repr=False)
    """The secret itself, or with a salt what `derive_cra_secret` has made of it. None for somebody
    unknown, who is to be challenged like everybody and can't succeed."""
    auth_role: str = "user"
    """What the session may be; told to the client."""
    auth_provider: str = "dynamic"
    """Who vouches for the session; told to the client."""
    salt: str | None = None
    """The salt of a derived secret."""
    iterations: int = 1000
    """How often a derived secret was hashed."""
    keylen: int = 32
    """The length of a derived secret in bytes, before base64."""


class CompiledHandler(Protocol):
    """A compiled handler: takes what it wants by the names of `sources`."""

    async def call(self, sources: Mapping[str, Any]) -> Any: ...


class ChallengeMethod(Protocol):
    """A method that asks the client to prove something."""

    name: str

    async def identify(self, session: Any) -> Any:
        """Challenge the client; return its identity, or None."""
        ...


class TicketMethod:
    """The client sends a secret that the application knows what to do with."""

    name = "ticket"

    def __init__(self, authenticator: CompiledHandler) -> None:
        self._authenticator = authenticator

    async def identify(self, session: Any) -> Any:
        ticket, _ = await session.challenge(self.name, {})
        return await self.identity_of(session, ticket)

    async def identity_of(self, session: Any, ticket: str) -> Any:
        """Return whom a ticket identifies."""
        return await self._authenticator.call({"session": session, "ticket": ticket})


class CRAMethod:
    """The client signs a text with a secret that it shares with the application.

    Who is unknown is challenged, too, and refused after the same steps as for a wrong signature.
    """

    name = "wampcra"

    def __init__(
        self, requirement_provider: CompiledHandler, identity_provider: CompiledHandler
    ) -> None:
        self._requirement_provider = requirement_provider
        self._identity_provider = identity_provider
        self._nobodys_secret = secrets.token_bytes(32)
        self._usual: CRAAuthRequirement | None = None

    async def identify(self, session: Any) -> Any:
        required = await self._requirement_provider.call({"session": session})
        requirement = self._completed(required or None, session.auth_id or "")
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
        secret = self._nobodys_secret if requirement.secret is None else requirement.secret
        is_proven = cra.is_signature_of(secret, challenge, signature)
        if not is_proven or requirement.secret is None:
            return None
        session.auth_role = requirement.auth_role
        session.auth_provider = requirement.auth_provider
        return await self._identity_provider.call({"session": session})

    def _completed(self, required: CRAAuthRequirement | None, authid: str) -> CRAAuthRequirement:
        """Return what is required, or for nobody the like of what was required of somebody."""
        if self._usual is None:  # the first, so that nobody's challenge stays the same
            if required is None:
                return CRAAuthRequirement(secret=None)
            self._usual = replace(required, secret=None)
        salt = self._usual.salt
        if salt is not None:
            salt = cra.salt_like(salt, self._nobodys_secret, authid)
        nobody = replace(self._usual, salt=salt)
        return required or nobody


Compile = Callable[[Callable[..., Any], Sequence[str]], CompiledHandler]
"""Compiles a function, given the names of the sources that lead its parameters."""


class Authentication:
    """The compiled authenticators of a realm, and their order.

    A `handler` takes the place of all others. `methods` stand in the order of preference.
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

    # ---- what happens to a session

    @property
    def is_open(self) -> bool:
        """Whether everybody is admitted, and nobody asked anything."""
        return self._handler is None and not self._transport and not self._methods

    async def authenticate(self, session: Any) -> None:
        """Find out who the session is, and write it there.

        Raises: WAMPError to refuse it; whatever else an authenticator raises refuses it too.
        """
        if self._handler is not None:
            await self._authenticate_by_handler(session, self._handler)
        elif self.is_open:
            self._admit_anonymous(session)
        elif not await self._authenticate_by_transport(session):
            await self._authenticate_by_challenge(session)

    async def refresh(self, session: Any, renewed: Any, ticket: str) -> None:
        """Find out by a ticket who `renewed` is, and let `session` go on if it is the same.

        Raises: WAMPError if it isn't; whatever else the authenticator raises.
        """
        method = self._methods.get(TicketMethod.name)
        if not isinstance(method, TicketMethod):
            raise NoMatchingAuthMethod("this realm offers no authentication by ticket")
        identity = await method.identity_of(renewed, ticket)
        _complete(renewed, role="user", method=method.name)
        if not _is_identity(identity) or _principal(renewed) != _principal(session):
            logger.debug("session %s: its new ticket was refused", session.id)
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
        session.auth_id = None  # whatever it claimed, nobody has checked
        _complete(session, role="anonymous", provider="static", method=_offered_transport(session))

    async def _authenticate_by_transport(self, session: Any) -> bool:
        claim = session.auth_id
        for authenticator in self._transport:
            session._claim(claim)  # whatever one has assigned that didn't admit the session
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
            raise AuthenticationRequired(f"this realm wants authentication by {offered}")
        raise NoMatchingAuthMethod(f"this realm offers authentication by {offered}")


def _is_identity(value: Any) -> bool:
    """Tell whether an authenticator returned an identity: anything but nothing, or a plain no."""
    return value is not None and value is not False


def _principal(session: Any) -> tuple[str, str, str]:
    """Return what stays the same for as long as a session lasts."""
    return session.realm, session.auth_role, session.auth_id


def _drop_claim(session: Any) -> None:
    """Forget the name that the client has claimed, unless an authenticator has assigned it."""
    if session._is_claimed:
        session.auth_id = None


def _offered_transport(session: Any) -> str | None:
    """Return the name of a method without a challenge that the client would accept."""
    if not session.auth_methods:
        return "anonymous"
    return next((name for name in session.auth_methods if name in TRANSPORT_METHODS), None)


def _complete(session: Any, *, role: str, method: str | None, provider: str = "dynamic") -> None:
    """Fill in what the authenticators left open."""
    session.auth_id = session.auth_id or secrets.token_urlsafe(12)
    session.auth_role = session.auth_role or role
    session.auth_provider = session.auth_provider or provider
    session.auth_method = method
