"""The client side: as little as can be, so that the servers are what is measured.

Frames are built before they are needed, blocking sockets are read when epoll says so, and of what
arrives only the messages are counted.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson

from tests.benchmark import socketio_packets
from tests.benchmark.applications import (
    CALL,
    GOODBYE,
    HELLO,
    NEWS,
    OF_CLIENTS,
    PUBLISH,
    REGISTER,
    SUBSCRIBE,
    YIELD,
)

TIMEOUT = 30.0
RECEIVE_SIZE = 65536  # from 128 KiB on, allocating the buffer costs more than receiving
MASK = b"\x37\xfa\x21\x3d"
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A

INVOCATIONS = re.compile(rb"\[68,(\d+),\d+,\{[^}]*\},\[(\d+),2\]\]")
LONGEST_INVOCATION = 200

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Window:
    """What one server did in one short time."""

    operations: int
    seconds: float
    latencies: Sequence[float]


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a WebSocket frame of a client."""
    length = len(payload)
    if length < 126:
        header = struct.pack(">BB", opcode, 0x80 | length)
    elif length < 65536:
        header = struct.pack(">BBH", opcode, 0x80 | 126, length)
    else:
        header = struct.pack(">BBQ", opcode, 0x80 | 127, length)
    mask = (MASK * (length // 4 + 1))[:length]
    masked = (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(length)
    return header + MASK + masked


def message_frame(subprotocol: str, message: Any) -> bytes:
    """Return a WAMP message as a WebSocket frame of a client."""
    if subprotocol == socketio_packets.SOCKET_IO:
        return frame(TEXT, socketio_packets.packet(message))
    if "json" not in subprotocol:
        packed = msgpack.packb(message)
        batched = len(packed).to_bytes(4) if "batched" in subprotocol else b""
        return frame(BINARY, batched + packed)
    return frame(TEXT, orjson.dumps(message) + (b"\x1e" if "batched" in subprotocol else b""))


def upgrade_request(address: Address, subprotocol: str) -> bytes:
    """Return the client's side of a WebSocket handshake."""
    path = socketio_packets.PATH if subprotocol == socketio_packets.SOCKET_IO else "/"
    return (
        f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()
    )


class Client:
    """One connection, with an open session once it has joined."""

    def __init__(
        self,
        address: Address,
        subprotocol: str,
        *,
        joins: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        """Connect; `receive_buffer` is how many bytes the kernel may take before they are read."""
        self.subprotocol = subprotocol
        self._separator = b"\x1e" if subprotocol == "wamp.2.json.batched" else b""
        self._rest = b""
        self._missing = 0
        self.socket = connected(address, receive_buffer)
        self.send = self.socket.sendall
        self._open(address)
        if joins:
            self.join()

    def _open(self, address: Address) -> None:
        self.send(upgrade_request(address, self.subprotocol))
        response = b""
        while b"\r\n\r\n" not in response:
            response += self._received()
        head, _, self._rest = response.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the handshake failed: {head!r}")

    def join(self) -> None:
        """Open a session."""
        hello = [HELLO, "realm1", {"roles": {"caller": {}, "callee": {}, "subscriber": {}}}]
        # A Socket.IO server has something to say by itself, too.
        self.ask(hello, 2 if self.subprotocol == socketio_packets.SOCKET_IO else 1)

    def _received(self) -> bytes:
        data = self.socket.recv(RECEIVE_SIZE)
        if not data:
            raise RuntimeError("the server has closed the connection")
        self.noticed(data)
        return data

    def noticed(self, data: bytes) -> None:
        """Do what is to be done with what has arrived, beside counting it."""

    def ask(self, message: Any, answers: int = 1) -> None:
        """Send a message and wait for another, or several."""
        self.send(message_frame(self.subprotocol, message))
        while answers > 0:
            answers -= self.receive()

    def receive(self) -> int:
        """Receive what there is, at least a byte; return how many messages are complete now."""
        data = self._rest + self._received()
        separator, missing = self._separator, self._missing
        position, end, messages = 0, len(data), 0
        while True:
            if missing:
                stop = min(position + missing, end)
                if separator:
                    messages += data.count(separator, position, stop)
                missing -= stop - position
                position = stop
                if missing:
                    break
                if not separator:
                    messages += 1
            if end - position < 2:
                break
            length, start = data[position + 1], 2
            if length > 125:
                start = 4 if length == 126 else 10
                if end - position < start:
                    break
                length = int.from_bytes(data[position + 2 : position + start])
            if data[position] >= CLOSE:
                if end - position < start + length:
                    break
                self._answer(data[position], data[position + start : position + start + length])
                position += start + length
                continue
            position += start
            missing = length
        self._missing = missing
        self._rest = data[position:]
        return messages

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            raise RuntimeError(f"the server closes the connection: {payload!r}")
        if opcode == PING:
            self.send(frame(PONG, payload))

    def leave(self) -> None:
        """End the session, and close the connection."""
        goodbye = [GOODBYE, {}, "wamp.close.close_realm"]
        if self.subprotocol == socketio_packets.SOCKET_IO:
            self.send(message_frame(self.subprotocol, goodbye))  # which isn't answered
        else:
            self.ask(goodbye)
        self.send(frame(CLOSE, b"\x03\xe8"))
        with suppress(ConnectionResetError):  # how some servers close
            while self.socket.recv(RECEIVE_SIZE):
                pass
        self.socket.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self.socket.close()


class Callee(Client):
    """A client that answers the calls of one procedure, over JSON."""

    def __init__(self, address: Address, subprotocol: str, procedure: str) -> None:
        self._unread = b""
        super().__init__(address, subprotocol)
        self.ask([REGISTER, 1, {}, procedure])

    def noticed(self, data: bytes) -> None:
        """Answer the invocations that are complete."""
        data = self._unread + data
        answers, end = [], 0
        for invocation in INVOCATIONS.finditer(data):
            message = [YIELD, int(invocation[1]), {}, [int(invocation[2])]]
            answers.append(message_frame(self.subprotocol, message))
            end = invocation.end()
        self._unread = data[max(end, len(data) - LONGEST_INVOCATION) :]
        if answers:
            self.send(b"".join(answers))


class Frames:
    """CALL frames with the requests 1, 2, 3, ...; every session needs the same ones."""

    def __init__(self, subprotocol: str, procedure: str, argument: Any = None) -> None:
        self.subprotocol = subprotocol
        self._procedure = procedure
        self._argument = argument
        self._frames = [b""]  # no request has the id 0

    def up_to(self, last: int) -> list[bytes]:
        """Return a list in which those from 1 to `last` are, each at its number."""
        for request in range(len(self._frames), last + 1):
            args = [request, 2] if self._argument is None else [self._argument]
            message = [CALL, request, {}, self._procedure, args]
            self._frames.append(message_frame(self.subprotocol, message))
        return self._frames


class Arrivals:
    """Waits for several clients at once."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._others: dict[int, Client] = {}
        self._watch(clients, self._clients)

    def also(self, others: Sequence[Client]) -> None:
        """Let others receive while these are waited for."""
        self._watch(others, self._others)

    def _watch(self, clients: Sequence[Client], among: dict[int, Client]) -> None:
        for client in clients:
            among[client.socket.fileno()] = client
            self._epoll.register(client.socket.fileno(), select.EPOLLIN)

    def wait(self) -> list[Client]:
        """Return the clients that have received something."""
        ready = self._epoll.poll(TIMEOUT)
        if not ready:
            raise TimeoutError(f"no answer within {TIMEOUT} seconds")
        descriptors = [descriptor for descriptor, _ in ready]
        for descriptor in descriptors:
            if descriptor in self._others:
                self._others[descriptor].receive()
        return [self._clients[d] for d in descriptors if d in self._clients]

    def close(self) -> None:
        self._epoll.close()


class Calls:
    """Clients that call, each with some calls outstanding all the time."""

    def __init__(
        self, address: Address, frames: Sequence[Frames], outstanding: int, operations: int
    ) -> None:
        """Connect a client for each of `frames`, which say what it calls."""
        self._frames = frames
        self._clients = [Client(address, item.subprotocol) for item in frames]
        self._arrivals = Arrivals(self._clients)
        self._outstanding = outstanding
        self._calls = max(operations // len(frames), outstanding)
        self._called = 0

    def run(self) -> Window:
        """Let every client do its share of the calls."""
        last = self._called + self._calls
        lists = {
            client: frames.up_to(last)
            for client, frames in zip(self._clients, self._frames, strict=True)
        }
        following = self._called + 1 + self._outstanding
        begun: dict[Client, deque[float]] = {}
        latencies: list[float] = []
        now = time.perf_counter
        start = now()
        for client, frames in lists.items():
            begun[client] = deque([now()] * self._outstanding)
            client.send(b"".join(frames[self._called + 1 : following]))
        next_request = dict.fromkeys(self._clients, following)
        unanswered = self._calls * len(self._clients)
        while unanswered:
            for client in self._arrivals.wait():
                answered = client.receive()
                if not answered:
                    continue
                unanswered -= answered
                pending = begun[client]
                time_now = now()
                latencies.extend(time_now - pending.popleft() for _ in range(answered))
                request = next_request[client]
                count = min(answered, last + 1 - request)
                if count:
                    client.send(b"".join(lists[client][request : request + count]))
                    pending.extend([time_now] * count)
                    next_request[client] = request + count
        self._called = last
        return Window(len(latencies), now() - start, latencies)

    def close(self) -> None:
        self._arrivals.close()
        for client in self._clients:
            client.close()


class ForwardedCalls(Calls):
    """Clients that call others, of which each has one that calls it."""

    def __init__(
        self, address: Address, subprotocols: Sequence[str], outstanding: int, operations: int
    ) -> None:
        """Connect two clients for each of `subprotocols`."""
        procedures = [f"{OF_CLIENTS}number{number}" for number in range(len(subprotocols))]
        self._callees = [
            Callee(address, name, procedure)
            for name, procedure in zip(subprotocols, procedures, strict=True)
        ]
        frames = [
            Frames(name, procedure)
            for name, procedure in zip(subprotocols, procedures, strict=True)
        ]
        super().__init__(address, frames, outstanding, operations)
        self._arrivals.also(self._callees)

    def close(self) -> None:
        super().close()
        for callee in self._callees:
            callee.close()


class Events:
    """Subscribers, and one client more that has something published once all have the last."""

    def __init__(
        self, address: Address, subprotocols: Sequence[str], operations: int, burst: int = 1
    ) -> None:
        """Subscribe a client for each of `subprotocols`; `burst` events are published at once."""
        self._subscribers = [Client(address, subprotocol) for subprotocol in subprotocols]
        for subscriber in self._subscribers:
            subscriber.ask([SUBSCRIBE, 1, {}, NEWS])
        self._publisher = Client(address, subprotocols[0])
        self._arrivals = Arrivals([*self._subscribers, self._publisher])
        self._frames = Frames(subprotocols[0], PUBLISH, burst)
        self._burst = burst
        self._rounds = max(operations // (burst * len(subprotocols)), 1)
        self._published = 0

    def run(self) -> Window:
        """Publish, wait until every subscriber has it all, and again."""
        latencies = []
        messages = len(self._subscribers) * self._burst + 1  # one is the publisher's
        first, self._published = self._published + 1, self._published + self._rounds
        frames = self._frames.up_to(self._published)
        start = time.perf_counter()
        for published in frames[first:]:
            begun = time.perf_counter()
            self._publisher.send(published)
            missing = messages
            while missing:
                for client in self._arrivals.wait():
                    missing -= client.receive()
            latencies.append(time.perf_counter() - begun)
        events = self._rounds * (messages - 1)
        return Window(events, time.perf_counter() - start, latencies)

    def close(self) -> None:
        self._arrivals.close()
        for client in (*self._subscribers, self._publisher):
            client.close()


class Sessions:
    """Connections, one after the other: HELLO, WELCOME, GOODBYE, and closed."""

    def __init__(self, address: Address, subprotocol: str, operations: int) -> None:
        self._address = address
        self._subprotocol = subprotocol
        self._operations = operations

    def run(self) -> Window:
        """Open and close sessions."""
        latencies = []
        start = time.perf_counter()
        for _ in range(self._operations):
            begun = time.perf_counter()
            Client(self._address, self._subprotocol).leave()
            latencies.append(time.perf_counter() - begun)
        return Window(self._operations, time.perf_counter() - start, latencies)

    def close(self) -> None:
        """Nothing is left open."""


def connected(address: Address, receive_buffer: int | None = None) -> socket.socket:
    """Return a blocking TCP connection; its operations fail after a while."""
    connection = reached(address, receive_buffer)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        # A timeout of Python's own would cost a poll() for each operation.
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(TIMEOUT), 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def reached(address: Address, receive_buffer: int | None = None) -> socket.socket:
    """Return a TCP connection; a server that doesn't listen yet is waited for."""
    given_up = time.monotonic() + TIMEOUT
    while True:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(address)
        except ConnectionRefusedError:
            connection.close()
            if time.monotonic() > given_up:
                raise
            time.sleep(0.05)
        else:
            connection.settimeout(None)
            return connection
