"""Decides which parts of the meta API a realm offers, and to which sessions."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from serverwamp.auth.authorization import Requirement
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer
from serverwamp.router.features import IsAllowed
from serverwamp.router.meta.events import checked, is_allowed_by
from serverwamp.router.meta.registrations import RegistrationMetaAPI
from serverwamp.router.meta.sessions import SessionMetaAPI
from serverwamp.router.meta.subscriptions import SubscriptionMetaAPI
from serverwamp.router.publishing import Publishing
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session


class MetaConfiguration:
    """The requirements for using the meta API; see `Realm.set_meta_api`.

    Raises: ConfigurationError when one of them is not a requirement, or is an async function.
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
        """Tell whether any session can be allowed to read from the meta API or to end sessions."""
        return self._requires is not None or has_logins or self._kill != ()

    def offers_testaments(self, *, has_logins: bool) -> bool:
        """Tell whether any session can be allowed to add testaments."""
        return self._testaments is not None or has_logins

    @property
    def may_ask(self) -> IsAllowed:
        """A function that tells whether a session may read from the meta API."""
        return is_allowed_by(self._requires)

    @property
    def may_kill(self) -> IsAllowed:
        """A function that tells whether a session may end other sessions."""
        return is_allowed_by(self._kill)

    @property
    def may_make_testaments(self) -> IsAllowed:
        """A function that tells whether a session may add testaments."""
        return is_allowed_by(self._testaments)


@dataclass(frozen=True, slots=True)
class MetaAPIs:
    """The parts of the meta API that publish events; None for a part that isn't offered."""

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
        publishing: Publishing,
    ) -> MetaAPIs:
        """Create all parts."""
        may_ask, deliver = configuration.may_ask, publishing.deliver
        return cls(
            SessionMetaAPI(members, may_ask, configuration.may_kill, publishing),
            SubscriptionMetaAPI(may_ask, broker, deliver),
            RegistrationMetaAPI(dealer, may_ask, broker, deliver),
        )

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes of all parts."""
        for part in (self.sessions, self.subscriptions, self.registrations):
            if part is not None:
                yield from part.routes()
