"""What is soaked: an application with some of everything, and counts of what its process holds.

As a module, in a process of its own, this serves it at a listening socket it is given.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

import serverwamp
from tests.benchmark import applications

ADD, HOLD, REPORT, TEXT = "soak.add", "soak.hold", "soak.report", "soak.text"
PUBLISH, NEWS, OPENING, TOPICS = "soak.publish", "soak.news", "soak.opening", "soak.topic."
KEPT = "soak.kept"
COUNTS = "soak.counts"
NEWS_TEXT = "x" * 64
SEND_TIMEOUT = 5.0
LIMITS = serverwamp.Limits(
    outbound_messages=8, outbound_bytes=8 * 1024 * 1024, send_timeout=SEND_TIMEOUT
)


class Problems(logging.Handler):
    """Counts what is logged as an error, and lets it be seen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        if logging.lastResort is not None:
            logging.lastResort.handle(record)


problems = Problems()


def application() -> serverwamp.Application:
    app = serverwamp.Application(limits=LIMITS)

    @app.route(ADD)
    async def add(a: int, b: int) -> int:
        return a + b

    @app.route(HOLD)
    async def hold() -> None:
        await anyio.sleep_forever()

    @app.route(REPORT)
    async def report() -> AsyncIterator[Any]:
        while True:
            yield serverwamp.RPCProgressReport([NEWS_TEXT])

    @app.route(TEXT)
    async def text(size: int) -> str:
        return "x" * size

    @app.route(PUBLISH)
    async def publish(topic: str) -> None:
        await app.publish(topic, [NEWS_TEXT])

    @app.topic(KEPT)
    @app.topic(NEWS)
    async def news() -> AsyncIterator[None]:
        yield

    @app.topic(OPENING)
    async def opening() -> AsyncIterator[None]:
        await anyio.sleep_forever()
        yield

    @app.prefix_topic(TOPICS)
    async def topics() -> AsyncIterator[None]:
        yield

    @app.route(COUNTS)
    async def counts() -> Mapping[str, Any]:
        return counted(app)

    async def keep(session: serverwamp.Session) -> AsyncIterator[None]:
        yield

    app.add_session_lifespan_handler(keep)
    return app


def counted(app: serverwamp.Application) -> Mapping[str, Any]:
    """Return how many there are of what has to be flat, and of every type of objects."""
    gc.collect()
    types = Counter(
        f"{type(item).__module__}.{type(item).__qualname__}" for item in gc.get_objects()
    )
    statistics = app.statistics()
    return {
        "sessions": statistics.sessions,
        "connections": statistics.sessions + statistics.unauthenticated_sessions,
        "calls in flight": statistics.calls_in_flight,
        "messages queued": statistics.outbound_messages,
        "bytes queued": statistics.outbound_bytes,
        "running calls": types["serverwamp.peer.caller.RunningCall"],
        "subscribers": types["serverwamp.peer.subscriber.Subscriber"],
        "topics in the broker": types["serverwamp.router.broker.Subscription"],
        "tasks": tasks(),
        "threads": threading.active_count(),
        "file descriptors": len(os.listdir("/proc/self/fd")),
        "Python objects": sum(types.values()),
        "memory, bytes": memory(),
        "errors in the log": problems.count,
        "types": types,
    }


def tasks() -> int:
    """Return the number of tasks of the event loop."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


def memory() -> int:
    """Return the resident memory of this process, in bytes, without what it has freed."""
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


SERVICES = {
    "uvicorn": lambda listener: applications.run_uvicorn(application(), impatient(listener)),
    "aiohttp": lambda listener: applications.run_aiohttp(
        application().aiohttp_websocket_handler(), impatient(listener)
    ),
    "hypercorn-trio": lambda listener: applications.run_hypercorn_trio(
        application(), impatient(listener)
    ),
}


def impatient(listener: socket.socket) -> socket.socket:
    """Have the kernel give up who doesn't read; servers wait for that even after closing."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_TIMEOUT * 1000))
    return listener


if __name__ == "__main__":
    logging.getLogger().addHandler(problems)
    applications.main(SERVICES)
