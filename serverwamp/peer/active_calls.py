"""The calls of a session that are running."""

from __future__ import annotations

from collections.abc import Iterator

from serverwamp.peer.call import RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.in_flight import InFlight


class ActiveCalls(InFlight):
    """The running calls of a session, by their request ids.

    A call is among them until its handler has ended, which can be after its answer. A client may
    use the id of an answered call again, so two calls can have the same id, but only one of them
    is open.
    """

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(conversation, "calls_in_flight", "calls running")
        self._by_id: dict[int, RunningCall] = {}
        self._displaced: set[RunningCall] = set()  # answered calls whose id was used again

    def __iter__(self) -> Iterator[RunningCall]:
        yield from tuple(self._by_id.values())
        yield from tuple(self._displaced)

    def get(self, request: int) -> RunningCall | None:
        """Return the call that has a request id now, even if it is answered."""
        return self._by_id.get(request)

    def open(self, request: int) -> RunningCall | None:
        """Return the call of that request id that has no answer yet."""
        running = self._by_id.get(request)
        return None if running is None or running.answered else running

    def add(self, running: RunningCall) -> None:
        """Put a call among those that are running."""
        self.begin()
        previous = self._by_id.get(running.call.request)
        if previous is not None:
            self._displaced.add(previous)
        self._by_id[running.call.request] = running

    def remove(self, running: RunningCall) -> None:
        """Take a call from those that are running; a call that isn't among them is ignored."""
        if self._by_id.get(running.call.request) is running:
            del self._by_id[running.call.request]
        elif running in self._displaced:
            self._displaced.remove(running)
        else:
            return
        self.end()
