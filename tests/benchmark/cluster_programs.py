"""The processes of the cluster benchmark: a publisher, or a worker that receives.

As a script, this is told what to do by lines of JSON on standard input, and answers each with one
line. It imports nothing of this package, because it also runs where another package is installed.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.to_thread

TEXT = "x" * 200
HELLO, SUBSCRIBE, SUBSCRIBED, EVENT = 1, 32, 33, 36

Publish: TypeAlias = Callable[[str, list[Any]], Awaitable[Any]]
"""Publishes a payload, [time, text], to a topic."""
Record: TypeAlias = Callable[[float], None]
"""Is told of each event that arrives: when it was published."""


class Arrivals:
    """How many microseconds each event took."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self._expected = 0
        self._complete = anyio.Event()

    def record(self, published_at: float) -> None:
        self.latencies.append(int((time.perf_counter() - published_at) * 1e6))
        if len(self.latencies) == self._expected:
            self._complete.set()

    async def wait_for(self, count: int) -> None:
        self._expected, self._complete = count, anyio.Event()
        if len(self.latencies) < count:
            await self._complete.wait()


# ---- serverwamp


@asynccontextmanager
async def application(
    url: str,
    topics: Sequence[str],
    record: Record,
    *,
    prefix: str,
    has_history: bool = False,
    has_session: bool = False,
) -> AsyncIterator[Publish]:
    """Open an application. Events are recorded when the process has them, or a session of it."""
    from serverwamp import Application, History, Realm
    from serverwamp.backplanes import RedisBackplane

    async def accept() -> AsyncIterator[None]:
        yield

    realm = Realm("realm1")
    realm.prefix_topic("bench.", history=History() if has_history else None)(accept)
    backplane = RedisBackplane(url, prefix=prefix)
    app = Application(backplane=backplane)
    seen_by_backplane: list[Any] = []
    wanted = frozenset(topics)

    def receive(publication: Any) -> None:
        """Count an event as soon as this process has it."""
        if publication.topic in wanted:  # others share its channel
            record(publication.args[0])

    def add_realm(events: Any) -> None:
        if not has_session:
            events.receive = receive
        seen_by_backplane.append(events)
        RedisBackplane.add_realm(backplane, events)

    backplane.add_realm = add_realm  # type: ignore[method-assign]
    app.add_realm(realm)
    async with app.running(), anyio.create_task_group() as tasks:
        if has_session and topics:
            subscribed = anyio.Event()
            tasks.start_soon(join, app, topics, record, subscribed)
            await subscribed.wait()
        else:
            for topic in topics:
                await backplane.follow(seen_by_backplane[0], topic, "exact")
        yield realm.publish
        tasks.cancel_scope.cancel()


async def join(app: Any, topics: Sequence[str], record: Record, subscribed: anyio.Event) -> None:
    """Have a session in this process, without a socket, that is subscribed to `topics`."""
    import orjson

    messages: list[Any] = [[HELLO, "realm1", {"roles": {"subscriber": {}}}]]
    messages += [[SUBSCRIBE, number, {}, topic] for number, topic in enumerate(topics, 1)]
    frames = iter(messages)
    missing = len(topics)
    is_open = False

    async def receive() -> Any:
        nonlocal is_open
        if not is_open:
            is_open = True
            return {"type": "websocket.connect"}
        for message in frames:
            return {"type": "websocket.receive", "text": json.dumps(message)}
        await anyio.sleep_forever()

    async def send(event: Any) -> None:
        nonlocal missing
        if event["type"] == "websocket.send":
            message = orjson.loads(event["text"])
            if message[0] == EVENT:
                record(message[4][0])
            elif message[0] == SUBSCRIBED:
                missing -= 1
                if not missing:
                    subscribed.set()

    scope = {"type": "websocket", "path": "/", "root_path": "", "query_string": b""}
    await app({**scope, "headers": [], "subprotocols": ["wamp.2.json"]}, receive, send)


# ---- other packages


