"""Calls that the application makes to procedures that clients have registered."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import anyio
import anyio.lowlevel

from serverwamp.binding.results import RPCProgressReport, RPCResult
from serverwamp.errors import CallCanceled, CallTimeout, Unavailable, WAMPError


class Pending(Protocol):
    """An invocation that a client has to answer."""

    @property
    def timeout(self) -> float:
        """How many seconds the client has to answer."""
        ...

    def abandon(self) -> None:
        """Stop waiting for the answer, and tell the client."""
        ...


Begin: TypeAlias = Callable[["ClientCall", Mapping[str, Any]], Pending]
"""Sends a call to a client, with these details of INVOCATION; raises WAMPError if it can't."""

MOST_REPORTS: Final = 1000
"""How many progress reports may wait for the application to read them."""


class ClientCall(AsyncIterator[RPCProgressReport]):
    """Call a procedure that a client serves; await it for the result, an `RPCResult`.

    ::

        result = await session.call("com.example.measure", ["celsius"])

    To receive progress reports, iterate over the call before you await it::

        call = session.call("com.example.copy")
        async for report in call:
            print(report.args)
        result = await call

    `cancel()`, or cancelling the awaiting task, ends the call and tells the client. Awaiting the
    call again returns the same result; the call is made only once. If you stop iterating before the
    end, await or cancel the call.

    Raises: WAMPError. If the client sent an error, it is that error. Otherwise its URI is
        ``wamp.error.no_such_procedure`` if the client doesn't serve the procedure,
        ``wamp.error.timeout`` if it takes too long, ``wamp.error.canceled`` if it leaves, and
        ``wamp.error.unavailable`` if it is too busy.
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
        """End the call, and tell the client; awaiting the call raises ``wamp.error.canceled``.

        This does nothing if the call has ended already.
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
        """Wait for the next report or the outcome; tell whether there is a report."""
        if self._reports or self._outcome is not None:
            await anyio.lowlevel.checkpoint()
        else:
            self._changed = anyio.Event()
            try:
                with anyio.move_on_after(self._timeout):
                    await self._changed.wait()
            except BaseException:
                self._stop(CallCanceled("the caller was cancelled"))
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

    # ---- answers of the client

    def take_progress(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Queue a progress report for the application."""
        if len(self._reports) >= MOST_REPORTS:
            self._stop(Unavailable("the client reports progress faster than it is read"))
            self._notify()
        elif self._outcome is None:
            self._reports.append(RPCProgressReport(args, kwargs))
            self._notify()

    def take_result(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """End the call with a result."""
        self._outcome = self._outcome or RPCResult(args, kwargs)
        self._notify()

    def take_error(self, error: WAMPError) -> None:
        """End the call with an error."""
        self._outcome = self._outcome or error
        self._notify()
