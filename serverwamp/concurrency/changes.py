"""Wake tasks that wait until something has changed."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Changes:
    """Wakes the tasks that wait for a change. `notify` costs almost nothing if no task waits."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event: anyio.Event | None = None
        """The event that the tasks wait for; None while no task waits."""

    def notify(self) -> None:
        """Wake all waiting tasks."""
        if self.event is not None:
            self.event.set()
            self.event = None

    async def wait(self) -> None:
        """Return at the next `notify`."""
        if self.event is None:
            self.event = anyio.Event()
        await self.event.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition()` is true. It is checked at once, and after each `notify`."""
        while not condition():
            await self.wait()
