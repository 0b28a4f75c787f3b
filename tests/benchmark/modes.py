"""What the servers are asked to do, and which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from tests.benchmark import socketio_packets
from tests.benchmark.applications import ADD, ECHO
from tests.benchmark.load import Address, Calls, Events, ForwardedCalls, Frames, Sessions, Window

JSON, MSGPACK, BATCHED = "wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched"

PAIR = ("bare", "serverwamp")
BEFORE = "serverwamp, before"
"""An earlier version, which an interpreter of its own has."""
FRAMEWORKS = (BEFORE, "serverwamp 2.0.0", "fastapi-headless-wamp", "python-socketio")

REFERENCES = {
    "serverwamp, aiohttp": "bare, aiohttp",
    "serverwamp, batched": "serverwamp",
    BEFORE: "serverwamp",
}
"""What servers are measured by, where that isn't the bare one."""


class Load(Protocol):
    """Clients of one server."""

    def run(self) -> Window: ...

    def close(self) -> None: ...


Connect = Callable[[Address, Sequence[str], int], Load]
"""Given the address of a server, a subprotocol for each client, and the operations of a window."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A kind of load, which is put on several servers in turns."""

    name: str
    subprotocols: Sequence[str]
    """One for each client."""
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
    peers: Sequence[str] = ()
    """The other packages that take part."""

    def spoken_by(self, server: str) -> Sequence[str]:
        """Return the subprotocols with which clients connect to a server."""
        if server == "python-socketio":
            return [socketio_packets.SOCKET_IO] * len(self.subprotocols)
        return self.subprotocols


_frames = cache(Frames)
"""Made once for all servers."""


def _calls(outstanding: int) -> Connect:
    return lambda address, subprotocols, operations: Calls(
        address, [_frames(name, ADD) for name in subprotocols], outstanding, operations
    )


def _routed_calls(outstanding: int) -> Connect:
    return lambda address, subprotocols, operations: ForwardedCalls(
        address, subprotocols, outstanding, operations
    )


def _echoes(size: int) -> Connect:
    return lambda address, subprotocols, operations: Calls(
        address, [_frames(name, ECHO, "x" * size) for name in subprotocols], 1, operations
    )


def _events(burst: int = 1) -> Connect:
    return lambda address, subprotocols, operations: Events(
        address, subprotocols, operations, burst
    )


def _sessions(address: Address, subprotocols: Sequence[str], operations: int) -> Load:
    return Sessions(address, subprotocols[0], operations)


COMPARISONS = (
    Mode("calls, 32 x 8, JSON", [JSON] * 32, _calls(8), 8192, 1.35, peers=FRAMEWORKS),
    Mode("calls, 32 x 8, MessagePack", [MSGPACK] * 32, _calls(8), 8192, 1.35, peers=(BEFORE,)),
    Mode("calls, 1 x 1, JSON", [JSON], _calls(1), 2048, 1.25, peers=FRAMEWORKS),
    Mode("events to 100, JSON", [JSON] * 100, _events(), 20_000, 1.15, peers=FRAMEWORKS),
    Mode("events to 1,000, JSON", [JSON] * 1000, _events(), 20_000, servers=PAIR, peers=FRAMEWORKS),
    Mode("events to 1,000, both", [JSON, MSGPACK] * 500, _events(), 20_000, 1.15, peers=(BEFORE,)),
    Mode("sessions, JSON", [JSON], _sessions, 256, 1.20, peers=FRAMEWORKS),
    Mode(
        "client to client, 16 x 8",
        [JSON] * 16,
        _routed_calls(8),
        4096,
        servers=PAIR,
        peers=(BEFORE, "crossbar"),
    ),
)
"""Modes in which servers are compared."""

SCALING = (
    *(
        Mode(f"calls, {count:,} sessions", [JSON] * count, _calls(1), 10_000, servers=PAIR)
        for count in (10, 100, 1000, 5000)
    ),
    *(
        Mode(f"echo of {size:,} bytes", [JSON], _echoes(size), operations, servers=PAIR)
        for size, operations in ((10, 1024), (1024, 1024), (32_768, 256), (1_048_576, 8))
    ),
)
"""Modes that show how the cost grows."""

BATCHING = (
    Mode("1,000 events to one", [JSON], _events(1000), 20_000, servers=PAIR),
    Mode("1,000 events to one", [BATCHED], _events(1000), 20_000, servers=("serverwamp, batched",)),
)
"""Two framings of the same events."""
