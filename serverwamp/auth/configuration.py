"""The methods that configure the authenticators of a realm."""

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
    """The authenticators of a realm before they are compiled."""

    def __init__(self) -> None:
        self._handler: Function | None = None
        self._transport: list[Function] = []
        self._methods: dict[str, Callable[[Compile], Sequence[ChallengeMethod]]] = {}

    def set_handler(self, handler: Function) -> None:
        """Let `handler` do the whole authentication.

        Raises: ConfigurationError when there is such a handler already.
        """
        if self._handler is not None:
            raise ConfigurationError("the realm has an authentication handler already")
        self._handler = handler

    def add_transport(self, authenticator: Function) -> None:
        """Add a transport authenticator, to run after those that were added before."""
        self._transport.append(authenticator)

    def set_methods(
        self, kind: str, methods: Callable[[Compile], Sequence[ChallengeMethod]]
    ) -> None:
        """Add challenge-based methods: ``methods(compile_function)`` returns them later.

        Raises: ConfigurationError when the realm has methods of the same `kind` already.
        """
        if kind in self._methods:
            raise ConfigurationError(f"the realm has {kind} already")
        self._methods[kind] = methods

    def compiled(self, compile_function: Compile) -> Authentication:
        """Compile the authenticators.

        Raises: ConfigurationError when the parameters of a function can't be filled in.
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
        """The authenticators of the realm.

        Raises: ConfigurationError when the realm is serving already.
        """

    def add_transport_authenticator(self, authenticator: Function) -> None:
        """Add a function that authenticates clients by their connection, without a challenge.

        ``authenticator(session)`` returns an identity to admit the session, or None or False to
        leave it to the next authenticator. Transport authenticators run in the order in which they
        were added, and before challenge-based methods.

        ``session.connection.transport_info`` describes the connection. The authenticator can set
        `Session.auth_id`, `Session.auth_role` and so on. A `WAMPError` refuses the session with
        that error; any other exception refuses it and is logged.
        """
        self._authenticators.add_transport(authenticator)

    def set_ticket_authenticator(self, authenticator: Function) -> None:
        """Authenticate by ticket: the client sends a secret.

        ``authenticator(session, ticket)`` returns the identity of the client, or None to refuse the
        session.

        Raises: ConfigurationError when the realm has a ticket authenticator already.
        """
        self._authenticators.set_methods(
            "a ticket authenticator",
            lambda compiled: [TicketMethod(compiled(authenticator, ("session", "ticket")))],
        )

    def set_cra_handlers(self, requirement_provider: Function, identity_provider: Function) -> None:
        """Authenticate by WAMP-CRA.

        ``requirement_provider(session)`` returns a `CRAAuthRequirement`, or None for an unknown
        user, who is challenged as well and then refused. After a correct signature,
        ``identity_provider(session)`` returns the identity, or None to refuse the session.

        Raises: ConfigurationError when the realm has CRA handlers already.
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
        """Authenticate by SCRAM: the method ``wamp-scram``, and Autobahn's variant ``scram``.

        ``requirement_provider(session)`` returns a `SCRAMAuthRequirement`, or None for an unknown
        user, who is challenged as well and then refused. After a correct proof,
        ``identity_provider(session)`` returns the identity, or None to refuse the session.

        Raises: ConfigurationError when the realm has SCRAM handlers already.
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
        """Authenticate by WAMP-cryptosign: the client signs with its private key.

        ``requirement_provider(session)`` returns a `CryptosignAuthRequirement`, or None for an
        unknown user, who is challenged as well and then refused. The client can announce its
        public key as ``session.auth_extra["pubkey"]``. After a correct signature,
        ``identity_provider(session)`` returns the identity, or None to refuse the session.

        If the client claims no name, `requirement_provider` can set `Session.auth_id`; otherwise
        the public key becomes the name.

        With `private_key`, 64 hexadecimal digits, the server also signs the challenges of clients
        that want to verify the server. Don't use that key for anything else.

        Raises: ConfigurationError when the realm has cryptosign handlers already, without the extra
        ``crypto``, and when `private_key` is not a key.
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
        """Let ``handler(session)`` do the whole authentication; no other authenticator is used.

        To admit the session, the handler returns an identity or awaits
        ``session.mark_authenticated(identity)``. Otherwise the session is refused. The handler can
        challenge the client with ``await session.challenge(method, extra)``.

        Raises: ConfigurationError when the realm has an authentication handler already.
        """
        self._authenticators.set_handler(handler)
