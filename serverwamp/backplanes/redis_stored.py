"""What a backplane stores in Redis: the histories and the retained events of its realms.

Everything that is stored is published by the same script, so there is one order.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import anyio
import msgspec
from coredis.connection import TCPConnection
from coredis.exceptions import AuthorizationError

from serverwamp.backplanes import timings
from serverwamp.backplanes.base import RealmEvents
from serverwamp.backplanes.channels import Channels
from serverwamp.backplanes.envelope import (
    packed_without_payload,
    unpacked,
    unpacked_event,
)
from serverwamp.backplanes.outbox import MOST_BYTES, MOST_WAITING
from serverwamp.backplanes.redis_history import EPOCH, NoteLost, StreamLog, entry_id
from serverwamp.backplanes.redis_runner import ScriptRunner
from serverwamp.backplanes.redis_scripts import PUBLISH, RETAINED, TOPICS
from serverwamp.backplanes.retained import MOST_OF_A_TOPIC
from serverwamp.backplanes.topics import TopicRules, told, understood
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    BackplaneUnavailable,
    ConfigurationError,
    Unavailable,
)
from serverwamp.history import (
    OVERHEAD,
    History,
    Log,
    StoredEvent,
    may_be_stored,
)
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 0.1
"""How long to wait before what was missed is read again."""
SCRIPTED: Final = (b"h", b"k")
"""How messages begin that the script PUBLISH sends: with a history, and without."""
RETAINED_MARK: Final = b"r"
"""How messages begin that the script RETAINED sends."""


class RedisStored:
    """The histories and the retained events of the realms of a backplane.

    `subscribed` are the channels from which this process receives. `note_lost` is called when
    events of a history were missed and can't be read any more.
    """

    def __init__(
        self,
        channels: Channels,
        inbox: str,
        subscribed: Collection[str],
        changes: Changes,
        note_lost: NoteLost,
    ) -> None:
        self._channels = channels
        self._inbox = inbox
        self._subscribed = subscribed
        self._changes = changes
        self._note_lost = note_lost
        self._waiting = 0
        self.realms: list[RealmEvents] = []
        """The realms that this process serves."""
        self.runner: ScriptRunner = ScriptRunner(changes)
        self.runner.greet = self._tell_topics
        self._logs: dict[str, dict[str, StreamLog]] = defaultdict(dict)  # by channel and name
        self._awaited: dict[str, Callable[[list[bytes]], None]] = {}  # by tokens
        self._tokens = 0

    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        """Return the history of a topic route.

        Raises: ConfigurationError when it has a store of its own.
        """
        if history.store is not None:
            raise ConfigurationError(
                f"{name}: a store of your own can't be combined with a shared backplane"
            )
        channel = self._channels.of_topic(realm.uri, name)
        log = StreamLog(realm, name, history, channel, self.runner, self._note_lost)
        self._logs[channel][log.name] = log
        return Log(log)

    def log_of(self, realm: RealmEvents, topic: str) -> StreamLog | None:
        """Return the history of a topic; None if it has none."""
        log = realm.log_of(topic)
        return log.reader if log is not None and isinstance(log.reader, StreamLog) else None

    def channels_of(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> list[str]:
        """Return the channels that may have events of a topic or pattern.

        All topics of a route with a history share a channel, so that their events have one order.
        """
        log = self.log_of(realm, topic) if match == "exact" else None
        if log is not None:
            return [log.channel]
        return self._channels.of_subscription(realm.uri, topic, match)

    def stores(self, realm: RealmEvents, publication: Publication) -> bool:
        """Tell whether a publication is stored, so that `publish` has to publish it."""
        return realm.log_of(publication.topic) is not None or _is_retained(realm, publication)

    # ---- topics, for publishers outside

    def _tell_topics(self, connection: TCPConnection) -> None:
        for realm in self.realms:
            connection.create_request(b"SET", self._topics_key(realm), told(realm.topics))

    def _topics_key(self, realm: RealmEvents) -> str:
        return f"{self._channels.of_realm(realm.uri)}:topics"

    async def topics_of(self, realm: RealmEvents) -> list[TopicRules]:
        """Return the topic routes that the processes of a realm have told.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown; ValueError when another version of
        serverwamp has told them.
        """
        try:
            content = await self.runner.run(TOPICS, [self._topics_key(realm)], [])
        except BackplaneUnavailable as error:
            if not isinstance(error.__cause__, AuthorizationError):
                raise
            logger.warning("histories are unknown: this user of Redis may not run scripts")
            return []
        return understood(content) if content else []

    # ---- publishing

    async def publish(self, realm: RealmEvents, publication: Publication, frame: bytes) -> None:
        """Store and publish an event; return when this process has delivered its own copy.

        Raises: BackplaneUnavailable, BackplaneOutcomeUnknown.
        """
        if len(frame) > MOST_BYTES:
            raise BackplaneUnavailable(f"a publication of {len(frame)} bytes is too long")
        if self._waiting >= MOST_WAITING:
            raise BackplaneUnavailable("too many publications wait to be sent")
        self._waiting += 1
        try:
            await self._publish(realm, publication, frame)
        finally:
            self._waiting -= 1

    async def _publish(self, realm: RealmEvents, publication: Publication, frame: bytes) -> None:
        topic, asked, keys = publication.topic, dict[str, Any](), list[str]()
        size = OVERHEAD + len(frame)
        log = self.log_of(realm, topic)
        if log is not None:
            asked["history"] = log.asked_to_append(size)
            keys += log.keys
        if _is_retained(realm, publication):
            asked["retained"] = self._asked_to_retain(realm, publication, size)
            keys += self._retained_keys(realm, topic)
        asked["publication"] = str(publication.id)
        kept = b"" if may_be_stored(publication) else packed_without_payload(publication)
        if log is None:
            channel = self._channels.of_topic(realm.uri, topic)
            await self._publish_retained(channel, asked, keys, frame)
            return
        asked["channel"] = log.channel
        args = [msgspec.json.encode(asked), frame, kept]
        epoch, id_ = await self.runner.run(PUBLISH, keys, args)
        log.note_epoch(epoch.decode())
        if log.channel in self._subscribed:
            with anyio.move_on_after(timings.REPLY_SECONDS):  # else it is read later
                await log.wait_delivered(epoch.decode(), entry_id(id_))

    async def _publish_retained(
        self, channel: str, asked: dict[str, Any], keys: Sequence[str], frame: bytes
    ) -> None:
        """Publish an event that is retained and has no history."""
        delivered = anyio.Event()
        token = self._new_token(lambda _: delivered.set())
        asked |= {"channel": channel, "header": f"k{token}"}
        try:
            args = [msgspec.json.encode(asked), frame, b""]
            await self.runner.run(PUBLISH, keys, args, is_repeatable=False)
            if channel in self._subscribed:
                with anyio.move_on_after(timings.REPLY_SECONDS):  # else it is in a lost window
                    await delivered.wait()
        finally:
            self._awaited.pop(token, None)

    def _new_token(self, then: Callable[[list[bytes]], None]) -> str:
        self._tokens += 1
        token = f"{self._inbox}:{self._tokens}"
        self._awaited[token] = then
        return token

    def _asked_to_retain(
        self, realm: RealmEvents, publication: Publication, size: int
    ) -> dict[str, Any]:
        limits = realm.limits
        asked = {
            "topic": publication.topic,
            "prefix": self._retained_prefix(realm),
            "restricted": publication.audience is not None,
            "most": MOST_OF_A_TOPIC,
            "size": size,
        }
        bounds = {"topics": limits.retained_topics, "bytes": limits.retained_bytes}
        return asked | {name: value for name, value in bounds.items() if value != math.inf}

    def _retained_prefix(self, realm: RealmEvents) -> str:
        return f"{self._channels.of_realm(realm.uri)}:k:"

    def _retained_keys(self, realm: RealmEvents, topic: str) -> list[str]:
        own = self._channels.of_realm(realm.uri)
        return [self._retained_prefix(realm) + topic, f"{own}:retained", f"{own}:sizes"]

    # ---- reading retained events

    async def retained(
        self,
        realm: RealmEvents,
        topic: str,
        then: Callable[[Sequence[StoredEvent]], None],
    ) -> None:
        """Call `then` with the retained events of a topic, the newest first.

        It is called when everything that was published before them has been delivered here, and
        nothing that was published after them.

        Raises: BackplaneUnavailable when they don't arrive.
        """
        arrived = anyio.Event()
        failures: list[Exception] = []

        def take(frames: list[bytes]) -> None:
            arrived.set()
            try:
                then(_readable(topic, frames))
            except Exception as error:  # it concerns the caller, and not who receives
                failures.append(error)

        log, token = self.log_of(realm, topic), self._new_token(take)
        try:
            with anyio.move_on_after(timings.ACCEPT_SECONDS + timings.REPLY_SECONDS):
                await self._changes.wait_until(
                    lambda: self._inbox in self._subscribed and not (log and log.is_behind)
                )
                key = self._retained_prefix(realm) + topic
                await self.runner.run(RETAINED, [key], [self._inbox, token])
                with anyio.move_on_after(timings.REPLY_SECONDS):
                    await arrived.wait()
        finally:
            self._awaited.pop(token, None)
        if failures:
            raise failures[0]
        if not arrived.is_set():
            raise BackplaneUnavailable("the retained events don't arrive")

    def take_retained(self, content: bytes) -> None:
        """Take what the script RETAINED has sent to the inbox."""
        header, _, rest = content.partition(b"\n")
        then = self._awaited.pop(header[1:].decode(), None)
        if then is None:
            return
        frames: list[bytes] = []
        while rest:
            length, _, rest = rest.partition(b":")
            frames.append(rest[: int(length)])
            rest = rest[int(length) :]
        then(frames)

    # ---- receiving

    def take(self, realm: RealmEvents, channel: str, content: bytes) -> None:
        """Take what the script PUBLISH has published."""
        header, _, frame = content.partition(b"\n")
        if header[:1] == b"k":
            try:
                realm.receive(unpacked(frame))
            finally:
                then = self._awaited.pop(header[1:].decode(), None)
                if then is not None:
                    then([])
            return
        epoch, before, id_, name = header[1:].split(b" ")
        log = self._logs[channel].get(name.decode())
        if log is None:  # another version of the application has this history
            realm.receive(unpacked(frame))
            return
        if channel not in self._subscribed:  # nobody here wants it any more
            return
        log.take(epoch.decode(), entry_id(before), entry_id(id_), frame)
        if log.is_behind:
            self._changes.notify()

    def note_subscribed(self, channel: str) -> None:
        """Take note that this process receives from a channel, perhaps after an interruption."""
        for log in self._logs.get(channel, {}).values():
            log.is_behind = True

    def note_unsubscribed(self, channel: str) -> None:
        """Take note that this process doesn't want what is published to a channel."""
        for log in self._logs.get(channel, {}).values():
            log.forget()

    def is_behind(self, channels: Collection[str]) -> bool:
        """Tell whether events of these channels are still to be read."""
        return any(
            log.is_behind for channel in channels for log in self._logs.get(channel, {}).values()
        )

    async def keep_filled(self) -> None:
        """Read what was missed, as long as this runs."""
        while True:
            await self._changes.wait_until(lambda: self.is_behind(self._logs))
            async with anyio.create_task_group() as tasks:
                for logs in self._logs.values():
                    for log in logs.values():
                        if log.is_behind:
                            tasks.start_soon(self._fill, log)

    async def _fill(self, log: StreamLog) -> None:
        try:
            await log.fill()
        except Unavailable as error:
            logger.debug("what was missed of %r can't be read yet: %s", log.name, error)
            await anyio.sleep(RETRY_SECONDS)
        finally:
            self._changes.notify()


def _is_retained(realm: RealmEvents, publication: Publication) -> bool:
    return (
        publication.retain and may_be_stored(publication) and realm.serves_topic(publication.topic)
    )


def _readable(topic: str, frames: Sequence[bytes]) -> list[StoredEvent]:
    events = []
    for frame in frames:
        try:
            events.append(unpacked_event(frame, EPOCH))
        except Exception:  # written by another version
            logger.exception("a retained event of %r can't be read", topic)
    return events
