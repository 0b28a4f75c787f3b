"""A backplane over Redis or Valkey.

It has three connections, and replaces each of them when it breaks: one sends, one receives, and one
runs the scripts for what is stored (`serverwamp.backplanes.redis_stored`). Only the connection
class of coredis is used. Publications that wait for the same channel travel in one PUBLISH.

A process subscribes to the channels of the topics that have subscribers in it, and to all channels
of a realm while it has a subscriber to a pattern.

One module, because sending depends on what is received.

Spec: Redis, "Pub/sub" and "RESP3".
"""

from __future__ import annotations

import logging
import math
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskStatus
from coredis.connection import TCPConnection
from coredis.exceptions import BusyLoadingError, ResponseError

from serverwamp.backplanes import timings
from serverwamp.backplanes.base import Backplane, BackplaneState, NodeEvents, RealmEvents
from serverwamp.backplanes.channels import Channels
from serverwamp.backplanes.envelope import packed, unpacked
from serverwamp.backplanes.outbox import Batch, Outbox
from serverwamp.backplanes.redis_address import RedisAddress
from serverwamp.backplanes.redis_stored import RETAINED_MARK, SCRIPTED, RedisStored
from serverwamp.backplanes.topics import TopicRules
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    BackplaneOutcomeUnknown,
    BackplaneUnavailable,
    Unavailable,
)
from serverwamp.history import History, HistoryReader, Log, StoredEvent
from serverwamp.protocol.ids import new_session_id
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, int, list[bytes]]).decode


