"""Start and cancel tasks at low cost, on asyncio and trio; run functions in threads.

A task starts for each call, and for sending to an idle session. The general way to start one,
`anyio.TaskGroup.start_soon`, would take as much time as the rest of a call. A *starter* is a
cheaper replacement, with an implementation for each backend:

    async with open_starter() as starter:
        task = starter.start(function, *arguments)
        task.cancel()

* The task gets a copy of the context in which the block was entered, not of the context of the
  code that starts it. So no call sees the context variables of another.
* On asyncio with Python 3.12 or newer, the task runs to its first wait before `start` returns.
  Otherwise, tasks begin in the order in which they were started.
* The block ends when all its tasks have ended, even if an exception leaves it. It doesn't cancel
  them: the code that started them has to end them. On trio, cancelling the block from outside
  cancels the tasks, too.
* A task's function should handle all its exceptions except its cancellation. Any other exception
  ends the block.
* `cancel` cancels only that task, at its next wait. A task that is cancelled before it has begun
  still runs up to its first wait. Cancelling a task that has ended does nothing.

An event for a thousand sessions would take a thousand tasks, most of which have nothing to wait
for. `start_many` uses one task for many of them where it can.

One module despite its length: starting and cancelling tasks share the implementations for the two
backends.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import anyio
import anyio.to_thread

AsyncFunction: TypeAlias = Callable[..., Coroutine[Any, Any, None]]
Result = TypeVar("Result")


class StartedTask(Protocol):
    """A task that a starter has started."""

    def cancel(self) -> object:
        """Cancel the task, unless it has ended."""


class Starter(Protocol):
    """Starts tasks, and waits for them at the end of its block."""

    context: Context
    """The context of which each task gets a copy."""

    def start(self, function: AsyncFunction, *args: Any) -> StartedTask:
        """Run `function(*args)` as a task."""
        ...

    async def __aenter__(self) -> Starter: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...


class Runner(Protocol):
    """Work that `start_many` can run."""

    @property
    def starter(self) -> Starter:
        """The starter for the task in which it runs."""
        ...

    async def run(self, argument: Any) -> None:
        """Do the work."""
        ...

    def runs_in(self, task: StartedTask) -> None:
        """Receive the task in which `run` is waiting."""
        ...


def start_many(work: Iterable[tuple[Runner, Any]]) -> None:
    """Start ``runner.run(argument)`` for each pair, in order, as a task of the runner's starter.

    On asyncio with Python 3.12 or newer, runners that never wait share a task.
    """
    if EAGER and not _on_trio():
        _start_each_eagerly(work)
        return
    for runner, argument in work:
        runner.runs_in(runner.starter.start(runner.run, argument))


def _start_each_eagerly(work: Iterable[tuple[Runner, Any]]) -> None:
    loop, rest = asyncio.get_running_loop(), iter(work)
    item = next(rest, None)
    while item is not None:
        lane, context = _SharedTask(), item[0].starter.context.copy()
        task = _Task(lane.run_each(item, rest), loop=loop, eager_start=True, context=context)
        if lane.runner is None:
            item = lane.item
            continue
        lane.is_left = True  # the runner waits, so another task gets the rest
        starter = lane.runner.starter
        assert isinstance(starter, _AsyncioStarter)
        starter.adopt(task)
        lane.runner.runs_in(task)
        item = next(rest, None)


class _SharedTask:
    """A task that runs one runner after the other until one of them waits.

    It also ends before a runner whose context differs from that of the task.
    """

    def __init__(self) -> None:
        self.runner: Runner | None = None
        """The runner that is running; None when the task has ended."""
        self.item: tuple[Runner, Any] | None = None
        """The item that it took from `rest` without running it."""
        self.is_left = False
        """Set when a runner waits, so that another task runs the rest."""

    async def run_each(self, item: tuple[Runner, Any], rest: Iterator[tuple[Runner, Any]]) -> None:
        """Run `item`, and then items of `rest` while possible."""
        self.runner, argument = item
        await self.runner.run(argument)
        if self.is_left:
            return
        for item in rest:
            runner, argument = item
            try:
                belongs_here = copy_context() == runner.starter.context
            except Exception:  # some values can't be compared
                belongs_here = False
            if not belongs_here:
                self.item = item
                break
            self.runner = runner
            await runner.run(argument)
            if self.is_left:
                return
        self.runner = None


def open_starter() -> Starter:
    """Return a starter for the running backend, to be entered with ``async with``."""
    return _TrioStarter() if _on_trio() else _AsyncioStarter()


_in_background: set[asyncio.Task[None]] = set()  # so that they aren't collected while they run


def start_in_background(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Start a task that nobody waits for. The end of the event loop cancels it.

    The function handles its own exceptions. It runs in a context without the caller's variables.
    """
    if _on_trio():
        import trio

        trio.lowlevel.spawn_system_task(function, *args)
        return
    loop = asyncio.get_running_loop()
    task = loop.create_task(function(*args), context=Context())
    _in_background.add(task)
    task.add_done_callback(_in_background.discard)


