"""How many requests of a kind a session has in flight, and the wait for room."""

from __future__ import annotations

import anyio

from serverwamp.concurrency.changes import Changes
from serverwamp.errors import Unavailable
from serverwamp.peer.conversation import Conversation


class InFlight:
    """Counts the requests of a kind, of which `limit`, a field of `Limits`, says how many may be.

    `name` is what log messages call them.
    """

    def __init__(self, conversation: Conversation, limit: str, name: str) -> None:
        self.count: int = 0
        self.is_closed: bool = False
        """Whether the session is over, so that nothing waits any more."""
        self._conversation = conversation
        self._limit = limit
        self._name = name
        self._most: float = getattr(conversation.limits, limit)
        self._changes = Changes()
        self._ended = 0
        self._ended_when_stuck = -1

    @property
    def is_full(self) -> bool:
        """Whether no other request may begin."""
        return self.count >= self._most

    def begin(self) -> None:
        """Count a request."""
        self.count += 1

    def end(self) -> None:
        """Count a request no more."""
        self.count -= 1
        self._ended += 1
        self._changes.notify()

    def close(self) -> None:
        """End all waiting, because the session is over."""
        self.is_closed = True
        self._changes.notify()

    async def wait_for_room(self) -> None:
        """Return when another request may begin, or the session is over.

        The reader waits here, and nothing else: a CANCEL or the end of the connection can only be
        found by reading. So after one wait in vain, the next ones fail at once until a request has
        ended.

        Raises: Unavailable when that takes longer than `Limits.busy_timeout`.
        """
        record, session = self._conversation.limit_log.record, self._conversation.session
        timeout = self._conversation.limits.busy_timeout
        if self._ended != self._ended_when_stuck:
            record(self._limit, "session %s has %s %s", session.id, self.count, self._name)
            with anyio.move_on_after(timeout):
                await self._changes.wait_until(lambda: self.is_closed or not self.is_full)
        if self.is_closed or not self.is_full:
            return
        self._ended_when_stuck = self._ended
        text = "none of the %s %s of session %s has ended in %s seconds: more are refused"
        record("busy_timeout", text, self.count, self._name, session.id, timeout)
        raise Unavailable(f"the session has as many {self._name} as it may have")

    async def wait_idle(self) -> None:
        """Return when no request is in flight, or the session is over."""
        await self._changes.wait_until(lambda: self.is_closed or not self.count)
