"""Calls that the application makes of what clients have registered."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import anyio
import anyio.lowlevel

from serverwamp.binding.results import RPCProgressReport, RPCResult
from serverwamp.errors import CallCanceled, CallTimeout, Unavailable, WAMPError


class Pending(Protocol):
    """What the client has been given to answer."""

    @property
    def timeout(self) -> float: ...

    def abandon(self) -> None: ...


Begin: TypeAlias = Callable[["ClientCall", Mapping[str, Any]], Pending]
"""Gives a call to a client, with the details of its INVOCATION; raises WAMPError if it can't."""

MOST_REPORTS: Final = 1000
"""How many reports wait to be read."""


class ClientCall(AsyncIterator[RPCProgressReport]):
    """A call of a procedure that a client serves: awaiting it makes the call and gives its result.

    ::

        result = await session.call("com.example.measure", ["celsius"])

    Iterating over it before asks the client for its progress::

        call = session.call("com.example.copy")
        async for report in call:
            print(report.args)
        result = await call

    `cancel` ends it, and so does whoever is cancelled while waiting; the client is told. Each call
    is made once, however often its result is asked for; who doesn't iterate to the end has to await
    it.

    Raises: WAMPError. That is the client's own, or else ``wamp.error.no_such_procedure`` when it
        serves no such procedure, ``wamp.error.timeout`` when it takes too long,
        ``wamp.error.canceled`` when it leaves, ``wamp.error.unavailable`` when it is too busy.
    """

    def __init__(self, begin: Begin, timeout: float | None) -> None:
        self._begin: Begin | None = begin
        self._timeout = timeout  # None until the client is known
        self._pending: Pending | None = None
        self._reports: deque[RPCProgressReport] = deque()
        self._outcome: RPCResult | WAMPError | None = None
        self._changed: anyio.Event | None = None

    def __await__(self) -> Generator[Any, None, RPCResult]:
        return self._result().__await__()

    async def _result(self) -> RPCResult:
        self._start({})
        while await self._has_report():
            self._reports.clear()
        if isinstance(self._outcome, RPCResult):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def __aiter__(self) -> AsyncIterator[RPCProgressReport]:
        return self

    async def __anext__(self) -> RPCProgressReport:
        self._start({"receive_progress": True})
        if await self._has_report():
            return self._reports.popleft()
        raise StopAsyncIteration

    def cancel(self) -> None:
        """End the call: who waits for it gets ``wamp.error.canceled``, and the client is told.

        A call that is over is left alone.
        """
        if self._outcome is None:
            self._begin = None
            self._stop(CallCanceled("the call was cancelled"))
            self._notify()

    def _start(self, details: Mapping[str, Any]) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            try:
                self._pending = begin(self, details)
                self._timeout = self._pending.timeout if self._timeout is None else self._timeout
            except WAMPError as error:
                self._outcome = error

    async def _has_report(self) -> bool:
        """Wait for the next report, or the outcome; tell whether there is a report."""
        if self._reports or self._outcome is not None:
            await anyio.lowlevel.checkpoint()
        else:
            self._changed = anyio.Event()
            try:
                with anyio.move_on_after(self._timeout):
                    await self._changed.wait()
            except BaseException:
                self._stop(CallCanceled("whoever called doesn't wait any more"))
                raise
            if not self._reports and self._outcome is None:
                self._stop(CallTimeout("the client didn't answer in time"))
        return bool(self._reports)

    def _stop(self, error: WAMPError) -> None:
        self._outcome = error
        if self._pending is not None:
            self._pending.abandon()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    # ---- what the client says

    def take_progress(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Keep a report until it is asked for."""
        if len(self._reports) >= MOST_REPORTS:
            self._stop(Unavailable("the client reports its progress faster than it is read"))
            self._notify()
        elif self._outcome is None:
            self._reports.append(RPCProgressReport(args, kwargs))
            self._notify()

    def take_result(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """End the call."""
        self._outcome = self._outcome or RPCResult(args, kwargs)
        self._notify()

    def take_error(self, error: WAMPError) -> None:
        """End the call."""
        self._outcome = self._outcome or error
        self._notify()
