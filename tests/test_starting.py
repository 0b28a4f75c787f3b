"""Starting tasks: one contract on every backend."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from serverwamp.concurrency.tasks import StartedTask, Starter, open_starter, start_many
from tests.helpers import wait_all_tasks_blocked

variable: ContextVar[str] = ContextVar("variable", default="none")


async def test_tasks_start_in_order_and_are_waited_for() -> None:
    log: list[int] = []

    async def task(number: int) -> None:
        log.append(number)
        await anyio.lowlevel.checkpoint()
        log.append(-number)

    async with open_starter() as starter:
        for number in range(1, 50):
            starter.start(task, number)
    assert [number for number in log if number > 0] == list(range(1, 50))
    assert len(log) == 98


async def test_a_task_is_cancelled_alone() -> None:
    ended: list[str] = []

    async def waits(name: str, proceed: anyio.Event) -> None:
        try:
            await proceed.wait()
            ended.append(f"{name} finishes")
        except anyio.get_cancelled_exc_class():
            ended.append(f"{name} is cancelled")
            raise

    events = [anyio.Event(), anyio.Event()]
    async with open_starter() as starter:
        one, two = (
            starter.start(waits, name, event)
            for name, event in zip(("one", "two"), events, strict=True)
        )
        await wait_all_tasks_blocked()
        one.cancel()
        await wait_all_tasks_blocked()
        assert ended == ["one is cancelled"]
        events[1].set()
    assert ended == ["one is cancelled", "two finishes"]
    one.cancel()
    two.cancel()


async def test_a_task_begins_even_if_it_is_cancelled_before() -> None:
    log: list[str] = []

    async def task() -> None:
        log.append("begins")
        try:
            await anyio.lowlevel.checkpoint()
            log.append("goes on")
        finally:
            log.append("ends")

    async with open_starter() as starter:
        for _ in range(3):
            starter.start(task).cancel()
    assert log.count("begins") == log.count("ends") == 3
    assert "goes on" not in log


async def test_a_cancelled_owner_waits_for_its_tasks() -> None:
    finished = anyio.Event()
    started = anyio.Event()

    async def task() -> None:
        with anyio.CancelScope(shield=True):
            started.set()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            finished.set()

    with anyio.CancelScope() as scope:
        async with open_starter() as starter:
            starter.start(task)
            await started.wait()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert finished.is_set()


async def test_a_server_that_cancels_while_tasks_end(anyio_backend: str) -> None:
    """As asyncio servers do at shutdown: by cancelling the task, not a scope."""
    finished = anyio.Event()
    proceed = anyio.Event()

    async def task() -> None:
        with anyio.CancelScope(shield=True):
            await proceed.wait()
            finished.set()

    owners: list[Any] = []

    async def owner() -> None:
        if anyio_backend == "asyncio":
            owners.append(asyncio.current_task())
        async with open_starter() as starter:
            starter.start(task)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(owner)
        await wait_all_tasks_blocked()
        if anyio_backend == "asyncio":
            owners[0].cancel()
        else:
            tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert not finished.is_set()
            proceed.set()
    assert finished.is_set()


class Bug(Exception):
    pass


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_what_escapes_ends_the_block(when: str) -> None:
    async def task() -> None:
        if when == "later":
            await anyio.lowlevel.checkpoint()
        raise Bug

    with pytest.raises((Bug, ExceptionGroup)) as failure:  # noqa: PT012
        async with open_starter() as starter:
            starter.start(task)
            await anyio.sleep_forever()
    group = failure.value
    assert isinstance(group, Bug) or group.subgroup(Bug) is not None


class Receiver:
    """A runner that notes its number, and waits if it is told to."""

    def __init__(self, starter: Starter, log: list[int]) -> None:
        self.starter = starter
        self.task: StartedTask | None = None
        self._log = log

    async def run(self, number: int) -> None:
        if number % 3 == 0:
            await anyio.lowlevel.checkpoint()
        self._log.append(number)

    def runs_in(self, task: StartedTask) -> None:
        self.task = task


async def test_runners_that_wait_hold_up_no_others() -> None:
    log: list[int] = []
    async with open_starter() as one, open_starter() as other:
        receivers = [Receiver(other if 4 < n < 8 else one, log) for n in range(1, 11)]
        start_many(zip(receivers, range(1, 11), strict=True))
    assert sorted(log) == list(range(1, 11))
    assert all(receivers[n - 1].task is not None for n in (3, 6, 9))


async def test_runners_have_the_contexts_of_their_starters() -> None:
    seen: list[str] = []

    class Seeing(Receiver):
        async def run(self, number: int) -> None:
            seen.append(variable.get())

    variable.set("one")
    async with open_starter() as one:
        variable.set("other")
        async with open_starter() as other:
            starters = (one, one, other, one)
            start_many([(Seeing(starter, []), 0) for starter in starters])
    assert sorted(seen) == ["one", "one", "one", "other"]
