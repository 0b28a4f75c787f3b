"""A backplane over Redis or Valkey.

Two connections, each of which is replaced when it breaks: one sends, and one receives. Only the
connection class of coredis is used. What waits for the same channel travels in one PUBLISH.

A topic belongs to one of a few channels of its realm, its *shard*. A process subscribes to the
shards in which it has subscribers, and to all of them while it has a subscriber to a pattern.

Spec: Redis, "Pub/sub" and "RESP3".
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import uniform
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from zlib import crc32

import anyio
import msgspec
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError

from serverwamp.backplanes.base import Backplane, RealmEvents
from serverwamp.backplanes.envelope import packed, unpacked
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    BackplaneOutcomeUnknown,
    BackplaneUnavailable,
    ConfigurationError,
    SerializationError,
)
from serverwamp.history import History, Log
from serverwamp.protocol.ids import new_session_id
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)

SHARDS: Final = 16
ACCEPT_SECONDS: Final = 2.0
"""How long a publication may wait to be sent."""
REPLY_SECONDS: Final = 1.5
"""How long Redis may take to answer."""
CONNECT_SECONDS: Final = 1.0
PROBE_SECONDS: Final = 1.0
"""How often a message to oneself proves that messages arrive."""
SILENCE_SECONDS: Final = 3.0
"""A connection on which nothing has arrived for so long is replaced."""
SETTLING_SECONDS: Final = 0.6
"""How long publishing waits after a reconnection: other processes have to be back as well."""
BACK_OFF: Final = (0.05, 0.5)
"""The shortest and the longest wait before the next attempt to connect."""
MOST_WAITING: Final = 10_000
"""How many publications wait to be sent."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""How long a publication may be."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, int, list[bytes]]).decode


