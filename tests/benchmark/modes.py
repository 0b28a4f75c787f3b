"""What the servers are asked to do, and which of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.benchmark.applications import ADD
from tests.benchmark.load import Address, Calls, Events, Frames, Sessions, Window

JSON, MSGPACK = "wamp.2.json", "wamp.2.msgpack"


class Load(Protocol):
    """Clients of one server."""

    def run(self) -> Window: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Mode:
    """A kind of load, with the servers that it is put on; the first is what they are measured by.

    `connect` is given the address of a server and the number of operations in a window.
    """

    name: str
    operation: str
    connect: Callable[[Address, int], Load]
    operations: int
    target: float | None = None
    """At most so many times the bare server's CPU time, for serverwamp on uvicorn."""


def _calls(subprotocol: str, connections: int, outstanding: int) -> Callable[[Address, int], Load]:
    frames = Frames(subprotocol, ADD)
    return lambda address, operations: Calls(
        address, [frames] * connections, outstanding, operations
    )


def _events(subprotocols: Sequence[str]) -> Callable[[Address, int], Load]:
    return lambda address, operations: Events(address, subprotocols, operations)


def modes() -> Sequence[Mode]:
    """Return the modes in which servers are compared."""
    return (
        Mode("calls, 32 x 8, JSON", "call", _calls(JSON, 32, 8), 8192, 1.35),
        Mode("calls, 32 x 8, MessagePack", "call", _calls(MSGPACK, 32, 8), 8192, 1.35),
        Mode("calls, 1 x 1, JSON", "call", _calls(JSON, 1, 1), 2048, 1.25),
        Mode("events to 100, JSON", "event", _events([JSON] * 100), 20_000, 1.15),
        Mode("events to 1,000, both", "event", _events([JSON, MSGPACK] * 500), 20_000, 1.15),
        Mode(
            "sessions",
            "session",
            lambda address, operations: Sessions(address, JSON, operations),
            256,
            1.20,
        ),
    )
