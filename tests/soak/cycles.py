"""Clients that connect, do something, and vanish: each from another state, in another way."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from tests.benchmark.applications import CALL, GOODBYE, HELLO, SUBSCRIBE
from tests.benchmark.load import (
    CLOSE,
    RECEIVE_SIZE,
    Address,
    Client,
    connected,
    frame,
    message_frame,
    upgrade_request,
)
from tests.soak.application import ADD, HOLD, KEPT, NEWS, OPENING, PUBLISH, REPORT, TEXT, TOPICS

CANCEL, UNSUBSCRIBE = 49, 34
SUBPROTOCOLS = ("wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched", "wamp.2.msgpack.batched")
CLIENTS = 16
"""How many are connected at the same time."""

# ---- what a client does before it vanishes

Step: TypeAlias = Callable[[Client, Any], None]


def ask(client: Client, message: Any) -> None:
    client.ask(message)


def send(client: Client, message: Any) -> None:
    client.send(message_frame(client.subprotocol, message))


def send_half(client: Client, message: Any) -> None:
    whole = message_frame(client.subprotocol, message)
    client.send(whole[: len(whole) // 2])


def send_on(client: Client, message: Any) -> None:
    client.send(50 * message_frame(client.subprotocol, message))
    client.socket.recv(1)  # of what the first one is answered with


def scenes(number: int) -> Sequence[Sequence[tuple[Step, Any]]]:
    """Return what clients do on their WebSocket; the last of it isn't always answered."""
    hello = [HELLO, "realm1", {"roles": {"caller": {}, "subscriber": {}}}]
    opened: tuple[Step, Any] = (ask, hello)
    topic = f"{TOPICS}{number}"
    return (
        (),
        [(send_half, hello)],
        [(send, [CALL, 1, {}, ADD, [1, 2]])],  # refused: there is no session
        [(send_on, [CALL, 1, {}, ADD, [1, 2]])],
        [opened],
        [opened, (ask, [GOODBYE, {}, "wamp.close.close_realm"]), opened],
        [opened, (send, [SUBSCRIBE, 1, {}, OPENING])],
        [opened, (ask, [SUBSCRIBE, 1, {}, NEWS]), (ask, [SUBSCRIBE, 2, {}, topic])],
        [opened, (ask, [SUBSCRIBE, 1, {}, KEPT]), (ask, [UNSUBSCRIBE, 2, 1])],
        [opened, (ask, [SUBSCRIBE, 1, {}, NEWS]), (ask, [CALL, 2, {}, PUBLISH, [NEWS]])],
        [opened, (ask, [CALL, 1, {}, ADD, [1, 2]])],
        [opened, (send_half, [CALL, 1, {}, ADD, [1, 2]])],
        [opened, (send, [CALL, 1, {}, HOLD])],
        [opened, (send, [CALL, 1, {}, HOLD]), (ask, [CANCEL, 1, {}])],
        [opened, (send, [CALL, 1, {}, HOLD]), (ask, [CANCEL, 1, {"mode": "kill"}])],
        [opened, (ask, [CALL, 1, {"timeout": 1}, HOLD])],
        [opened, (send, [CALL, 1, {"timeout": 60_000}, HOLD])],
        [opened, (ask, [CALL, 1, {"receive_progress": True}, REPORT])],
        [opened, (send, [CALL, 1, {}, TEXT, [1024 * 1024]])],
    )


# ---- how it vanishes


def say_goodbye(client: Client) -> None:
    with suppress(ConnectionError):
        send(client, [GOODBYE, {}, "wamp.close.close_realm"])
        close(client)


def close(client: Client) -> None:
    with suppress(ConnectionError):
        client.send(frame(CLOSE, b"\x03\xe8"))
        while client.socket.recv(RECEIVE_SIZE):
            pass
    client.socket.close()


def drop(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


ENDS: Sequence[Callable[[Client], None]] = (
    say_goodbye,
    close,
    lambda client: drop(client.socket),
    lambda client: reset(client.socket),
)


SCENES = len(scenes(0)) + 1  # the last of them is without a WebSocket
KINDS = SCENES * len(ENDS) * len(SUBPROTOCOLS)
"""After so many cycles clients have vanished from every scene, in every way and subprotocol."""


# ---- one cycle after the other


def run(address: Address, numbers: Sequence[int]) -> None:
    """Let a client come for each of `numbers`, while those before it are still there."""
    present: list[Callable[[], None]] = []
    for number in numbers:
        if len(present) == CLIENTS:
            present.pop(number % CLIENTS)()
        present.append(_begun(address, number))
    for end in present:
        end()


def _begun(address: Address, number: int) -> Callable[[], None]:
    """Let a client begin something; return what makes it vanish."""
    rest, subprotocol = divmod(number, len(SUBPROTOCOLS))
    rest, scene = divmod(rest, SCENES)
    end, spoken = rest % len(ENDS), SUBPROTOCOLS[subprotocol]
    if scene == SCENES - 1:
        connection = connected(address)
        if subprotocol:
            connection.sendall(upgrade_request(address, spoken)[: -20 * subprotocol])
        return lambda: (drop, reset)[end % 2](connection)
    client = Client(address, spoken, joins=False)
    for step, message in scenes(number)[scene]:
        step(client, message)
        if step is send_half:
            end |= 2  # nothing can be said any more
    return lambda: ENDS[end](client)