@asynccontextmanager
async def socket_io(url: str, topics: Sequence[str], record: Record) -> AsyncIterator[Publish]:
    """Open the Redis manager of python-socketio; it has one channel for everything."""
    import socketio

    class Manager(socketio.AsyncRedisManager):  # type: ignore[misc]
        async def _handle_emit(self, message: Any) -> None:
            if message["room"] in rooms:
                record(message["data"][0][0])

    rooms = frozenset(topics)
    if topics:
        manager = Manager(url)
        socketio.AsyncServer(client_manager=manager, async_mode="asgi").manager.initialize()
        await anyio.sleep(1.0)  # nothing tells when it is subscribed
    else:
        manager = socketio.AsyncRedisManager(url, write_only=True)

    async def publish(topic: str, payload: list[Any]) -> None:
        await manager.emit("news", payload, room=topic)

    yield publish


@asynccontextmanager
async def channels(url: str, topics: Sequence[str], record: Record) -> AsyncIterator[Publish]:
    """Open the pub/sub layer of channels_redis; a topic is a group."""
    from channels_redis.pubsub import RedisPubSubChannelLayer

    layer = RedisPubSubChannelLayer(hosts=[url], prefix="channels")

    async def receive_all(name: str) -> None:
        while True:
            record((await layer.receive(name))["payload"][0])

    async def publish(topic: str, payload: list[Any]) -> None:
        await layer.group_send(topic, {"type": "news", "payload": payload})

    async with anyio.create_task_group() as tasks:
        if topics:
            name = await layer.new_channel()
            for topic in topics:
                await layer.group_add(topic, name)
            tasks.start_soon(receive_all, name)
        yield publish
        tasks.cancel_scope.cancel()


SYSTEMS: dict[str, Callable[[str, Sequence[str], Record], AbstractAsyncContextManager[Publish]]] = {
    "serverwamp": partial(application, prefix="uvloop"),
    "serverwamp, trio": partial(application, prefix="trio"),
    "serverwamp, sessions": partial(application, prefix="sessions", has_session=True),
    "serverwamp, history": partial(application, prefix="history", has_history=True),
    "python-socketio": socket_io,
    "channels_redis": channels,
}


# ---- publishing


async def publish_many(publish: Publish, topics: Sequence[str], count: int, in_flight: int) -> None:
    """Publish `count` events, with `in_flight` of them waiting at any time."""
    numbers = iter(range(count))

    async def publish_some() -> None:
        for number in numbers:
            await publish(topics[number % len(topics)], [time.perf_counter(), TEXT])

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(publish_some)


async def publish_paced(publish: Publish, topics: Sequence[str], count: int, rate: int) -> None:
    """Publish `count` events at `rate` a second, however long each of them takes."""

    async def publish_one(topic: str) -> None:
        await publish(topic, [time.perf_counter(), TEXT])

    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for number, topic in enumerate(itertools.islice(itertools.cycle(topics), count)):
            await anyio.sleep_until(start + number / rate)
            tasks.start_soon(publish_one, topic)


async def main(system: str, url: str, topics: Sequence[str]) -> None:
    """Do what standard input says, until it ends."""
    arrivals = Arrivals()

    def answer(value: Any) -> None:
        sys.stdout.write(f"{json.dumps(value)}\n")
        sys.stdout.flush()

    async with SYSTEMS[system](url, topics, arrivals.record) as publish:
        answer("ready")
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            request, *values = json.loads(line)
            if request == "publish":
                await publish_many(publish, *values)
                answer("published")
            elif request == "publish, paced":
                await publish_paced(publish, *values)
                answer("published")
            elif request == "receive":
                await arrivals.wait_for(*values)
                answer("received")
            elif request == "latencies":
                answer(arrivals.latencies)
                arrivals.latencies = []
    sys.stdout.flush()


if __name__ == "__main__":
    name, address, wanted = sys.argv[1:]
    if name.endswith(", trio"):
        anyio.run(main, name, address, json.loads(wanted), backend="trio")
    else:
        anyio.run(main, name, address, json.loads(wanted), backend_options={"use_uvloop": True})