class RedisBackplane(Backplane):
    """Carries publications over Redis or Valkey.

    Arguments:
        url: ``redis://user:password@host:port``, or ``rediss://`` for TLS.
        prefix: stands before all names in Redis. Applications that share a Redis need different
            ones: database numbers don't separate publications.
        ssl_context: how TLS is verified, for example with a certificate authority of your own.
        start_timeout: how many seconds the first connection may take.

    Raises: ConfigurationError for a URL of another kind.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "serverwamp",
        ssl_context: ssl.SSLContext | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self._address = _Address(url, ssl_context)
        self._prefix = prefix
        self._start_timeout = start_timeout
        self._node = f"{new_session_id():x}".encode()
        self._inbox = f"{prefix}:n:{self._node.decode()}"
        self._realms: dict[str, RealmEvents] = {}
        self._followed: Counter[str] = Counter()  # channels, and how many subscriptions need them
        self._changes = Changes()
        # receiving
        self._receiving: TCPConnection | None = None
        self._subscribed: set[str] = set()
        self._heard_at = time.time()
        self._missing_since: float | None = None
        # sending
        self._sending: TCPConnection | None = None
        self._open: dict[str, _Batch] = {}  # by channel
        self._travelling: dict[int, _Batch] = {}  # those whose own copy is awaited, by number
        self._waiting = 0
        self._batches = 0
        self._may_send_at = -math.inf

    # ---- what the router asks for

    def add_realm(self, realm: RealmEvents) -> None:
        self._realms[realm.uri or ""] = realm

    async def publish(self, realm: RealmEvents, publication: Publication) -> None:
        frame = packed(publication)
        if len(frame) > MOST_BYTES:
            raise BackplaneUnavailable(f"a publication of {len(frame)} bytes is too long")
        if self._waiting >= MOST_WAITING:
            raise BackplaneUnavailable("too many publications wait to be sent")
        channel = self._channel(realm, publication.topic)
        batch = self._open.get(channel)
        if batch is None or batch.size + len(frame) > MOST_BYTES:
            self._batches += 1
            batch = self._open[channel] = _Batch(self._batches)
            self._changes.notify()
        batch.add(frame)
        self._waiting += 1
        try:
            await self._carried(batch, frame, channel)
        finally:
            self._waiting -= 1

    async def _carried(self, batch: _Batch, frame: bytes, channel: str) -> None:
        with anyio.move_on_after(ACCEPT_SECONDS):
            await batch.sent.wait()
        if not batch.sent.is_set():
            batch.remove(frame)
            raise BackplaneUnavailable("the backplane can't be reached")
        with anyio.move_on_after(REPLY_SECONDS):
            await batch.answered.wait()
        if batch.failure is not None:
            raise batch.failure
        if not batch.answered.is_set():
            raise BackplaneOutcomeUnknown("the backplane doesn't answer")
        if channel in self._subscribed:
            with anyio.move_on_after(REPLY_SECONDS):  # else it is in a lost window
                await batch.delivered.wait()

    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        channels = self._channels(realm, topic, match)
        self._followed.update(channels)
        if self._receiving is not None and self._receiving.usable:
            new = [channel for channel in channels if self._followed[channel] == 1]
            if new:
                self._receiving.send_command(b"SUBSCRIBE", *new)
        with anyio.move_on_after(ACCEPT_SECONDS):
            await self._changes.wait_until(lambda: self._subscribed.issuperset(channels))
            return
        self.unfollow(realm, topic, match)
        raise BackplaneUnavailable("the backplane can't be reached")

    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        channels = self._channels(realm, topic, match)
        self._followed.subtract(channels)
        gone = [channel for channel in channels if not self._followed[channel]]
        for channel in gone:
            del self._followed[channel]
            self._subscribed.discard(channel)
        if gone and self._receiving is not None and self._receiving.usable:
            self._receiving.send_command(b"UNSUBSCRIBE", *gone)

    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        raise ConfigurationError("topics can't have a history over several processes yet")

    def _channel(self, realm: RealmEvents, topic: str) -> str:
        return self._shard(realm, crc32(topic.encode()) % SHARDS)

    def _channels(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> list[str]:
        if match == "exact":
            return [self._channel(realm, topic)]
        return [self._shard(realm, number) for number in range(SHARDS)]

    def _shard(self, realm: RealmEvents, number: int) -> str:
        return f"{self._prefix}:{{{realm.uri or ''}.s{number:02}}}"

    # ---- connections

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_connected, self._receive)
            tasks.start_soon(self._keep_connected, self._send)
            tasks.start_soon(self._probe)
            with anyio.move_on_after(self._start_timeout) as starting:
                await self._changes.wait_until(self._is_ready)
            if starting.cancelled_caught:
                tasks.cancel_scope.cancel()
            else:
                task_status.started()
        if starting.cancelled_caught:
            raise BackplaneUnavailable(f"{self._address} can't be reached")

    def _is_ready(self) -> bool:
        return self._inbox in self._subscribed and self._sending is not None

    async def _keep_connected(self, serve: Callable[[TCPConnection], Awaitable[None]]) -> None:
        """Serve one connection after the other, with a pause after each failure."""
        failures = 0
        while True:
            began = anyio.current_time()
            try:
                async with self._connected() as connection:
                    await serve(connection)
            except Exception as error:
                if failures == 0:
                    logger.warning("the connection to %s is lost: %r", self._address, error)
            failures = 0 if anyio.current_time() - began > BACK_OFF[1] else failures + 1
            shortest, longest = BACK_OFF
            await anyio.sleep(uniform(0.5, 1) * min(longest, shortest * 2 ** min(failures, 8)))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[TCPConnection]:
        async with anyio.create_task_group() as tasks:
            connection = self._address.connection()
            try:
                with anyio.fail_after(CONNECT_SECONDS + REPLY_SECONDS):
                    await tasks.start(connection.run)
                yield connection
            finally:
                _close_streams(connection)
                tasks.cancel_scope.cancel()

    # ---- receiving

    async def _receive(self, connection: TCPConnection) -> None:
        wanted = [self._inbox, *self._followed]
        connection.send_command(b"SUBSCRIBE", *wanted)
        self._receiving = connection
        messages: Any = connection.push_messages
        try:
            while True:
                with anyio.fail_after(SILENCE_SECONDS):
                    kind, channel, content, *_ = await anext(messages)
                self._take(kind, channel.decode(), content)
        finally:
            if self._missing_since is None and self._inbox in self._subscribed:
                self._missing_since = self._heard_at
            self._receiving = None
            self._subscribed.clear()

    def _take(self, kind: bytes, channel: str, content: Any) -> None:
        self._heard_at = time.time()
        if kind == b"message" and channel != self._inbox:
            self._deliver(channel, content)
        elif kind == b"subscribe" and (channel in self._followed or channel == self._inbox):
            self._subscribed.add(channel)
            if self._missing_since is not None and self._subscribed.issuperset(self._followed):
                self._end_window()
            self._changes.notify()

    def _end_window(self) -> None:
        since, self._missing_since = self._missing_since, None
        assert since is not None
        self._may_send_at = anyio.current_time() + SETTLING_SECONDS
        logger.warning("events of %.1f seconds may be lost", time.time() - since)
        for realm in self._realms.values():
            realm.lose_window("", since, time.time())

    def _deliver(self, channel: str, content: bytes) -> None:
        try:
            node, number, frames = _decode(content)
            uri = channel[len(self._prefix) + 2 : channel.rindex(".s")]
            realm = self._realms[uri]
            for frame in frames:
                with suppress(SerializationError):  # nobody here can receive it
                    realm.deliver(unpacked(frame))
        except Exception:
            logger.exception("what came in %r can't be delivered", channel)
            return
        batch = self._travelling.pop(number, None) if node == self._node else None
        if batch is not None:
            batch.delivered.set()

    async def _probe(self) -> None:
        """Prove that messages arrive, by messages to oneself."""
        while True:
            await anyio.sleep(PROBE_SECONDS)
            connection = self._sending
            if connection is not None and connection.usable:
                connection.create_request(b"PUBLISH", self._inbox, b"", timeout=REPLY_SECONDS)

    # ---- sending

    async def _send(self, connection: TCPConnection) -> None:
        self._sending = connection
        self._changes.notify()
        try:
            while True:
                await self._changes.wait_until(self._has_something_to_send)
                await anyio.sleep_until(self._may_send_at)
                batches, self._open = self._open, {}
                requests = [
                    (batch, self._sent(connection, channel, batch))
                    for channel, batch in batches.items()
                    if batch.frames
                ]
                for batch, request in requests:
                    await self._answered(batch, request)
        finally:
            self._sending = None

    def _has_something_to_send(self) -> bool:
        return bool(self._open) and self._inbox in self._subscribed

    def _sent(self, connection: TCPConnection, channel: str, batch: _Batch) -> Any:
        if channel in self._subscribed:
            self._travelling[batch.number] = batch
        content = _encode((self._node, batch.number, batch.frames))
        request = connection.create_request(b"PUBLISH", channel, content, timeout=REPLY_SECONDS)
        batch.sent.set()
        return request

    async def _answered(self, batch: _Batch, request: Any) -> None:
        try:
            await request
        except RedisError as error:  # it was refused, for example for want of a permission
            batch.failure = BackplaneUnavailable(f"the backplane refuses publications: {error}")
        except BaseException:
            batch.failure = BackplaneOutcomeUnknown("the backplane doesn't answer")
            raise
        finally:
            batch.answered.set()
            if batch.failure is not None:
                self._travelling.pop(batch.number, None)


def _close_streams(connection: TCPConnection) -> None:
    """Close what a connection of coredis leaves open when it can't connect."""
    for value in vars(connection).values():
        if isinstance(value, (MemoryObjectSendStream, MemoryObjectReceiveStream)):
            value.close()


class _Batch:
    """Publications that travel together."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frames: list[bytes] = []
        self.size = 0
        self.failure: Exception | None = None
        self.sent = anyio.Event()
        self.answered = anyio.Event()
        self.delivered = anyio.Event()

    def add(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size += len(frame)

    def remove(self, frame: bytes) -> None:
        self.frames.remove(frame)
        self.size -= len(frame)


class _Address:
    """Where Redis is, and how to log in."""

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ConfigurationError("a backplane needs a URL such as redis://localhost:6379")
        self._location = TCPLocation(parts.hostname, parts.port or 6379)
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._ssl_context = ssl_context
        if parts.scheme == "rediss" and ssl_context is None:
            self._ssl_context = ssl.create_default_context()

    def __str__(self) -> str:
        return f"Redis at {self._location.host}:{self._location.port}"

    def connection(self) -> TCPConnection:
        return TCPConnection(
            self._location,
            connect_timeout=CONNECT_SECONDS,
            stream_timeout=REPLY_SECONDS,
            username=self._username,
            password=self._password,
            ssl_context=self._ssl_context,
        )
