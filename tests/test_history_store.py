"""Histories in a store of the application's own, which may have to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import (
    Application,
    History,
    HistoryPage,
    HistoryQuery,
    HistoryStore,
    StoredEvent,
    WAMPError,
)
from serverwamp.history import MemoryStore
from serverwamp.testing import connect


class SlowStore(HistoryStore):
    """Appends after a while, and reads in pages of two events."""

    def __init__(self, history: History) -> None:
        self._events = MemoryStore(events=history.events, age=history.age, bytes=history.bytes)
        self.is_out_of_order = False
        self._is_appending = False

    async def append(self, event: StoredEvent) -> None:
        assert not self._is_appending, "one event at a time"
        self._is_appending = True
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        self._is_appending = False
        if self.is_out_of_order:
            raise WAMPError("com.full")
        await self._events.append(event)

    async def read(self, query: HistoryQuery, cursor: Any = None) -> HistoryPage:
        await anyio.lowlevel.checkpoint()
        page = await self._events.read(query)
        begin, events = cursor or 0, list(page.events)
        after = begin + 2 if begin + 2 < len(events) else None
        return HistoryPage(events[begin : begin + 2], page.is_complete, page.time, after)


def keeping() -> tuple[Application, list[SlowStore]]:
    stores: list[SlowStore] = []

    def new_store(history: History) -> HistoryStore:
        stores.append(SlowStore(history))
        return stores[-1]

    app = Application()

    @app.topic("news", history=History(events=50, store=new_store), client_publish=True)
    async def news() -> AsyncIterator[None]:
        yield

    return app, stores


@pytest.mark.spec("HIS-01")
async def test_the_order_of_delivery_is_the_order_in_the_store() -> None:
    app, _ = keeping()
    async with connect(app) as client:
        subscription = await client.subscribe("news")
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(app.publish, "news", (number,))
        received = [(await client.expect_event(subscription)).args for _ in range(20)]
        result = await client.call("wamp.subscription.get_events", [subscription.id])
        assert [tuple(event["args"]) for event in result.args[0]] == received
        assert result.kwargs["complete"] is True
        limited = {"limit": 5, "reverse": True}
        result = await client.call("wamp.subscription.get_events", [subscription.id], limited)
        assert [tuple(event["args"]) for event in result.args[0]] == received[:14:-1]


@pytest.mark.spec("HIS-01")
async def test_a_subscriber_misses_nothing_while_events_flow() -> None:
    app, _ = keeping()
    seen: list[int] = []

    async def follow() -> None:
        since: dict[str, Any] = {}
        while len(seen) < 40:
            async with connect(app) as client:
                subscription = await client.subscribe("news")
                past = await client.catch_up(subscription, **since)
                assert past.complete
                events = list(past.events)
                while len(events) < 4 and len(seen) + len(events) < 40:
                    events.append(await client.expect_event(subscription))
                seen.extend(event.args[0] for event in events)
                since = {"after_publication": events[-1].publication}

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            for number in range(40):
                await app.publish("news", (number,))
    assert seen == list(range(40))


async def test_what_isnt_stored_isnt_published() -> None:
    app, stores = keeping()
    async with connect(app) as client:
        subscription = await client.subscribe("news")
        stores[0].is_out_of_order = True
        with pytest.raises(WAMPError, match=r"com\.full"):
            await app.publish("news", [1])
        with pytest.raises(WAMPError, match=r"com\.full"):
            await client.publish("news", [1], acknowledge=True)
        await client.expect_nothing()
        stores[0].is_out_of_order = False
        await app.publish("news", [2])
        assert (await client.expect_event(subscription)).args == (2,)
        assert [event.args for event in (await client.catch_up(subscription)).events] == [(2,)]
