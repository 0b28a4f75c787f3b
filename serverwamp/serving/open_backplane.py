"""Keeps the backplane of an application open, and reports what it may have lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from serverwamp.backplanes.base import Backplane
from serverwamp.backplanes.running import running
from serverwamp.binding.handler import Handler
from serverwamp.concurrency.failures import raise_unless_failure
from serverwamp.concurrency.tasks import start_in_background
from serverwamp.errors import BackplaneUnavailable
from serverwamp.history import HistoryReader
from serverwamp.router.lost_windows import LostWindow
from serverwamp.router.router import RealmRouter
from serverwamp.statistics import Counters

logger: logging.Logger = logging.getLogger(__name__)


class OpenBackplane:
    """Opens a backplane for its users, of which there may be several at the same time.

    `routers` returns the routers of all realms.
    """

    def __init__(
        self,
        backplane: Backplane,
        counters: Counters,
        routers: Callable[[], Iterable[RealmRouter]],
    ) -> None:
        self._backplane = backplane
        self._counters = counters
        self._routers = routers
        self._opening: _Opening | None = None
        self._tasks: TaskGroup | None = None
        self.is_open: bool = not backplane.is_shared
        self.lost_window_handlers: Sequence[Handler] = ()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the backplane open while the block runs. If it is open already, do nothing.

        Raises: BackplaneUnavailable.
        """
        if self.is_open:
            yield
        elif self._opening is not None:
            await self._opening.wait()
            yield
        else:
            self._opening = _Opening()
            async with self._opened(self._opening):
                yield

    @asynccontextmanager
    async def _opened(self, opening: _Opening) -> AsyncIterator[None]:
        try:
            async with running(self._backplane, self) as self._tasks:
                self.is_open = True
                opening.succeed()
                yield
        finally:
            self.is_open = False
            self._opening = self._tasks = None
            opening.done.set()

    async def open_in_background(self) -> None:
        """Open the backplane until the event loop ends, unless it is open.

        Raises: BackplaneUnavailable; the next call tries again.
        """
        if self.is_open:
            return
        opening = self._opening
        if opening is None:
            opening = self._opening = _Opening()
            start_in_background(self._stay_open, opening)
        await opening.wait()

    async def _stay_open(self, opening: _Opening) -> None:
        try:
            async with self._opened(opening):
                await anyio.sleep_forever()
        except BaseException as error:
            raise_unless_failure(error)
            logger.error("the backplane can't be opened: %s", error)

    # ---- lost events

    def lose_window(self, since: float, until: float, history: HistoryReader | None = None) -> None:
        """Count a period in which events may be lost, log it, and tell the application."""
        self._counters.lost_windows += 1
        if history is None:  # else it has said what was missed
            logger.warning(
                "the connection to the backplane was lost: events of %.1f seconds may be missing",
                until - since,
            )
        if self._tasks is None or not self.lost_window_handlers:
            return
        for router in self._routers():
            window = router.publishing.lost_in(since, until, history)
            if window is not None:
                self._tasks.start_soon(self._tell, window)

    async def _tell(self, window: LostWindow) -> None:
        for handler in self.lost_window_handlers:
            try:
                await handler.call({"window": window})
            except BaseException as error:
                raise_unless_failure(error)
                logger.exception("a lost window handler failed")


class _Opening:
    """What those wait for who need the backplane while it is being opened."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._has_succeeded = False

    def succeed(self) -> None:
        self._has_succeeded = True
        self.done.set()

    async def wait(self) -> None:
        await self.done.wait()
        if not self._has_succeeded:
            raise BackplaneUnavailable("the backplane can't be opened")