class RedisBackplane(Backplane):
    """Carries publications over Redis or Valkey.

    Arguments:
        url: ``redis://user:password@host:port``, or ``rediss://`` for TLS. With Sentinels,
            ``redis+sentinel://user:password@host1:port,host2:port/primary``, where ``primary`` is
            the name that they give to the Redis; ``rediss+sentinel://`` for TLS. The user and the
            password are those of the Redis.
        prefix: the start of all names in Redis. Applications that share a Redis need different
            ones: database numbers don't separate publications.
        ssl_context: verifies TLS, for example with your own certificate authority.
        sentinel_password: the password of the Sentinels, if they have one.
        start_timeout: how many seconds the first connection may take.

    Raises: ConfigurationError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "serverwamp",
        ssl_context: ssl.SSLContext | None = None,
        sentinel_password: str | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self._address = RedisAddress(
            url,
            ssl_context,
            sentinel_password,
            connect_timeout=timings.CONNECT_SECONDS,
            reply_timeout=timings.REPLY_SECONDS,
        )
        self._channels = Channels(prefix)
        self._start_timeout = start_timeout
        self._node = f"{new_session_id():x}".encode()
        self._inbox = self._channels.of_node(self._node.decode())
        self._realms: dict[str, RealmEvents] = {}
        self._followed: Counter[str] = Counter()  # channels, and how many subscriptions need them
        self._changes = Changes()
        self._work = Changes()
        self._outbox = Outbox(self._work.notify)
        self._events: NodeEvents | None = None  # while it is open
        # receiving
        self._receiving: TCPConnection | None = None
        self._listening: anyio.CancelScope | None = None
        self._asked: Counter[str] = Counter()  # how many answers to SUBSCRIBE are awaited
        self._subscribed: set[str] = set()
        self._known_until = 0.0  # what was published before this time has arrived
        self._heard_at = -math.inf
        self._missing_since: float | None = None
        self._stored = RedisStored(
            self._channels, self._inbox, self._subscribed, self._changes, self._lose_history
        )
        self._has_logged_damage = False
        # sending
        self._sending: TCPConnection | None = None
        self._probes = 0  # how many have arrived
        self._may_send_at = -math.inf

    # ---- what the router asks for

    @property
    def state(self) -> BackplaneState:
        if self._events is None:
            return "closed"
        return "ready" if self._sending is not None and self._hears_everything else "reconnecting"

    def add_realm(self, realm: RealmEvents) -> None:
        self._realms[realm.uri or ""] = realm
        self._stored.realms.append(realm)

    async def publish(self, realm: RealmEvents, publication: Publication) -> None:
        frame = packed(publication)
        self._check_open()
        if self._stored.stores(realm, publication):
            if self._stored.log_of(realm, publication.topic) is None:
                await self._settle()
            await self._stored.publish(realm, publication, frame)
        else:
            channel = self._channels.of_topic(realm.uri, publication.topic)
            await self._outbox.publish(channel, frame)

    async def _settle(self) -> None:
        """Return when publications reach the other processes.

        Raises: BackplaneUnavailable when that takes too long.
        """
        with anyio.move_on_after(timings.ACCEPT_SECONDS):
            await self._changes.wait_until(lambda: self._hears_everything)
            await anyio.sleep_until(self._may_send_at)
            return
        raise BackplaneUnavailable("the backplane can't be reached")

    def post(self, realm: RealmEvents, publication: Publication) -> None:
        frame = packed(publication)
        try:
            self._check_open()
            self._outbox.post(self._channels.of_topic(realm.uri, publication.topic), frame)
        except BackplaneUnavailable as error:
            logger.warning("an event of %r is lost: %s", publication.topic, error.message)

    async def flush(self) -> None:
        await self._changes.wait_until(lambda: self._outbox.is_idle)

    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        self._check_open()
        channels = self._stored.channels_of(realm, topic, match)
        self._followed.update(channels)
        try:
            self._subscribe([channel for channel in channels if self._followed[channel] == 1])
            with anyio.fail_after(timings.ACCEPT_SECONDS):
                await self._changes.wait_until(
                    lambda: (
                        self._subscribed.issuperset(channels)
                        and not self._stored.is_behind(channels)
                    )
                )
        except BaseException as error:
            self.unfollow(realm, topic, match)
            if isinstance(error, TimeoutError):
                raise BackplaneUnavailable("the backplane can't be reached") from None
            raise

    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        channels = self._stored.channels_of(realm, topic, match)
        self._followed.subtract(channels)
        gone = [channel for channel in channels if not self._followed[channel]]
        for channel in gone:
            del self._followed[channel]
            self._subscribed.discard(channel)
            self._stored.note_unsubscribed(channel)
        if gone and self._receiving is not None and self._receiving.usable:
            self._receiving.send_command(b"UNSUBSCRIBE", *gone)

    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        return self._stored.new_log(realm, name, history)

    def retained(
        self, realm: RealmEvents, topic: str, then: Callable[[Sequence[StoredEvent]], None]
    ) -> Awaitable[None]:
        return self._stored.retained(realm, topic, then)

    async def topics_of(self, realm: RealmEvents) -> list[TopicRules]:
        """Return the topic routes that the processes of a realm have told.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown; ValueError when another version of
        serverwamp has told them.
        """
        return await self._stored.topics_of(realm)

    def _check_open(self) -> None:
        if self._events is None:
            raise BackplaneUnavailable(
                "the backplane isn't open: it is while the application's lifespan or"
                " Application.running() runs"
            )

    # ---- connections

    async def run(
        self, node: NodeEvents, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        self._events = node
        self._missing_since, self._known_until = None, 0.0
        self._heard_at = self._may_send_at = -math.inf
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._address.keep_connected, self._receive)
                tasks.start_soon(self._address.keep_connected, self._send)
                tasks.start_soon(self._address.keep_connected, self._stored.runner.serve)
                tasks.start_soon(self._stored.keep_filled)
                tasks.start_soon(self._expire)
                with anyio.move_on_after(self._start_timeout) as starting:
                    await self._changes.wait_until(
                        lambda: self._probes > 0 and self._stored.runner.is_connected
                    )
                reason = self._address.last_failure
                if starting.cancelled_caught:
                    tasks.cancel_scope.cancel()
                else:
                    task_status.started()
        finally:
            self._events, self._probes = None, 0
            self._outbox.close()
        if starting.cancelled_caught:
            raise BackplaneUnavailable(f"{self._address} can't be reached: {reason}")

    async def _expire(self) -> None:
        """Let publications fail that have waited for too long."""
        while True:
            await anyio.sleep(timings.EXPIRY_SECONDS)
            now = anyio.current_time()
            opened_before = now + timings.EXPIRY_SECONDS - timings.ACCEPT_SECONDS
            lost = self._outbox.expire(opened_before=opened_before, now=now)
            if lost:
                logger.warning("%d meta events are lost: the backplane can't be reached", lost)
            self._changes.notify()

    # ---- receiving

    @property
    def _hears_everything(self) -> bool:
        return self._inbox in self._subscribed and self._missing_since is None

    async def _receive(self, connection: TCPConnection, budget: anyio.CapacityLimiter) -> None:
        self._receiving = connection
        self._known_until = self._known_until or time.time()
        try:
            with anyio.CancelScope() as self._listening:
                messages: Any
                async with (
                    aclosing(connection.push_messages) as messages,
                    anyio.create_task_group() as tasks,
                ):
                    tasks.start_soon(self._raise_refusals, connection)
                    self._subscribe([self._inbox, *self._followed])
                    while True:
                        self._take(*await anext(messages))
                        if not connection.reusable:  # more has arrived
                            async with budget:  # nothing more is read until it has been handled
                                while connection.usable and not connection.reusable:
                                    self._take(*await anext(messages))
            raise BackplaneUnavailable("nothing arrives any more")
        finally:
            if self._missing_since is None and self._inbox in self._subscribed:
                self._missing_since = self._known_until
            self._receiving = None
            self._subscribed.clear()
            self._asked.clear()
            self._outbox.stop_waiting_for_copies()

    async def _raise_refusals(self, connection: TCPConnection) -> None:
        """Raise what Redis answers to SUBSCRIBE if it refuses it."""
        messages: Any
        async with aclosing(connection.streamed_messages) as messages:
            async for answer in messages:
                if isinstance(answer, BaseException):
                    raise answer

    def _subscribe(self, channels: list[str]) -> None:
        if channels and self._receiving is not None and self._receiving.usable:
            self._asked.update(channels)
            self._receiving.send_command(b"SUBSCRIBE", *channels)

    def _take(self, kind: bytes, channel: bytes, content: Any, *_: Any) -> None:
        self._heard_at = anyio.current_time()
        name = channel.decode()
        if kind == b"message" and name == self._inbox and content[:1] == RETAINED_MARK:
            self._stored.take_retained(content)
        elif kind == b"message" and name == self._inbox:
            self._known_until = max(self._known_until, float(content))
            self._probes += 1
            self._changes.notify()
        elif kind == b"message":
            self._deliver(name, content)
        elif kind == b"subscribe":
            self._asked[name] -= 1
            if not self._asked[name]:  # else it was taken back, and asked for again
                del self._asked[name]
                if name in self._followed or name == self._inbox:
                    self._subscribed.add(name)
                    self._stored.note_subscribed(name)
            if self._missing_since is not None and self._subscribed.issuperset(
                (self._inbox, *self._followed)
            ):
                self._end_window(self._missing_since)
            self._changes.notify()
            self._work.notify()

    def _end_window(self, since: float) -> None:
        self._missing_since = None
        self._known_until = time.time()
        self._may_send_at = anyio.current_time() + timings.SETTLING_SECONDS
        if self._events is not None:
            self._events.lose_window(since, self._known_until)

    def _lose_history(self, log: HistoryReader, since: float, until: float) -> None:
        if self._events is not None:
            self._events.lose_window(since, until, log)

    def _deliver(self, channel: str, content: bytes) -> None:
        """Deliver what has arrived. Whatever it is, listening goes on."""
        try:
            realm = self._realms[self._channels.realm_of(channel)]
            if content[:1] in SCRIPTED:
                self._stored.take(realm, channel, content)
                return
            node, number, frames = _decode(content)
        except Exception:
            self._log_damage(channel)
            return
        for frame in frames:
            try:
                realm.receive(unpacked(frame))
            except Exception:
                self._log_damage(channel)
        if node == self._node:
            self._outbox.deliver(number)

    def _log_damage(self, channel: str) -> None:
        if not self._has_logged_damage:
            self._has_logged_damage = True
            logger.exception("what has arrived in %r can't be delivered", channel)

    # ---- sending

    async def _send(self, connection: TCPConnection, budget: anyio.CapacityLimiter) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._probe, connection)
            self._sending = connection
            self._changes.notify()
            try:
                while True:
                    await self._work.wait_until(self._has_something_to_send)
                    if anyio.current_time() < self._may_send_at:
                        await anyio.sleep_until(self._may_send_at)
                    elif not connection.usable:
                        raise BackplaneUnavailable("the connection was closed")
                    else:
                        await self._send_batches(connection)
            finally:
                self._sending = None

    def _has_something_to_send(self) -> bool:
        return bool(self._outbox) and self._hears_everything

    async def _send_batches(self, connection: TCPConnection) -> None:
        sent = [
            (batch, self._request(connection, batch))
            for batch in self._outbox.take(anyio.current_time() + timings.REPLY_SECONDS)
        ]
        try:
            with anyio.fail_after(timings.REPLY_SECONDS):
                await self._check_role(connection)  # its answer comes after the others
                for batch, request in sent:
                    await self._answer(batch, request)
        finally:
            for batch, _ in sent:
                if not batch.is_accepted:
                    self._fail(batch, BackplaneOutcomeUnknown, "the backplane doesn't answer")
            self._changes.notify()

    def _request(self, connection: TCPConnection, batch: Batch) -> Awaitable[Any]:
        content = _encode((self._node, batch.number, batch.frames))
        return connection.create_request(b"PUBLISH", batch.channel, content)

    async def _answer(self, batch: Batch, request: Awaitable[Any]) -> None:
        try:
            await request
        except (ResponseError, BusyLoadingError) as error:  # for example for lack of a permission
            text = f"the backplane refuses publications: {error}"
            self._fail(batch, BackplaneUnavailable, text)
        else:
            self._outbox.accept(batch, has_copy=batch.channel in self._subscribed)

    def _fail(self, batch: Batch, kind: type[Unavailable], text: str) -> None:
        if batch.posted:
            logger.warning("%d meta events are lost: %s", batch.posted, text)
        self._outbox.fail(batch, kind, text)

    async def _probe(self, connection: TCPConnection) -> None:
        """Prove that messages arrive, by messages to oneself that take the way of publications.

        Raises: RedisError or TimeoutError when they aren't accepted.
        """
        while True:
            await self._changes.wait_until(lambda: self._inbox in self._subscribed)
            listening, arrived, sent_at = self._listening, self._probes, anyio.current_time()
            request = connection.create_request(b"PUBLISH", self._inbox, repr(time.time()))
            with anyio.fail_after(timings.REPLY_SECONDS):
                await request
            await self._check_role(connection)
            if listening is not None and listening is self._listening:
                await self._expect_probe(listening, arrived, sent_at)
            await anyio.sleep(timings.PROBE_SECONDS)

    async def _check_role(self, connection: TCPConnection) -> None:
        """Check that this Redis is still the one to which the other processes are connected.

        Raises: BackplaneUnavailable; then the connection that receives is replaced, too.
        """
        try:
            await self._address.check_role(connection)
        except BackplaneUnavailable:
            if self._listening is not None:
                self._listening.cancel()
            raise

    async def _expect_probe(
        self, listening: anyio.CancelScope, arrived: int, sent_at: float
    ) -> None:
        """Replace the connection that receives when a message to oneself doesn't arrive."""
        for seconds in (timings.DEAF_SECONDS, timings.LATE_SECONDS - timings.DEAF_SECONDS):
            with anyio.move_on_after(seconds):
                await self._changes.wait_until(lambda: self._probes > arrived)
                return
            if listening is not self._listening:
                return  # it has been replaced already
            if self._heard_at < sent_at:
                break  # nothing has arrived
        listening.cancel()
