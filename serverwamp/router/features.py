"""The features that a realm announces in WELCOME, and those that a client announces in HELLO.

Spec: Basic Profile, "Feature Announcement"; Advanced Profile, "Features".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from serverwamp.protocol.messages import Role
from serverwamp.session import Session

IsAllowed: TypeAlias = Callable[[Session], bool]

OF_EVERY_BROKER: Final = (
    "event_retention",
    "pattern_based_subscription",
    "publisher_exclusion",
    "publisher_identification",
    "subscriber_blackwhite_listing",
)
OF_EVERY_DEALER: Final = (
    "progressive_call_results",
    "progressive_call_invocations",
    "call_canceling",
    "call_timeout",
)

OF_SHARING_DEALERS: Final = (
    "caller_identification",
    "pattern_based_registration",
    "shared_registration",
)


class Features:
    """The features of a realm, by their names in the protocol. Each has a conformance test.

    A feature that only some sessions may use is announced only to them.
    """

    def __init__(self) -> None:
        self._offers: list[tuple[Sequence[str], Sequence[str], int | None]] = []
        self._conditions: list[IsAllowed] = []
        self._roles: dict[tuple[bool, ...], Mapping[str, Any]] = {}
        self.offer(broker=OF_EVERY_BROKER, dealer=OF_EVERY_DEALER)

    def offer(
        self,
        *,
        broker: Sequence[str] = (),
        dealer: Sequence[str] = (),
        is_allowed: IsAllowed | None = None,
    ) -> None:
        """Announce features to all sessions, or to those for which `is_allowed` returns True."""
        self._offers.append((broker, dealer, None if is_allowed is None else len(self._conditions)))
        if is_allowed is not None:
            self._conditions.append(is_allowed)
        self._roles.clear()

    def roles_for(self, session: Session) -> Mapping[str, Any]:
        """Return the ``roles`` for the WELCOME of a session."""
        admitted = (
            tuple([is_allowed(session) for is_allowed in self._conditions])
            if self._conditions
            else ()
        )
        roles = self._roles.get(admitted)
        if roles is None:
            broker: dict[str, bool] = {}
            dealer: dict[str, bool] = {}
            for of_broker, of_dealer, place in self._offers:
                if place is None or admitted[place]:
                    broker.update(dict.fromkeys(of_broker, True))
                    dealer.update(dict.fromkeys(of_dealer, True))
            # Some clients fail if a role has no ``features``, so both have them, even if empty.
            roles = {"broker": {"features": broker}, "dealer": {"features": dealer}}
            self._roles[admitted] = roles
        return roles


class CalleeFeatures:
    """The features that a client has announced as a callee.

    A client without call canceling also gets no progressive call invocations, because it couldn't
    be told that the caller has given up.
    """

    __slots__ = (
        "call_canceling",
        "progressive_call_invocations",
        "progressive_call_results",
    )

    def __init__(self, role: Role | None) -> None:
        announced = (role and role.features) or {}
        self.call_canceling: bool = (
            # The specification uses both spellings.
            announced.get("call_canceling") is True or announced.get("call_cancelling") is True
        )
        """Whether the client understands INTERRUPT."""
        self.progressive_call_results: bool = announced.get("progressive_call_results") is True
        """Whether the client can send progressive results."""
        self.progressive_call_invocations: bool = (
            self.call_canceling and announced.get("progressive_call_invocations") is True
        )
        """Whether the client can receive the arguments of a call in several INVOCATIONs."""
