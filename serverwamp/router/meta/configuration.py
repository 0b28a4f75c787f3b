"""Which parts of the meta API a realm offers, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from serverwamp.auth.authorization import Requirement
from serverwamp.publication import Publication
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.router.features import IsAllowed
from serverwamp.router.meta.events import checked, is_allowed_by
from serverwamp.router.meta.registrations import RegistrationMetaAPI
from serverwamp.router.meta.sessions import SessionMetaAPI
from serverwamp.router.meta.subscriptions import SubscriptionMetaAPI
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session


class MetaConfiguration:
    """What it takes to use the meta API, as `Realm.set_meta_api` says.

    Raises: ConfigurationError.
    """

    def __init__(
        self,
        requires: Requirement | None = None,
        kill: Requirement = (),
        testaments: Requirement | None = None,
    ) -> None:
        self._requires = checked(requires)
        self._kill = checked(kill) or ()
        self._testaments = checked(testaments)

    def offers_sessions(self, *, has_logins: bool) -> bool:
        """Tell whether anybody can meet what is required to ask about others, or to end them."""
        return self._requires is not None or has_logins or self._kill != ()

    def offers_testaments(self, *, has_logins: bool) -> bool:
        """Tell whether anybody can meet what is required to make a testament."""
        return self._testaments is not None or has_logins

    @property
    def may_ask(self) -> IsAllowed:
        """Tells whether a session may ask about others."""
        return is_allowed_by(self._requires)

    @property
    def may_kill(self) -> IsAllowed:
        """Tells whether a session may end others."""
        return is_allowed_by(self._kill)

    @property
    def may_make_testaments(self) -> IsAllowed:
        """Tells whether a session may make testaments."""
        return is_allowed_by(self._testaments)


@dataclass(frozen=True, slots=True)
class MetaAPIs:
    """The parts of the meta API that tell of what happens; None for what nobody may hear of."""

    sessions: SessionMetaAPI | None = None
    subscriptions: SubscriptionMetaAPI | None = None
    registrations: RegistrationMetaAPI | None = None

    @classmethod
    def of(
        cls,
        configuration: MetaConfiguration,
        members: MutableMapping[int, Session],
        broker: Broker,
        dealer: Dealer[Any],
        deliver: Callable[[Publication], None],
    ) -> MetaAPIs:
        """Return all parts for those who may ask."""
        may_ask = configuration.may_ask
        return cls(
            SessionMetaAPI(members, may_ask, configuration.may_kill, broker, deliver),
            SubscriptionMetaAPI(may_ask, broker, deliver),
            RegistrationMetaAPI(dealer, may_ask, broker, deliver),
        )

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes by which clients reach them."""
        for part in (self.sessions, self.subscriptions, self.registrations):
            if part is not None:
                yield from part.routes()
