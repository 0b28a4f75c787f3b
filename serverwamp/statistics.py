"""Statistics of an application: counters, and snapshots of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from serverwamp import uris
from serverwamp.backplanes.base import BackplaneState
from serverwamp.outbound.backlog import OverflowPolicy

ERRORS: Final = {uris.CANCELED: "canceled", uris.TIMEOUT: "timeout"}
"""Error URIs that are counted separately; all others are counted as ``error``."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """The activity of an application in all its realms, now and since it was created."""

    sessions: int
    """Open sessions."""
    unauthenticated_sessions: int
    """Other connections, which are before WELCOME or whose session has ended."""
    calls_in_flight: int
    """Calls that have no final answer yet, including those that are queued."""
    calls: Mapping[str, int]
    """Completed calls by outcome, which is ``result``, ``error``, ``timeout`` or ``canceled``. The
    client, the end of the session, or the shutdown of the server can cancel a call."""
    events_delivered: int
    """Events that were queued for a session, counted once per session. Events that were dropped
    later are not included. Whether a client received an event is not known."""
    events_refused: Mapping[str, int]
    """Events that were dropped, by the `OverflowPolicy` that dropped them."""
    outbound_messages: int
    """Messages that wait to be sent."""
    outbound_bytes: int
    """Bytes that wait to be sent or are being sent."""
    lost_windows: int
    """Periods in which events of other processes may have been lost; see
    `Application.add_lost_window_handler`."""
    violations: Mapping[str, int]
    """How often clients broke a rule, by kind. A kind is ``undecodable``, ``unexpected message``,
    ``wrong id``, ``invalid message``, ``wrong frame type``, or the field of `Limits` that was
    exceeded. Kinds that never occurred are left out."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an application can serve clients, for the readiness check of a site."""

    backplane: BackplaneState
    """``ready``; ``reconnecting`` while publications wait or fail; ``closed`` before it is opened.
    Without a backplane it is always ready."""
    draining: bool
    """Whether sessions are being closed and new ones are refused."""
    sessions: int
    """Open sessions in this process."""

    @property
    def is_ready(self) -> bool:
        """Whether a load balancer should send clients to this process."""
        return self.backplane == "ready" and not self.draining


class Counters:
    """The running counters of an application, shared by its realms."""

    __slots__ = (
        "calls",
        "events",
        "events_refused",
        "failures",
        "lost_windows",
        "results",
        "violations",
    )

    def __init__(self) -> None:
        self.calls: int = 0
        self.results: int = 0
        self.failures: Counter[str] = Counter()
        self.events: int = 0
        self.events_refused: Counter[str] = Counter()
        self.lost_windows: int = 0
        self.violations: Counter[str] = Counter()

    def note_error(self, uri: str) -> None:
        """Count a call that ended with an ERROR with this URI."""
        self.failures[ERRORS.get(uri, "error")] += 1

    def statistics(
        self, *, sessions: int, connections: int, outbound_messages: int, outbound_bytes: int
    ) -> Statistics:
        """Return a snapshot; the arguments are the figures that aren't counted here."""
        outcomes = {name: self.failures[name] for name in ("error", *ERRORS.values())}
        outcomes = {"result": self.results, **outcomes}
        refused = {name: self.events_refused[name] for name in get_args(OverflowPolicy)}
        return Statistics(
            sessions=sessions,
            unauthenticated_sessions=connections - sessions,
            calls_in_flight=self.calls - sum(outcomes.values()),
            calls=outcomes,
            events_delivered=self.events,
            events_refused=refused,
            outbound_messages=outbound_messages,
            outbound_bytes=outbound_bytes,
            lost_windows=self.lost_windows,
            violations=dict(self.violations),
        )
