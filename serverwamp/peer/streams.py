"""Calls with streamed arguments: the handler iterates over chunks of arguments as they arrive.

If a CALL has the option ``progress``, further CALLs with the same request id follow. Each of them
brings one chunk. The CALL without the option brings the last chunk.

Spec: Advanced Profile, "Progressive Call Invocations".
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from serverwamp.binding.handler import NO_CHUNK, Handler
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    CallCanceled,
    Unavailable,
    WAMPError,
)
from serverwamp.limits import Limits
from serverwamp.peer.call import ChunkTaker, RunningCall
from serverwamp.peer.conversation import Conversation
from serverwamp.peer.deadlines import Deadlines
from serverwamp.peer.replies import Replies
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import Call


class Stream(AsyncGenerator[Any, None]):
    """The chunks of one call. The session's reader puts them in; the handler iterates over them.

    Chunks wait unconverted, because the handler may not be known when they arrive. Each chunk is
    converted when the handler takes it, so the handler's iteration raises the error of a bad chunk.
    """

    def __init__(self, call: Call, limits: Limits) -> None:
        self._waiting: deque[tuple[Call, Unit]] = deque()
        self._size = 0
        self._limits = limits
        self._is_complete = not call.options.progress
        self._is_broken = False
        self._changes = Changes()
        self._first: Any = NO_CHUNK
        self._convert: Callable[[Call, Unit], Any] | None = None
        self.is_over: bool = False
        """Whether it takes no more chunks."""

    def open(self, first: Any, convert: Callable[[Call, Unit], Any]) -> None:
        """Set the first chunk, or `NO_CHUNK`, and the function that converts the further ones.

        `convert` takes a CALL and its encoded form.
        """
        self._first = first
        self._convert = convert

    # ---- for the reader: see `ChunkTaker`

    @property
    def has_room(self) -> bool:
        """Whether it can take another chunk now."""
        limits = self._limits
        is_full = len(self._waiting) >= limits.stream_chunks or self._size >= limits.stream_bytes
        return self.is_over or not is_full

    def put(self, call: Call, unit: Unit) -> None:
        """Add the chunk in a further CALL, unless the handler has closed the stream."""
        if not self.is_over:
            self._waiting.append((call, unit))
            self._size += len(unit)
            self._is_complete = not call.options.progress
            self._changes.notify()

    async def wait_for_room(self) -> None:
        """Return when it can take another chunk, or takes no more."""
        await self._changes.wait_until(lambda: self.has_room)

    def break_off(self) -> None:
        """Take no more chunks. Unless all have arrived, iterating raises CallCanceled."""
        if not self._is_complete and not self.is_over:
            self._is_broken = True
            self._close()

    def _close(self) -> None:
        self.is_over = True
        self._waiting.clear()
        self._changes.notify()

    # ---- for the handler

    async def __anext__(self) -> Any:
        chunk, self._first = self._first, NO_CHUNK
        while chunk is NO_CHUNK:
            if self._waiting:
                chunk = self._next_waiting()
            elif self._is_broken:
                await anyio.lowlevel.checkpoint()  # may raise a cancellation
                raise CallCanceled("the call is over")
            elif self._is_complete or self.is_over:
                raise StopAsyncIteration
            else:
                await self._changes.wait()
        return chunk

    def _next_waiting(self) -> Any:
        assert self._convert is not None
        call, unit = self._waiting.popleft()
        self._size -= len(unit)
        self._changes.notify()
        try:
            return self._convert(call, unit)
        except Exception:
            self._close()
            raise

    async def asend(self, value: None) -> Any:
        """Return the next chunk."""
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Close the stream and raise the exception; later chunks are dropped."""
        self._close()
        raise typ if val is None else val


class Streams:
    """Handles the streamed arguments of a session's calls."""

    def __init__(self, conversation: Conversation, replies: Replies, deadlines: Deadlines) -> None:
        self._conversation = conversation
        self._replies = replies
        self._deadlines = deadlines

    def begin(self, call: Call) -> Stream:
        """Return the stream of a call that is continued by further CALLs."""
        return Stream(call, self._conversation.limits)

    def bind(
        self,
        running: RunningCall,
        handler: Handler,
        values: Sequence[Any],
        values_by_name: Mapping[str, Any],
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the handler's arguments, with the stream of the call among them."""
        stream = running.stream or Stream(running.call, self._conversation.limits)
        assert isinstance(stream, Stream)
        running.stream = stream
        first, values, values_by_name = handler.put_stream(stream, values, values_by_name)
        stream.open(first, partial(self._chunk, handler))
        return values, values_by_name

    def _chunk(self, handler: Handler, call: Call, unit: Unit) -> Any:
        args, kwargs = call.args or (), call.kwargs or {}
        exact = None
        if handler.wants_exact_numbers:
            exact = self._conversation.serializer.format.exact_payload(unit, call)
        return handler.chunk(args, kwargs, exact)

    def go_on(self, running: RunningCall, call: Call, unit: Unit) -> Awaitable[None] | None:
        """Take a further CALL of a running call; `unit` is its encoded form.

        Returns None, or an awaitable if the stream has no room. The reader has to await it before
        it reads the next message.
        """
        stream = running.stream
        assert stream is not None  # `SessionState` refuses other CALLs with that id
        if not stream.has_room:
            return self._go_on_later(running, stream, call, unit)
        self._put(running, stream, call, unit)
        return None

    async def _go_on_later(
        self, running: RunningCall, stream: ChunkTaker, call: Call, unit: Unit
    ) -> None:
        """Put the CALL in when the stream has room; end the call if that takes too long.

        The session reads no message while this waits, not even CANCEL.
        """
        timeout = self._conversation.limits.busy_timeout
        with anyio.move_on_after(timeout):
            await stream.wait_for_room()
        if stream.is_over:
            return
        if stream.has_room:
            self._put(running, stream, call, unit)
            return
        text = "a call of %.100r took no chunk for %s seconds"
        self._conversation.limit_log.record("busy_timeout", text, call.procedure, timeout)
        self._end(running, Unavailable("the handler takes its streamed arguments too slowly"))

    def _put(self, running: RunningCall, stream: ChunkTaker, call: Call, unit: Unit) -> None:
        self._deadlines.renew(running)
        try:
            stream.put(call, unit)
        except WAMPError as error:
            self._end(running, error)

    def _end(self, running: RunningCall, error: WAMPError) -> None:
        self._replies.answer_error(running, error)
        running.cancel()
