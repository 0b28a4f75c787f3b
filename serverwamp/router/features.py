"""What is announced: by a realm in WELCOME, and by a client in HELLO.

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
    """What a realm offers, by the names of features: only what a test proves.

    Some of it may be offered to some sessions only; it is announced to nobody else.
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
        """Announce features to the sessions that `is_allowed` is true for; without it, to all."""
        self._offers.append((broker, dealer, None if is_allowed is None else len(self._conditions)))
        if is_allowed is not None:
            self._conditions.append(is_allowed)
        self._roles.clear()

    def roles_for(self, session: Session) -> Mapping[str, Any]:
        """Return the roles that the WELCOME of a session announces."""
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
            # Both always have their features, even none: a client fails without.
            roles = {"broker": {"features": broker}, "dealer": {"features": dealer}}
            self._roles[admitted] = roles
        return roles


class CalleeFeatures:
    """What a client can do as a callee, by what it has announced.

    A client that can't be told that a call was cancelled is sent no arguments piece by piece. Its
    reports of progress are ignored after the cancellation.
    """

    __slots__ = (
        "call_canceling",
        "progressive_call_invocations",
        "progressive_call_results",
    )

    def __init__(self, role: Role | None) -> None:
        announced = (role and role.features) or {}
        self.call_canceling: bool = (
            # The specification spells it in two ways.
            announced.get("call_canceling") is True or announced.get("call_cancelling") is True
        )
        """Whether it understands INTERRUPT."""
        self.progressive_call_results: bool = announced.get("progressive_call_results") is True
        """Whether it can be asked for progress."""
        self.progressive_call_invocations: bool = (
            self.call_canceling and announced.get("progressive_call_invocations") is True
        )
        """Whether it takes the arguments of a call piece by piece."""
