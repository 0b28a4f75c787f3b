"""The part of a realm that tells clients about the realm itself, put together."""

from __future__ import annotations

from abc import ABC, abstractmethod

from serverwamp.authentication import Authentication
from serverwamp.broker import Broker
from serverwamp.features import Features
from serverwamp.handlers import Handlers
from serverwamp.meta import Requirement, admitting
from serverwamp.meta_sessions import SessionMetaAPI
from serverwamp.meta_subscriptions import SubscriptionMetaAPI
from serverwamp.publication import Publication
from serverwamp.session import Session


class ToldOf(ABC):
    """A realm, as far as clients may know of it."""

    authentication: Authentication
    broker: Broker
    features: Features
    handlers: Handlers
    members: dict[int, Session]
    """The sessions that are open."""
    session_meta: SessionMetaAPI | None = None
    """Whom to tell of sessions, if anybody may know of them."""
    subscription_meta: SubscriptionMetaAPI | None = None
    """Whom to tell of subscriptions, if anybody may know of them."""
    _meta_requires: Requirement | None = None
    _kill_requires: Requirement = ()

    @abstractmethod
    def _check_not_frozen(self) -> None: ...

    @abstractmethod
    def _deliver(self, publication: Publication) -> None: ...

    def set_meta_api(self, requires: Requirement | None = None, *, kill: Requirement = ()) -> None:
        """Say who may use the procedures and topics below ``wamp.`` that tell of the realm.

        `requires` is what it takes to ask, and to hear, who is there and what they do: a role, a
        collection of roles, or a function that is given the session and returns whether it may.
        Without it, whoever is authenticated may. `kill` is what it takes to end the sessions of
        others: nobody may, unless it says something else.
        """
        self._check_not_frozen()
        self._meta_requires, self._kill_requires = requires, kill

    def _offer_meta_api(self) -> None:
        """Add the routes, unless nobody could use them."""
        if self.handlers.has_custom_functions:  # which take all there is
            return
        if self.authentication.is_open and self._meta_requires is None:
            return
        admits, broker = admitting(self._meta_requires), self.broker
        admits_to_kill = admitting(self._kill_requires)
        self.session_meta = SessionMetaAPI(
            self.members, admits, admits_to_kill, broker, self._deliver
        )
        self.subscription_meta = SubscriptionMetaAPI(admits, broker, self._deliver)
        for part in (self.session_meta, self.subscription_meta):
            self.handlers.add_protocol_routes(part.routes())
        self.features.offer(
            broker=("session_meta_api", "subscription_meta_api"),
            dealer=("session_meta_api",),
            admits=admits,
        )

    def enter(self, session: Session) -> None:
        """Take note that a session is open."""
        self.members[session.id] = session
        if self.session_meta is not None:
            self.session_meta.note_joined(session)

    def leave(self, session: Session) -> None:
        """Take note that a session isn't open any more, if it was."""
        if self.members.pop(session.id, None) is not None and self.session_meta is not None:
            self.session_meta.note_left(session)
