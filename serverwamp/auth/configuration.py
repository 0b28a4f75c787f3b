"""How a realm is told who its clients are: its authenticators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import chain

from serverwamp.auth.authentication import (
    Authentication,
    ChallengeMethod,
    Compile,
    CRAMethod,
    TicketMethod,
)
from serverwamp.auth.cryptosign import CryptosignMethod, ServerProof
from serverwamp.auth.scram import scram_methods
from serverwamp.binding.signature import Function
from serverwamp.errors import ConfigurationError


class Authenticators:
    """The functions that authenticate the clients of a realm, until they are compiled."""

    def __init__(self) -> None:
        self._handler: Function | None = None
        self._transport: list[Function] = []
        self._methods: dict[str, Callable[[Compile], Sequence[ChallengeMethod]]] = {}

    def set_handler(self, handler: Function) -> None:
        """Leave the whole authentication to `handler`.

        Raises: ConfigurationError when there is such a handler already.
        """
        if self._handler is not None:
            raise ConfigurationError("the realm has an authentication handler already")
        self._handler = handler

    def add_transport(self, authenticator: Function) -> None:
        """Ask `authenticator` after those that were added before."""
        self._transport.append(authenticator)

    def set_methods(
        self, kind: str, methods: Callable[[Compile], Sequence[ChallengeMethod]]
    ) -> None:
        """Offer what ``methods(compile_function)`` returns once functions can be compiled.

        Raises: ConfigurationError when the realm has that kind already.
        """
        if kind in self._methods:
            raise ConfigurationError(f"the realm has {kind} already")
        self._methods[kind] = methods

    def compiled(self, compile_function: Compile) -> Authentication:
        """Return all of them compiled.

        Raises: ConfigurationError when a function can't be called.
        """
        handler = self._handler
        return Authentication(
            None if handler is None else compile_function(handler, ("session",)),
            [compile_function(function, ("session",)) for function in self._transport],
            chain.from_iterable(methods(compile_function) for methods in self._methods.values()),
        )


class LoginConfiguration(ABC):
    """The methods of a realm that set its authenticators."""

    @property
    @abstractmethod
    def _authenticators(self) -> Authenticators:
        """Where they are kept.

        Raises: ConfigurationError when the realm is serving already.
        """

    def add_transport_authenticator(self, authenticator: Function) -> None:
        """Ask ``authenticator(session)`` for an identity, after those that were added before."""
        self._authenticators.add_transport(authenticator)

    def set_ticket_authenticator(self, authenticator: Function) -> None:
        """Ask ``authenticator(session, ticket)`` for the identity of who brings a ticket."""
        self._authenticators.set_methods(
            "a ticket authenticator",
            lambda compiled: [TicketMethod(compiled(authenticator, ("session", "ticket")))],
        )

    def set_cra_handlers(self, requirement_provider: Function, identity_provider: Function) -> None:
        """Authenticate by WAMP-CRA.

        ``requirement_provider(session)`` returns a `CRAAuthRequirement`, or None for who is unknown
        and challenged all the same; ``identity_provider(session)`` is asked after the proof.
        """
        self._authenticators.set_methods(
            "CRA handlers",
            lambda compiled: [
                CRAMethod(
                    compiled(requirement_provider, ("session",)),
                    compiled(identity_provider, ("session",)),
                )
            ],
        )

    def set_scram_handlers(
        self, requirement_provider: Function, identity_provider: Function
    ) -> None:
        """Authenticate by SCRAM: ``wamp-scram``, and ``scram``, which is what Autobahn has.

        ``requirement_provider(session)`` returns a `SCRAMAuthRequirement`, or None for who is
        unknown and challenged all the same; ``identity_provider(session)`` is asked after the
        proof.
        """
        self._authenticators.set_methods(
            "SCRAM handlers",
            lambda compiled: scram_methods(
                compiled(requirement_provider, ("session",)),
                compiled(identity_provider, ("session",)),
            ),
        )

    def set_cryptosign_handlers(
        self,
        requirement_provider: Function,
        identity_provider: Function,
        *,
        private_key: str | None = None,
    ) -> None:
        """Authenticate by WAMP-cryptosign.

        ``requirement_provider(session)`` returns a `CryptosignAuthRequirement`, or None for who is
        unknown; ``session.auth_extra["pubkey"]`` is the key that the client announces.
        ``identity_provider(session)`` is asked after the proof. A client that says no name gets
        one by `requirement_provider`, or else its key is its name. With a `private_key`, which has
        to be used for nothing else, the server proves who it is, too, to clients that ask for it.

        Raises: ConfigurationError without the extra ``crypto``, or for what isn't a key.
        """
        proof = ServerProof(private_key)
        self._authenticators.set_methods(
            "cryptosign handlers",
            lambda compiled: [
                CryptosignMethod(
                    compiled(requirement_provider, ("session",)),
                    compiled(identity_provider, ("session",)),
                    proof,
                )
            ],
        )

    def set_authentication_handler(self, handler: Function) -> None:
        """Leave the whole authentication to ``handler(session)``.

        It returns an identity or awaits ``session.mark_authenticated(identity)``; otherwise the
        session is refused. It may challenge the client with ``await session.challenge(...)``.
        """
        self._authenticators.set_handler(handler)
