"""Thousands of sessions on one process, some of which never read; how the others fare."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmark.applications import CALL, SUBSCRIBE
from tests.benchmark.load import TIMEOUT, Address, Client, Frames, message_frame
from tests.soak.application import ADD, NEWS, PUBLISH, TEXT

SUBPROTOCOLS = ("wamp.2.json", "wamp.2.msgpack")
CALLERS = 50
CALL_INTERVAL = 0.002
"""From one call to the next, each by another caller."""
PUBLICATION_INTERVAL = 0.25
"""From one publication to the next at least: that one has arrived everywhere."""
RECEIVE_BUFFER = 4096
"""What the kernel takes for those who don't read: little, so that it is soon the server's turn."""
UNREAD_TEXT = 4 * 1024 * 1024
"""What a session that doesn't read asks for in the beginning, to fill what is between."""
EVENTS_AT_ONCE = 64
PUBLICATIONS = 40
UNREAD_CALLS = 100
"""The calls of one that goes on calling, without reading."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds that 99 of 100 calls didn't exceed, and 99 of 100 events on their way."""

    calls: float
    events: float


def p99(seconds: Sequence[float]) -> float:
    """Return what 99 of 100 don't exceed, in milliseconds."""
    return sorted(seconds)[int(0.99 * (len(seconds) - 1))] * 1000


def close(clients: Sequence[Client]) -> None:
    """End sessions without a word."""
    for client in clients:
        client.close()


class Caller:
    """A session that calls when it is time to, whether or not it has the last answer."""

    def __init__(self, address: Address, frames: Frames) -> None:
        self.client = Client(address, SUBPROTOCOLS[0])
        self._frames = frames
        self._request = 0
        self._due: deque[float] = deque()

    def call(self, due: float) -> None:
        """Call; it should have been at the time `due`."""
        self._request += 1
        self._due.append(due)
        self.client.send(self._frames.up_to(self._request)[self._request])

    def answered(self) -> Sequence[float]:
        """Return how long the calls took that are answered now."""
        count, now = self.client.receive(), time.perf_counter()
        return [now - self._due.popleft() for _ in range(count)]


class Crowd:
    """Sessions that are subscribed to the news, some that call, and one that publishes."""

    def __init__(self, address: Address, sessions: int) -> None:
        self._address = address
        self.subscribers: Sequence[Client] = [
            Client(address, SUBPROTOCOLS[number % len(SUBPROTOCOLS)])
            for number in range(sessions - CALLERS - 1)
        ]
        for client in self.subscribers:
            client.ask([SUBSCRIBE, 1, {}, NEWS])
        frames = Frames(SUBPROTOCOLS[0], ADD)
        self.callers: deque[Caller] = deque(Caller(address, frames) for _ in range(CALLERS))
        self.publisher = Client(address, SUBPROTOCOLS[0])
        self._published = 0

    def publish(self) -> None:
        """Have something published, and don't wait for it."""
        self._published += 1
        publish = [CALL, self._published, {}, PUBLISH, [NEWS]]
        self.publisher.send(message_frame(SUBPROTOCOLS[0], publish))

    def more(self, count: int, *, receive_buffer: int | None = None) -> Sequence[Client]:
        """Return sessions more, every other one subscribed."""
        clients = [
            Client(self._address, SUBPROTOCOLS[0], receive_buffer=receive_buffer)
            for _ in range(count)
        ]
        for client in clients[::2]:
            client.ask([SUBSCRIBE, 1, {}, NEWS])
        return clients

    def more_unreading(self, count: int) -> Sequence[Client]:
        """Return sessions more, which have asked for much and are never to read it.

        Those that are subscribed have asked for one long text, the others for many.
        """
        clients = self.more(count, receive_buffer=RECEIVE_BUFFER)
        for client in clients[::2]:
            client.send(message_frame(SUBPROTOCOLS[0], [CALL, 2, {}, TEXT, [UNREAD_TEXT]]))
        for client in clients[1::2]:
            for request in range(1, UNREAD_CALLS + 1):
                text = [CALL, request, {}, TEXT, [UNREAD_TEXT // 64]]
                client.send(message_frame(SUBPROTOCOLS[0], text))
        return clients

    def window(self, others: Sequence[Client] = ()) -> Latency:
        """Publish and call for a while; `others` read, but are none of those who are measured."""
        return _Window(self, others).run()

    def close(self) -> None:
        """End every session."""
        close([*self.subscribers, *(caller.client for caller in self.callers), self.publisher])


class _Window:
    """A while in which a crowd is loaded, and timed."""

    def __init__(self, crowd: Crowd, others: Sequence[Client]) -> None:
        self._crowd = crowd
        self._callers = {caller.client.socket.fileno(): caller for caller in crowd.callers}
        self._subscribers = {client.socket.fileno(): client for client in crowd.subscribers}
        self._others = {client.socket.fileno(): client for client in others}
        self._calls: list[float] = []
        self._events: list[float] = []
        self._published = 0.0
        self._missing = 0
        self._unanswered = 0
        self._due = time.perf_counter()

    def run(self) -> Latency:
        left = PUBLICATIONS
        with select.epoll() as epoll, select.epoll() as subscribers:
            for descriptor in (*self._subscribers, *self._others):
                subscribers.register(descriptor, select.EPOLLIN)
            # Between any few events there is time for whoever has called.
            for descriptor in (*self._callers, self._crowd.publisher.socket.fileno()):
                epoll.register(descriptor, select.EPOLLIN)
            epoll.register(subscribers.fileno(), select.EPOLLIN)
            while left or self._missing or self._unanswered:
                now = time.perf_counter()
                if self._missing and now > self._published + TIMEOUT:
                    raise TimeoutError(f"{self._missing} events didn't arrive")
                if left:
                    self._call(now)
                if left and not self._missing and now > self._published + PUBLICATION_INTERVAL:
                    self._published = now
                    self._missing = len(self._subscribers)
                    self._crowd.publish()
                    left -= 1
                wait = max(self._due - time.perf_counter(), 0) if left else TIMEOUT
                for descriptor, _ in epoll.poll(wait):
                    if descriptor in self._callers:
                        took = self._callers[descriptor].answered()
                        self._calls += took
                        self._unanswered -= len(took)
                    elif descriptor == subscribers.fileno():
                        self._receive(subscribers.poll(0, EVENTS_AT_ONCE))
                    else:
                        self._crowd.publisher.receive()
        return Latency(p99(self._calls), p99(self._events))

    def _call(self, now: float) -> None:
        """Let one caller after the other call, at their times or as soon after as can be."""
        callers = self._crowd.callers
        while self._due < now:
            callers[0].call(self._due)
            callers.rotate()
            self._unanswered += 1
            self._due += CALL_INTERVAL

    def _receive(self, ready: Sequence[tuple[int, int]]) -> None:
        for descriptor, _ in ready:
            if descriptor in self._others:
                self._others[descriptor].receive()
                continue
            events = self._subscribers[descriptor].receive()
            self._missing -= events
            self._events += [time.perf_counter() - self._published] * events
