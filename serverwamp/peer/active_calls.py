"""The running calls of one session."""

from __future__ import annotations

from collections.abc import Iterator

from serverwamp.peer.call import RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.in_flight import InFlight


class ActiveCalls(InFlight):
    """The running calls of a session, by their request ids.

    A call is running until its handler has ended, which can be after its answer. A client may use
    the request id of an answered call again. So running calls can share an id, but only one of them
    has no answer yet.
    """

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(conversation, "calls_in_flight", "running calls")
        self._by_id: dict[int, RunningCall] = {}
        self._displaced: set[RunningCall] = set()  # answered calls whose id is in use again

    def __iter__(self) -> Iterator[RunningCall]:
        yield from tuple(self._by_id.values())
        yield from tuple(self._displaced)

    def get(self, request: int) -> RunningCall | None:
        """Return the latest running call with that request id, whether it is answered or not."""
        return self._by_id.get(request)

    def open(self, request: int) -> RunningCall | None:
        """Return the call with that request id that has no answer yet."""
        running = self._by_id.get(request)
        return None if running is None or running.answered else running

    def add(self, running: RunningCall) -> None:
        """Add a call."""
        self.begin()
        previous = self._by_id.get(running.call.request)
        if previous is not None:
            self._displaced.add(previous)
        self._by_id[running.call.request] = running

    def remove(self, running: RunningCall) -> None:
        """Remove a call; do nothing if it isn't here."""
        if self._by_id.get(running.call.request) is running:
            del self._by_id[running.call.request]
        elif running in self._displaced:
            self._displaced.remove(running)
        else:
            return
        self.end()
