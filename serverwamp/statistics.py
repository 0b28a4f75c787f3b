"""What an application has done and is doing, in numbers, counted where it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from serverwamp import uris
from serverwamp.outbound.backlog import OverflowPolicy

ERRORS: Final = {uris.CANCELED: "canceled", uris.TIMEOUT: "timeout"}
"""What calls that end with an ERROR are counted as, where it isn't ``error``."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What an application has done since it was made, and is doing now, in all of its realms."""

    sessions: int
    """Sessions that are open."""
    unauthenticated_sessions: int
    """Connections besides, whose session isn't welcomed yet, or has ended."""
    calls_in_flight: int
    """Calls that have no final answer yet; those included that wait for their turn."""
    calls: Mapping[str, int]
    """Calls that are over, by what became of them. That is ``result``, ``error``, ``timeout``, or
    ``canceled`` by the client, the end of the session, or that of the server."""
    events_delivered: int
    """Events that were queued for a session, counted once for each, but for those that are dropped
    later. Whether they have arrived, nobody knows."""
    events_refused: Mapping[str, int]
    """Events that were not, by the `OverflowPolicy` that has dropped them."""
    outbound_messages: int
    """Messages that wait to be sent."""
    outbound_bytes: int
    """How many bytes that is, with those that are just being sent."""
    violations: Mapping[str, int]
    """How often clients did what they may not, by what it was. That is ``undecodable``,
    ``unexpected message``, ``wrong id``, ``invalid message``, ``wrong frame type``, or the
    field of `Limits` that was exceeded. What never happened is left out."""


class Counters:
    """What is counted, for the realms of an application together."""

    __slots__ = ("calls", "events", "events_refused", "failures", "results", "violations")

    def __init__(self) -> None:
        self.calls: int = 0
        self.results: int = 0
        self.failures: Counter[str] = Counter()
        self.events: int = 0
        self.events_refused: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()

    def note_error(self, uri: str) -> None:
        """Count a call that ends with an error of that URI."""
        self.failures[ERRORS.get(uri, "error")] += 1

    def statistics(
        self, *, sessions: int, connections: int, outbound_messages: int, outbound_bytes: int
    ) -> Statistics:
        """Return a snapshot, which these numbers complete."""
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
            violations=dict(self.violations),
        )