_deferring: dict[Any, bool] = {}
"""The asyncio tasks that are releasing resources, and whether to cancel them afterwards."""


def cancel_once(task: StartedTask) -> None:
    """Cancel a task unless it was cancelled before, because then it may be releasing resources."""
    if task in _deferring:
        _deferring[task] = True
    elif not (isinstance(task, asyncio.Task) and task.cancelling()):
        task.cancel()


def defer_cancellation() -> None:
    """Delay cancellation of the current task by `cancel_once` until `deliver_cancellation`.

    This is for asyncio, where anyio's shield doesn't help: it only protects from cancel scopes, and
    `cancel_once` cancels the task itself. On trio, it cancels a scope.
    """
    if not _on_trio():
        _deferring.setdefault(asyncio.current_task(), False)


def deliver_cancellation() -> None:
    """Cancel the current task if its cancellation was delayed by `defer_cancellation`."""
    if not _on_trio():
        task = asyncio.current_task()
        if _deferring.pop(task, False) and task is not None:
            cancel_once(task)


def _on_trio() -> bool:
    trio: Any = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def split_to_reraise(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into the part that has to be raised again, and the rest.

    A cancellation of the current task and exceptions that end the program have to be raised again.
    Either part may be None.
    """
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)
    if _is_being_cancelled():  # otherwise, the cancellation is not of this task
        kinds += (anyio.get_cancelled_exc_class(),)
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)
    return (error, None) if isinstance(error, kinds) else (None, error)


def part_to_reraise(error: BaseException) -> BaseException | None:
    """Return the part of an exception that has to be raised again; None if there is none."""
    return split_to_reraise(error)[0]


def _is_being_cancelled() -> bool:
    if _on_trio():
        return True  # trio raises Cancelled only in the cancelled task
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def run_in_thread(function: Callable[[], Result]) -> Result:
    """Call a plain function in a worker thread; cancelling the task abandons the thread.

    An abandoned thread counts towards the limit of `anyio.to_thread` until it has ended. So a
    client can't start more threads by cancelling its calls.

    Raises: what the function raises; RuntimeError instead of any exception that isn't an
        `Exception`, such as SystemExit, which has no meaning in a thread.
    """
    call = functools.partial(_call_in_thread, function)
    if _on_trio():  # trio counts abandoned threads by itself
        return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    loop, limiter = asyncio.get_running_loop(), anyio.to_thread.current_default_thread_limiter()
    borrowers = [object()]
    has_begun = False

    def give_back() -> None:
        if borrowers:
            limiter.release_on_behalf_of(borrowers.pop())

    def run() -> Result:
        nonlocal has_begun
        has_begun = True
        try:
            return call()
        finally:
            with suppress(RuntimeError):  # the event loop may already be closed
                loop.call_soon_threadsafe(give_back)

    try:
        limiter.acquire_on_behalf_of_nowait(borrowers[0])
    except anyio.WouldBlock:
        await limiter.acquire_on_behalf_of(borrowers[0])
    try:
        uncounted = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=uncounted)
    finally:
        if not has_begun:
            give_back()


def _call_in_thread(function: Callable[[], Result]) -> Result:
    try:
        return function()
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__} was raised in a thread") from error


# ---- asyncio

EAGER: Final = sys.version_info >= (3, 12)

if sys.version_info >= (3, 12):
    _Task = asyncio.Task

else:  # Python 3.11

    class _BeginningTask(asyncio.Task[None]):
        """A task whose cancellation waits until it has begun; otherwise it would never run."""

        def __init__(
            self,
            coroutine: Coroutine[Any, Any, None],
            *,
            loop: Any,
            eager_start: bool,
            context: Context,
        ) -> None:
            self._has_begun = False
            self._is_to_be_cancelled = False
            super().__init__(_begun(coroutine), loop=loop, context=context)

        def cancel(self, msg: Any | None = None) -> bool:
            """Cancel the task, or let `begin` do it."""
            if self._has_begun:
                return super().cancel(msg)
            self._is_to_be_cancelled = True
            return True

        def begin(self) -> None:
            """Record that the task runs; a cancellation takes effect at its first wait."""
            self._has_begun = True
            if self._is_to_be_cancelled:
                self.cancel()

    async def _begun(coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.current_task()
        assert isinstance(task, _BeginningTask)
        task.begin()
        await coroutine

    _Task = _BeginningTask


class _AsyncioStarter:
    """The starter for asyncio."""

    def __init__(self) -> None:
        owner = asyncio.current_task()
        assert owner is not None
        self.context = copy_context()
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], None] = {}  # an empty dict is smaller than a set
        self._ended: anyio.Event | None = None
        self._failure: BaseException | None = None

    def start(self, function: AsyncFunction, *args: Any) -> StartedTask:
        """Run `function(*args)` as a task."""
        context = self.context.copy()
        task = _Task(function(*args), loop=self._loop, eager_start=True, context=context)
        if not task.done():
            self.adopt(task)
        elif task.cancelled() or task.exception() is not None:
            self._check(task)
        return task

    def adopt(self, task: asyncio.Task[None]) -> None:
        """Take over a task that was started elsewhere and hasn't ended."""
        self._tasks[task] = None
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._check(task)
        if not self._tasks and self._ended is not None:
            self._ended.set()

    def _check(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if isinstance(failure, BaseExceptionGroup):  # it may contain the cancellation
            failure = failure.split(asyncio.CancelledError)[1]
        if failure is not None and self._failure is None:
            self._failure = failure
            self._owner.cancel()

    async def __aenter__(self) -> _AsyncioStarter:
        self.context = copy_context()  # the starter may have been made long before
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        cancelled: BaseException | None = None
        while self._tasks:
            self._ended = anyio.Event()
            try:
                with anyio.CancelScope(shield=True):
                    await self._ended.wait()
            except asyncio.CancelledError as reason:
                cancelled = reason  # the ASGI server shuts down; the tasks have to end first
        if self._failure is not None:
            self._owner.uncancel()
            raise self._failure
        if cancelled is not None:
            raise cancelled
        return None


# ---- trio


class _TrioTask:
    """A task with a cancel scope of its own."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def cancel(self) -> None:
        """Cancel the task."""
        self._scope.cancel()


class _TrioStarter:
    """The starter for trio."""

    def __init__(self) -> None:
        import trio

        self.context = copy_context()
        self._trio = trio
        self._manager = trio.open_nursery()
        self._nursery: Any = None
        self._waiting: deque[tuple[Any, AsyncFunction, tuple[Any, ...]]] = deque()

    def start(self, function: AsyncFunction, *args: Any) -> StartedTask:
        """Run `function(*args)` as a task."""
        scope = self._trio.CancelScope()
        # trio runs new tasks in no particular order, so the first one to run takes the oldest work.
        self._waiting.append((scope, function, args))
        self.context.copy().run(self._nursery.start_soon, self._run_oldest)
        return _TrioTask(scope)

    async def _run_oldest(self) -> None:
        scope, function, args = self._waiting.popleft()
        with scope:
            await function(*args)

    async def __aenter__(self) -> _TrioStarter:
        self._nursery = await self._manager.__aenter__()
        self.context = copy_context()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)
