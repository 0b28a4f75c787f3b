"""The part of a realm that tells clients about the realm itself, put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from serverwamp.auth.authentication import Authentication
from serverwamp.auth.authorization import Requirement
from serverwamp.publication import Publication
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.router.endpoints import Handlers
from serverwamp.router.features import Admits, Features
from serverwamp.router.meta.events import admitting, checked
from serverwamp.router.meta.history import HistoryAPI
from serverwamp.router.meta.registrations import RegistrationMetaAPI
from serverwamp.router.meta.sessions import SessionMetaAPI
from serverwamp.router.meta.subscriptions import SubscriptionMetaAPI
from serverwamp.router.meta.testaments import TestamentAPI
from serverwamp.session import Session


class ToldOf(ABC):
    """A realm, as far as clients may know of it."""

    authentication: Authentication
    broker: Broker
    dealer: Dealer[Any]
    features: Features
    handlers: Handlers
    members: dict[int, Session]
    """The sessions that are open."""
    session_meta: SessionMetaAPI | None = None
    """Whom to tell of sessions, if anybody may know of them."""
    subscription_meta: SubscriptionMetaAPI | None = None
    """Whom to tell of subscriptions, if anybody may know of them."""
    registration_meta: RegistrationMetaAPI | None = None
    """Whom to tell of registrations, if anybody may know of them."""
    _meta_requires: Requirement | None = None
    _kill_requires: Requirement = ()
    _testaments_require: Requirement | None = None

    @abstractmethod
    async def may_hear(self, session: Session, topic: str) -> bool: ...

    @abstractmethod
    def _check_not_frozen(self) -> None: ...

    @abstractmethod
    def _deliver(self, publication: Publication) -> None: ...

    def set_meta_api(
        self,
        requires: Requirement | None = None,
        *,
        kill: Requirement = (),
        testaments: Requirement | None = None,
    ) -> None:
        """Say who may use the procedures and topics that the protocol has below ``wamp.``.

        `requires` is what it takes to ask, and to hear, who is there and what they do: a role, a
        collection of roles, or a plain function that is given the session and returns True if it
        may.
        `kill` is what it takes to end the sessions of others, and `testaments` what it takes to
        leave something to be published at the session's end. Sessions that are authenticated may
        do all that unless something else is said here, but for ending others: nobody may.

        Raises: ConfigurationError.
        """
        self._check_not_frozen()
        self._meta_requires, self._testaments_require = checked(requires), checked(testaments)
        self._kill_requires = checked(kill) or ()

    def _offer_protocol(self) -> None:
        """Add the routes of the protocol, as far as anybody could use them."""
        if self.handlers.has_custom_functions:  # which take all there is
            return
        if self.handlers.keeps_history:
            self.handlers.add_protocol_routes(
                HistoryAPI(self.broker, self.handlers, self.may_hear).routes()
            )
            self.features.offer(broker=("event_history",))
        if self._is_for_anybody(self._meta_requires) or self._kill_requires != ():
            self._offer_meta_api(admitting(self._meta_requires))
        if self.handlers.takes_publications and self._is_for_anybody(self._testaments_require):
            admits = admitting(self._testaments_require)
            offer = TestamentAPI(admits, self.handlers.publication)
            self.handlers.add_protocol_routes(offer.routes())
            self.features.offer(dealer=("testament_meta_api",), admits=admits)

    def _is_for_anybody(self, requires: Requirement | None) -> bool:
        return requires is not None or not self.authentication.is_open

    def _offer_meta_api(self, admits: Admits) -> None:
        broker, admits_to_kill = self.broker, admitting(self._kill_requires)
        self.session_meta = SessionMetaAPI(
            self.members, admits, admits_to_kill, broker, self._deliver
        )
        self.subscription_meta = SubscriptionMetaAPI(admits, broker, self._deliver)
        self.registration_meta = RegistrationMetaAPI(self.dealer, admits, broker, self._deliver)
        for part in (self.session_meta, self.subscription_meta, self.registration_meta):
            self.handlers.add_protocol_routes(part.routes())
        self.features.offer(
            broker=("session_meta_api", "subscription_meta_api"),
            dealer=("session_meta_api", "registration_meta_api"),
            admits=admits,
        )

    def enter(self, session: Session) -> None:
        """Take note that a session is open."""
        self.members[session.id] = session
        if self.session_meta is not None:
            self.session_meta.note_joined(session)

    def leave(self, session: Session) -> bool:
        """Take note that a session isn't open any more; tell whether anybody may hear of it."""
        if self.members.pop(session.id, None) is None:  # that was done before, or all were killed
            return False
        if self.session_meta is not None:
            self.session_meta.note_left(session)
        return True
