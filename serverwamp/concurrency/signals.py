"""Handle a termination signal before the ASGI server does.

On a signal, ASGI servers first close the connections and then tell the application to shut down.
That is too late to say GOODBYE to clients. If the server has installed its handler by
`signal.signal`, as Uvicorn does, this module replaces that handler and calls it a little later.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final, TypeAlias

import anyio

logger: logging.Logger = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
ONE_AND_THE_SAME: Final = 1.0
"""Signals within this many seconds count as one. For example, a terminal signals both a process and
its parent, and the parent passes the signal on."""


@asynccontextmanager
async def ahead_of_signals(act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """At the first signal, await ``act()`` before calling the signal's original handler.

    A later signal goes to its original handler at once. Signals without a handler are left alone.
    Outside the main thread, this does nothing.
    """
    handlers = _present_handlers()
    if not handlers:
        yield
        return
    failure: Exception | None = None
    with _Detour(handlers) as detour:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(detour.take, act)
            try:
                yield
            except Exception as error:  # the task group would wrap it in an exception group
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _present_handlers() -> Mapping[int, Handler]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    present = {number: signal.getsignal(number) for number in SIGNALS}
    return {
        number: handler
        for number, handler in present.items()
        if callable(handler) and handler is not signal.default_int_handler
    }


class _Detour:
    """Holds back the first signal until `act` is done, then passes it to its original handler."""

    def __init__(self, handlers: Mapping[int, Handler]) -> None:
        self._handlers = handlers
        self._first: int | None = None
        self._time = 0.0
        self._has_arrived = False
        # A signal handler can write to a socket, and every event loop can wait for one.
        self._end, self._beginning = socket.socketpair()
        self._beginning.setblocking(False)

    def __enter__(self) -> _Detour:
        for number in self._handlers:
            signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, handler)
        self._beginning.close()
        self._end.close()
        self._arrive()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first, self._time = number, monotonic()
            self._beginning.send(b"\0")
        elif monotonic() - self._time > ONE_AND_THE_SAME:
            self._has_arrived = True
            self._handlers[number](number, frame)

    async def take(self, act: Callable[[], Awaitable[None]]) -> None:
        """Wait for the first signal, await ``act()``, and call the signal's original handler."""
        await anyio.wait_readable(self._end)
        try:
            await act()
        except Exception:
            logger.exception("preparing for the shutdown failed")
        self._arrive()

    def _arrive(self) -> None:
        if self._first is not None and not self._has_arrived:
            self._has_arrived = True
            self._handlers[self._first](self._first, None)
