"""Notify and wait: tasks that wait until something has changed."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Changes:
    """Wakes the tasks that wait for a change. While nobody waits, it costs almost nothing."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: anyio.Event | None = None
        """What the tasks wait for; None while nobody waits."""

    def notify(self) -> None:
        """Wake all tasks that wait."""
        if self.event is not None:
            self.event.set()
            self.event = None

    async def wait(self) -> None:
        """Return at the next change."""
        if self.event is None:
            self.event = anyio.Event()
        await self.event.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as `condition` holds; it is looked at again after each change."""
        while not condition():
            await self.wait()
