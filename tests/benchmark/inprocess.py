"""Calls and events without sockets: a client that is two functions in the same event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import uvloop

from tests.benchmark.applications import ADD, CALL, HELLO, SUBSCRIBE, bare, ours

HOLD = "bench.hold"


def _event(message: Any) -> dict[str, str]:
    return {"type": "websocket.receive", "text": orjson.dumps(message).decode()}


def _calls(uri: str, first: int, count: int) -> Sequence[dict[str, str]]:
    return [
        _event([CALL, request, {}, uri, [request, 2]]) for request in range(first, first + count)
    ]


class _Client:
    """The receive and the send of an ASGI scope; it notes the time from the first call on."""

    def __init__(self, before: Sequence[Any], calls: Sequence[Any]) -> None:
        self._before, self._calls = iter(before), iter(calls)
        self._unanswered = len(calls) + 1  # and WELCOME
        self._answered = asyncio.Event()
        self._begun = 0.0
        self.seconds = 0.0

    async def receive(self) -> Any:
        for event in self._before:
            return event
        if not self._begun:
            self._begun = time.process_time()
        for event in self._calls:
            return event
        await self._answered.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, event: Any) -> None:
        if event["type"] == "websocket.send":
            self._unanswered -= 1
            if not self._unanswered:
                self.seconds = time.process_time() - self._begun
                self._answered.set()


def cost(app: Any, calls: int, uri: str = ADD, held: int = 0) -> float:
    """Return CPU microseconds per call of `uri`, while `held` others are running."""

    async def run() -> float:
        before = [
            {"type": "websocket.connect"},
            _event([HELLO, "realm1", {"roles": {"caller": {}}}]),
            *_calls(HOLD, 1, held),
        ]
        client = _Client(before, _calls(uri, held + 1, calls))
        scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": ["wamp.2.json"]}
        await asyncio.wait_for(app(scope, client.receive, client.send), 60)
        return client.seconds / calls * 1e6

    return uvloop.run(run())


def _with_routes(kind: str, count: int) -> Any:
    app = ours()
    decorators = {
        "exact": app.route,
        "prefix": app.prefix_route,
        "wildcard": app.wildcard_route,
    }
    endings = {"exact": "", "prefix": ".", "wildcard": "..last"}

    async def add(a: int, b: int) -> int:
        return a + b

    for number in range(count):
        decorators[kind](f"bench.route{number}{endings[kind]}")(add)
    return app


def _with_holding() -> Any:
    app = ours()

    @app.route(HOLD)
    async def hold(a: int, b: int) -> None:
        await asyncio.Event().wait()

    return app


class _Listener:
    """A client that subscribes, and then only listens."""

    def __init__(self, subscriptions: Sequence[tuple[str, str]]) -> None:
        self._messages = iter(
            [
                {"type": "websocket.connect"},
                _event([HELLO, "realm1", {"roles": {"subscriber": {}}}]),
                *(
                    _event([SUBSCRIBE, request, {"match": match}, topic])
                    for request, (topic, match) in enumerate(subscriptions, 1)
                ),
            ]
        )
        self._awaited = len(subscriptions) + 1
        self.is_subscribed = asyncio.Event()
        self.is_gone = asyncio.Event()
        self.events = 0

    async def receive(self) -> Any:
        for event in self._messages:
            return event
        await self.is_gone.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, event: Any) -> None:
        if event["type"] != "websocket.send":
            return
        if self._awaited:
            self._awaited -= 1
            if not self._awaited:
                self.is_subscribed.set()
        else:
            self.events += 1


def event_cost(kind: str, subscriptions: int, events: int) -> float:
    """Return CPU microseconds per event that one of so many subscriptions to patterns matches."""
    endings = {"prefix": ".", "wildcard": "..last"}
    app = ours()

    @app.prefix_topic("bench.")
    async def listen() -> Any:
        yield

    async def run() -> float:
        patterns = [(f"bench.topic{n}{endings[kind]}", kind) for n in range(subscriptions)]
        listeners = [_Listener(patterns[at : at + 100]) for at in range(0, subscriptions, 100)]
        scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": ["wamp.2.json"]}
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(app(dict(scope), listener.receive, listener.send))
                await listener.is_subscribed.wait()
            begun = time.process_time()
            for number in range(events):
                await app.publish(f"bench.topic{number % subscriptions}.any.last", ["news"])
                if number % 100 == 0:
                    await asyncio.sleep(0)
            seconds = time.process_time() - begun
            await asyncio.sleep(0)
            for listener in listeners:
                listener.is_gone.set()
        if sum(listener.events for listener in listeners) != events:
            raise RuntimeError("not every event was received")
        return seconds / events * 1e6

    return uvloop.run(run())


def pairs(cycles: int, calls: int) -> Iterator[tuple[float, float]]:
    """Give the cost of a call of the bare application, and of ours, in turns."""
    app = ours()
    for _ in range(cycles):
        yield cost(bare, calls), cost(app, calls)


def scaling(cycles: int, calls: int) -> Iterator[tuple[str, list[float]]]:
    """Give what was varied, and the costs of a call, or of an event to one subscriber."""
    endings = {"exact": "", "prefix": ".a.b", "wildcard": ".any.last"}
    for kind, ending in endings.items():
        for count in (10, 10_000):
            app = _with_routes(kind, count)
            uri = f"bench.route{count // 2}{ending}"
            costs = [cost(app, calls, uri) for _ in range(cycles)]
            yield f"{count:,} {kind} routes", costs
    for kind in ("prefix", "wildcard"):
        for count in (10, 10_000):
            costs = [event_cost(kind, count, calls) for _ in range(cycles)]
            yield f"{count:,} {kind} subscriptions", costs
    for held in (1, 1000):
        app = _with_holding()
        yield f"{held:,} calls running", [cost(app, calls, held=held) for _ in range(cycles)]
