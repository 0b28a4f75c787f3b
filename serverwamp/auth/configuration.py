"""The part of a realm's configuration that says how its clients log in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from serverwamp.auth.authentication import Authentication, CRAMethod, TicketMethod
from serverwamp.auth.cryptosign import CryptosignMethod, ServerProof
from serverwamp.auth.scram import scram_methods

Function: TypeAlias = Callable[..., Any]


class Logins(ABC):
    """The authenticators of a realm."""

    authentication: Authentication

    @abstractmethod
    def _check_not_frozen(self) -> None: ...

    def add_transport_authenticator(self, authenticator: Function) -> None:
        """Ask ``authenticator(session)`` for an identity, after those that were added before."""
        self._check_not_frozen()
        self.authentication.add_transport(authenticator)

    def set_ticket_authenticator(self, authenticator: Function) -> None:
        """Ask ``authenticator(session, ticket)`` for the identity of who brings a ticket."""
        self._check_not_frozen()
        self.authentication.set_methods(
            "a ticket authenticator",
            lambda compiled: [TicketMethod(compiled(authenticator, ("session", "ticket")))],
        )

    def set_cra_handlers(self, requirement_provider: Function, identity_provider: Function) -> None:
        """Authenticate by WAMP-CRA.

        ``requirement_provider(session)`` returns a `CRAAuthRequirement`, or None for who is unknown
        and challenged all the same; ``identity_provider(session)`` is asked after the proof.
        """
        self._check_not_frozen()
        self.authentication.set_methods(
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
        self._check_not_frozen()
        self.authentication.set_methods(
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
        self._check_not_frozen()
        proof = ServerProof(private_key)
        self.authentication.set_methods(
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
        self._check_not_frozen()
        self.authentication.set_handler(handler)
