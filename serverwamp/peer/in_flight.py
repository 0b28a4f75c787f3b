"""Counts the unfinished requests of one kind, up to a limit, and waits for room."""

from __future__ import annotations

import anyio

from serverwamp.concurrency.changes import Changes
from serverwamp.errors import Unavailable
from serverwamp.peer.conversation import Conversation


class InFlight:
    """Counts the requests of one kind that a session has in flight.

    `limit` is the name of the field of `Limits` that bounds their number. `name` is the word for
    them in log messages and errors.
    """

    def __init__(self, conversation: Conversation, limit: str, name: str) -> None:
        self.count: int = 0
        """How many requests are in flight."""
        self.is_closed: bool = False
        """Whether the session has ended, so that nothing waits any more."""
        self._conversation = conversation
        self._limit = limit
        self._name = name
        self._most: float = getattr(conversation.limits, limit)
        self._changes = Changes()
        self._ended = 0
        self._ended_when_stuck = -1

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.count >= self._most

    def begin(self) -> None:
        """Add a request."""
        self.count += 1

    def end(self) -> None:
        """Remove a request that has ended."""
        self.count -= 1
        self._ended += 1
        self._changes.notify()

    def close(self) -> None:
        """End all waiting, because the session has ended."""
        self.is_closed = True
        self._changes.notify()

    async def wait_for_room(self) -> None:
        """Return when another request may begin, or the session has ended.

        The session reads no message while it waits here, not even CANCEL. So after one wait
        has failed, further waits fail at once until a request has ended.

        Raises: Unavailable when no request ends within `Limits.busy_timeout`.
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
        raise Unavailable(f"the session has the maximum number of {self._name}")

    async def wait_idle(self) -> None:
        """Return when no request is in flight, or the session has ended."""
        await self._changes.wait_until(lambda: self.is_closed or not self.count)
