"""Event history and retained events under fire: subscribers that come and go while events flow.

Whatever they do, they have received every event once and in order, or they know that they haven't.
The events are numbered, so that a gap and a duplicate are seen; what decides when subscribers go,
and for how long, is seeded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from serverwamp import Application, History
from serverwamp.testing import CaughtUp, Client, connect

TOPIC = "news"
EVENTS = 600
SUBSCRIBERS = 5
SECONDS = 30.0


def with_history(history: History) -> Application:
    app = Application()

    @app.topic(TOPIC, history=history, client_publish=True)
    async def news() -> AsyncIterator[None]:
        yield

    return app


@dataclass
class Reader:
    """Somebody who wants every event, over any number of connections."""

    random: Random
    numbers: list[int] = field(default_factory=list)
    """What has been received."""
    gaps: int = 0
    """How often that wasn't known to be everything."""
    catches: int = 0
    since: dict[str, Any] = field(default_factory=dict)

    async def read_all(self, app: Application) -> None:
        while self.next < EVENTS:
            for _ in range(self.random.choice((0, 10, 100, 400))):
                await checkpoint()
            async with connect(app, timeout=SECONDS) as client:
                await self.read(client, self.random.choice((0, 1, 5, 40)))
                await client.disconnect()

    async def read(self, client: Client, count: int) -> None:
        """Subscribe, catch up, and take so many events before anything goes wrong."""
        subscription = await client.subscribe(TOPIC)
        for _ in range(self.random.choice((0, 3, 30))):
            await checkpoint()  # events arrive before it has caught up
        self.take(await client.catch_up(subscription, **self.since))
        for _ in range(count):
            if self.next < EVENTS:
                event = await client.expect_event(subscription)
                self.numbers.append(event.args[0])
                self.since = {"after_publication": event.publication}

    def take(self, caught_up: CaughtUp) -> None:
        numbers = [event.args[0] for event in caught_up.events]
        self.catches += 1
        if caught_up.complete:
            expected = range(self.next, self.next + len(numbers))
            assert numbers == list(expected), "it isn't complete"
        else:
            self.gaps += 1
        self.numbers += numbers
        if caught_up.events:
            self.since = {"after_publication": caught_up.events[-1].publication}
        elif not self.since:
            self.since = {"from_time": caught_up.time}

    @property
    def next(self) -> int:
        return self.numbers[-1] + 1 if self.numbers else 0

    @property
    def missed(self) -> int:
        """How many gaps there are in what has been received."""
        pairs = zip([-1, *self.numbers], self.numbers, strict=False)
        return sum(number != before + 1 for before, number in pairs)


async def publish_all(app: Application, random: Random, *, retain: bool = False) -> None:
    """Publish the numbers, the application some of them and a client the others."""
    async with connect(app, timeout=SECONDS) as client:
        for number in range(EVENTS):
            if random.random() < 0.5:
                await app.publish(TOPIC, (number,), retain=retain)
            else:
                await client.publish(TOPIC, (number,), acknowledge=True, retain=retain)
            for _ in range(random.choice((0, 0, 0, 1, 20))):
                await checkpoint()


@pytest.mark.spec("HIS-01", "HIS-02")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kept", [20, EVENTS])
async def test_subscribers_that_drop_and_come_back(kept: int, seed: int) -> None:
    app = with_history(History(events=kept))
    readers = [Reader(Random(f"{seed} {number}")) for number in range(SUBSCRIBERS)]
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_all, app, Random(seed))
            for reader in readers:
                tasks.start_soon(reader.read_all, app)
    for reader in readers:
        assert reader.numbers == sorted(set(reader.numbers)), "something came twice"
        assert reader.numbers[-1] == EVENTS - 1
        assert reader.missed <= reader.gaps, "there is a gap of which nobody was told"
        if kept == EVENTS:
            assert reader.numbers == list(range(EVENTS))
            assert reader.gaps == 0
    assert sum(reader.catches for reader in readers) > 2 * SUBSCRIBERS
    if kept < EVENTS:
        assert any(reader.missed for reader in readers), "nothing was put to the test"
        assert any(reader.catches > reader.gaps for reader in readers)


@pytest.mark.spec("HIS-01")
async def test_nobody_takes_a_restart_for_completeness() -> None:
    """What was kept in memory is gone; who names what it has seen is told so."""
    marks: list[dict[str, Any]] = []
    app = with_history(History())
    async with connect(app) as client:
        subscription = await client.subscribe(TOPIC)
        marks.append({"from_time": (await client.catch_up(subscription)).time})
        await app.publish(TOPIC, (1,))
        event = await client.expect_event(subscription)
        marks.append({"after_publication": event.publication})
        for mark in marks:
            assert (await client.catch_up(subscription, **mark)).complete

    restarted = with_history(History())
    async with connect(restarted) as client:
        subscription = await client.subscribe(TOPIC)
        await restarted.publish(TOPIC, (2,))
        for mark in marks:
            caught_up = await client.catch_up(subscription, **mark)
            assert [event.args for event in caught_up.events] == [(2,)]
            assert not caught_up.complete
        new = await client.catch_up(
            subscription, after_publication=caught_up.events[-1].publication
        )
        assert (new.events, new.complete) == ([], True)


async def follow(app: Application, random: Random, joined: list[int]) -> None:
    """Come and go, and check that the retained event joins the others without a gap."""
    last = -1
    while last < EVENTS - 1:
        for _ in range(random.choice((0, 10, 100, 400))):
            await checkpoint()
        async with connect(app, timeout=SECONDS) as client:
            subscription = await client.subscribe(TOPIC, get_retained=True)
            event = await client.expect_event(subscription)
            assert event.args[0] >= last, "it has been overtaken"
            if event.details:
                assert event.details == {"retained": True}
                joined.append(event.args[0])
            last = event.args[0]
            for _ in range(random.choice((0, 1, 5, 40))):
                if last == EVENTS - 1:
                    break
                event = await client.expect_event(subscription)
                assert (event.args[0], event.details) == (last + 1, {}), "a gap, or a duplicate"
                last += 1
            await client.disconnect()


@pytest.mark.spec("RET-01", "RET-02")
@pytest.mark.parametrize("seed", range(3))
async def test_the_retained_event_is_the_one_before_the_next(seed: int) -> None:
    app, joined = with_history(History(events=1)), list[int]()
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: publish_all(app, Random(seed), retain=True))
            for number in range(SUBSCRIBERS):
                tasks.start_soon(follow, app, Random(f"{seed} {number}"), joined)
    assert len(set(joined)) > SUBSCRIBERS, "nothing was put to the test"
