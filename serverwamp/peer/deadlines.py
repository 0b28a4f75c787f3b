"""The deadlines of running calls. One task per session watches them, while there are any."""

from __future__ import annotations

import heapq
import math
from typing import Final

import anyio

from serverwamp.errors import CallTimeout
from serverwamp.peer.active_calls import ActiveCalls
from serverwamp.peer.call import RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.replies import Replies

LONGEST: Final = 365 * 24 * 3600.0
"""The longest timeout, in seconds. Event loops may not be able to wait much longer."""


class Deadlines:
    """Ends calls after the caller's timeout or `Limits.call_timeout`, whichever is shorter.

    The time begins again with each progress report, and with each chunk of arguments.
    """

    def __init__(self, conversation: Conversation, calls: ActiveCalls, replies: Replies) -> None:
        self._conversation = conversation
        self._starter = conversation.starter
        self._calls = calls
        self._replies = replies
        self._limit = conversation.limits.call_timeout
        self._is_limited = self._limit < math.inf
        # A heap of times with the request ids of the calls to check then. By that time, the call
        # can have ended or got a later deadline, and another call can have its request id.
        self._entries: list[tuple[float, int]] = []
        self._sleeping: anyio.CancelScope | None = None

    def begin(self, running: RunningCall) -> None:
        """Set the deadline of a call that has just begun, if it has one."""
        if self._is_limited or running.call.options.timeout:
            self._set(running)

    def renew(self, running: RunningCall) -> None:
        """Restart the time of a call, if it has a deadline."""
        if running.deadline:
            self._set(running)

    def stop(self) -> None:
        """Forget all deadlines."""
        self._entries.clear()
        if self._sleeping is not None:
            self._sleeping.cancel()

    def _set(self, running: RunningCall) -> None:
        had_deadline = running.deadline > 0
        running.deadline = anyio.current_time() + self._seconds_for(running)
        if had_deadline:
            return  # `_watch` moves its entry when it comes to it
        if len(self._entries) > 2 * self._calls.count + 100:  # most calls of these have ended
            self._entries = [e for e in self._entries if self._calls.get(e[1]) is not None]
            heapq.heapify(self._entries)
        heapq.heappush(self._entries, (running.deadline, running.call.request))
        if self._sleeping is None:
            self._sleeping = anyio.CancelScope()
            self._starter.start(self._watch)
        elif self._entries[0][0] < self._sleeping.deadline:
            self._sleeping.deadline = self._entries[0][0]

    def _seconds_for(self, running: RunningCall) -> float:
        limit, milliseconds = min(self._limit, LONGEST), running.call.options.timeout
        return limit if not milliseconds or milliseconds > limit * 1000 else milliseconds / 1000

    async def _watch(self) -> None:
        while self._entries:
            deadline, request = self._entries[0]
            running = self._calls.get(request)
            if running is None or running.answered or not running.deadline:
                heapq.heappop(self._entries)
            elif running.deadline > deadline:
                heapq.heapreplace(self._entries, (running.deadline, request))
            elif deadline > anyio.current_time():
                self._sleeping = anyio.CancelScope(deadline=deadline)
                with self._sleeping:
                    await anyio.sleep_forever()
            else:
                heapq.heappop(self._entries)
                self._time_out(running)
        self._sleeping = None

    def _time_out(self, running: RunningCall) -> None:
        call = running.call
        if not call.options.timeout or call.options.timeout > self._limit * 1000:
            text = "a call of %.100r had no result in %s seconds"
            record = self._conversation.limit_log.record
            record("call_timeout", text, call.procedure, self._limit)
        self._replies.answer_error(running, CallTimeout("the call took too long"))
        running.cancel()
