"""What the servers are asked to do, and which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.benchmark.applications import ADD, ECHO
from tests.benchmark.load import Address, Calls, Events, Frames, Sessions, Window

JSON, MSGPACK, BATCHED = "wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched"

REFERENCES = {
    "serverwamp, aiohttp": "bare, aiohttp",
    "serverwamp, batched": "serverwamp",
}
"""What servers are measured by, where that isn't the bare one."""


class Load(Protocol):
    """Clients of one server."""

    def run(self) -> Window: ...

    def close(self) -> None: ...


Connect = Callable[[Address, int], Load]
"""Given the address of a server, and the number of operations in a window."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A kind of load, which is put on several servers in turns."""

    name: str
    connect: Connect
    operations: int
    target: float | None = None
    """At most so many times the bare server's CPU time, for serverwamp on uvicorn."""
    servers: Sequence[str] = (
        "bare",
        "serverwamp",
        "bare, aiohttp",
        "serverwamp, aiohttp",
        "serverwamp, hypercorn, trio",
    )
    peers: bool = False
    """Whether other packages take part."""


def _calls(subprotocol: str, connections: int, outstanding: int) -> Connect:
    frames = Frames(subprotocol, ADD)
    return lambda address, operations: Calls(
        address, [frames] * connections, outstanding, operations
    )


def _echoes(size: int) -> Connect:
    frames = Frames(JSON, ECHO, "x" * size)
    return lambda address, operations: Calls(address, [frames], 1, operations)


def _events(subprotocols: Sequence[str], burst: int = 1) -> Connect:
    return lambda address, operations: Events(address, subprotocols, operations, burst)


def _sessions(address: Address, operations: int) -> Load:
    return Sessions(address, JSON, operations)


COMPARISONS = (
    Mode("calls, 32 x 8, JSON", _calls(JSON, 32, 8), 8192, 1.35, peers=True),
    Mode("calls, 32 x 8, MessagePack", _calls(MSGPACK, 32, 8), 8192, 1.35),
    Mode("calls, 1 x 1, JSON", _calls(JSON, 1, 1), 2048, 1.25, peers=True),
    Mode("events to 100, JSON", _events([JSON] * 100), 20_000, 1.15, peers=True),
    Mode("events to 1,000, both", _events([JSON, MSGPACK] * 500), 20_000, 1.15),
    Mode("sessions, JSON", _sessions, 256, 1.20, peers=True),
)
"""Modes in which servers are compared."""

PAIR = ("bare", "serverwamp")
SCALING = (
    *(
        Mode(f"calls, {count:,} sessions", _calls(JSON, count, 1), 10_000, servers=PAIR)
        for count in (10, 100, 1000, 5000)
    ),
    *(
        Mode(f"echo of {size:,} bytes", _echoes(size), operations, servers=PAIR)
        for size, operations in ((10, 1024), (1024, 1024), (32_768, 256), (1_048_576, 8))
    ),
)
"""Modes that show how the cost grows."""

BATCHING = (
    Mode("1,000 events to one", _events([JSON], 1000), 20_000, servers=PAIR),
    Mode(
        "1,000 events to one",
        _events([BATCHED], 1000),
        20_000,
        servers=("serverwamp, batched",),
    ),
)
"""Two framings of the same events."""
