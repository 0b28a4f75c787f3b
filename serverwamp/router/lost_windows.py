"""Periods in which events of other processes may have been lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serverwamp.router.broker import Subscription


@dataclass(frozen=True, slots=True)
class LostWindow:
    """A period in which events may have been lost for subscribers in this process.

    The times are Unix timestamps in seconds, by the clock of this process.
    """

    realm: str | None
    """The URI of the realm; None for the default realm of an application."""
    subscriptions: Sequence[Subscription]
    """The subscriptions of sessions in this process, at the end of the period. Their events may
    have been lost."""
    since: float
    """Everything that was published before has arrived."""
    until: float
    """Everything that is published afterwards arrives."""
