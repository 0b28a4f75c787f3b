"""Deadlines: one task watches over all of them, for as long as there are any."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Final, Generic, Protocol, TypeVar

import anyio

from serverwamp.concurrency.tasks import Starter

LONGEST: Final = 365 * 24 * 3600.0
"""Seconds: as good as no deadline, and still a number that clocks can add."""


class Limited(Protocol):
    """What has to be over at its deadline; `answered` is true when it is, or as good as."""

    deadline: float
    answered: bool


T = TypeVar("T", bound=Limited)


class Deadlines(Generic[T]):
    """The deadlines of what is `running`, under its ids; what is late is given to `expire`."""

    def __init__(
        self, running: Mapping[int, T], starter: Starter, expire: Callable[[T], None]
    ) -> None:
        self._running = running
        self._starter = starter
        self._expire = expire
        # A heap of when to look at which id. Something else may have that id by then.
        self._entries: list[tuple[float, int]] = []
        self._sleeping: anyio.CancelScope | None = None

    def set(self, id_: int, seconds: float) -> None:
        """Set, or move, a deadline."""
        limited = self._running[id_]
        was_set = limited.deadline > 0
        limited.deadline = anyio.current_time() + seconds
        if was_set:
            return  # its entry is renewed when its time has come
        if len(self._entries) > 2 * len(self._running) + 100:  # mostly of what is over
            self._entries = [entry for entry in self._entries if entry[1] in self._running]
            heapq.heapify(self._entries)
        heapq.heappush(self._entries, (limited.deadline, id_))
        if self._sleeping is None:
            self._sleeping = anyio.CancelScope()
            self._starter.start(self._watch)
        elif self._entries[0][0] < self._sleeping.deadline:
            self._sleeping.deadline = self._entries[0][0]

    def stop(self) -> None:
        """Forget all deadlines."""
        self._entries.clear()
        if self._sleeping is not None:
            self._sleeping.cancel()

    async def _watch(self) -> None:
        while self._entries:
            deadline, id_ = self._entries[0]
            limited = self._running.get(id_)
            if limited is None or limited.answered or not limited.deadline:
                heapq.heappop(self._entries)
            elif limited.deadline > deadline:
                heapq.heapreplace(self._entries, (limited.deadline, id_))
            elif deadline > anyio.current_time():
                self._sleeping = anyio.CancelScope(deadline=deadline)
                with self._sleeping:
                    await anyio.sleep_forever()
            else:
                heapq.heappop(self._entries)
                self._expire(limited)
        self._sleeping = None
