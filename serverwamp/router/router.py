"""The router: a realm at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, Final

from serverwamp import uris
from serverwamp.auth.authentication import Authentication
from serverwamp.auth.authorization import Authorization
from serverwamp.binding.handler import Handler
from serverwamp.client_call import ClientCall
from serverwamp.errors import InvalidURI, NoSuchProcedure
from serverwamp.patterns import PatternTable
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.router.endpoints import Endpoints
from serverwamp.router.error_mapping import ErrorMapping
from serverwamp.router.features import Features
from serverwamp.router.meta.configuration import MetaAPIs
from serverwamp.router.publishing import Publishing
from serverwamp.router.registration_policy import RegistrationPolicy
from serverwamp.session import Session
from serverwamp.statistics import Counters
from serverwamp.uris import MatchPolicy

NO_LIFESPAN: Final = nullcontext()


class RealmRouter:
    """The state that all sessions of a realm share: endpoints, tables, members and stored events.

    `Realm.freeze` builds it from the configuration. Its tables change as sessions begin and end;
    its configuration never changes.
    """

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        broker: Broker,
        dealer: Dealer[Any],
        registration_policies: PatternTable[RegistrationPolicy],
        publishing: Publishing,
        members: dict[int, Session],
        authentication: Authentication,
        authorization: Authorization | None,
        errors: ErrorMapping,
        lifespan_handlers: Sequence[tuple[Handler, bool]],
        overflow_handlers: Sequence[Handler],
        features: Features,
        meta: MetaAPIs,
        counters: Counters,
    ) -> None:
        self.endpoints: Endpoints = endpoints
        self.broker: Broker = broker
        self.dealer: Dealer[Any] = dealer
        self.registration_policies: PatternTable[RegistrationPolicy] = registration_policies
        self.publishing: Publishing = publishing
        self.members: Mapping[int, Session] = members
        """The open sessions of the realm, by id."""
        self.authentication: Authentication = authentication
        self.authorization: Authorization | None = authorization
        """None if there are neither an authorizer nor rules, so that everything is allowed."""
        self.errors: ErrorMapping = errors
        self.overflow_handlers: Sequence[Handler] = overflow_handlers
        self.features: Features = features
        self.meta: MetaAPIs = meta
        self.counters: Counters = counters
        self.keeps_clients_waiting: bool = bool(lifespan_handlers) or not authentication.is_open
        """Whether functions of the application run before WELCOME, so that clients have to wait."""
        self._members = members
        self._lifespan_handlers = lifespan_handlers

    # ---- sessions

    def enter(self, session: Session) -> None:
        """Add a session for which WELCOME was sent."""
        self._members[session.id] = session
        if self.meta.sessions is not None:
            self.meta.sessions.note_joined(session)

    def leave(self, session: Session, *, quietly: bool) -> bool:
        """Remove a session that has ended; tell whether it was there.

        With `quietly`, no meta event is published.
        """
        if self._members.pop(session.id, None) is None:
            return False
        if self.meta.sessions is not None and not quietly:
            self.meta.sessions.note_left(session)
        return True

    def lifespan_stack(self) -> AbstractAsyncContextManager[Any]:
        """Return the exit stack for `open_lifespan_handlers`."""
        return AsyncExitStack() if self.keeps_clients_waiting else NO_LIFESPAN

    async def open_lifespan_handlers(
        self, session: Session, stack: AsyncExitStack, *, authenticated: bool
    ) -> None:
        """Run the lifespan handlers of a session up to their ``yield``.

        `authenticated` selects those that run after the authentication; otherwise, those that run
        before it.
        """
        for handler, authenticated_only in self._lifespan_handlers:
            if authenticated_only is authenticated:
                await stack.enter_async_context(handler.opened({"session": session}))

    # ---- procedures of clients

    def registration_policy(self, uri: str, match: MatchPolicy) -> RegistrationPolicy | None:
        """Return the policy that allows registering a procedure or pattern; None if none does."""
        return next(self.registration_policies.covering(uri, match), None)

    def call(
        self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> ClientCall:
        """Return a call of a procedure that clients have registered for one another."""

        def begin(call: ClientCall, details: Mapping[str, Any]) -> Any:
            if not uris.is_valid_uri(uri):
                raise InvalidURI(f"{uri!r} is not a valid URI")
            registration = None if self.endpoints.serves(uri) else self.dealer.best(uri)
            if registration is None:
                raise NoSuchProcedure(f"no client serves {uri!r}")
            return registration.pick().invoke(registration, uri, args, kwargs, call, details)

        return ClientCall(begin, timeout)
