"""Publishes in a realm from outside: from scripts, task queues and cron jobs."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal, start_blocking_portal

from serverwamp.backplanes import timings
from serverwamp.backplanes.base import Backplane, NodeEvents
from serverwamp.backplanes.redis import RedisBackplane
from serverwamp.backplanes.running import running
from serverwamp.backplanes.topics import TopicRules
from serverwamp.errors import SerializationError, Unavailable
from serverwamp.history import HistoryReader, Log
from serverwamp.limits import Limits
from serverwamp.patterns import RouteTable
from serverwamp.publication import Publication, publication_to


class Publisher:
    """Publishes events to the subscribers of a realm, without a server.

    Use it as an async context manager: entering it connects to Redis.

    Arguments:
        url: the URL of the Redis that the application uses; see `RedisBackplane`.
        realm: the URI of the realm; None for the default realm of the application.
        prefix: the prefix of the application.
        ssl_context: verifies TLS, for example with your own certificate authority.
        sentinel_password: the password of the Sentinels, if they have one.
        start_timeout: how many seconds connecting may take.

    Raises: ConfigurationError for an invalid URL; when entered, BackplaneUnavailable if Redis can't
    be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        realm: str | None = None,
        prefix: str = "serverwamp",
        ssl_context: ssl.SSLContext | None = None,
        sentinel_password: str | None = None,
        start_timeout: float = 10.0,
    ) -> None:
        self._backplane = RedisBackplane(
            url,
            prefix=prefix,
            ssl_context=ssl_context,
            sentinel_password=sentinel_password,
            start_timeout=start_timeout,
        )
        self._realm = _Outside(realm)
        self._running: AbstractAsyncContextManager[TaskGroup] | None = None

    async def __aenter__(self) -> Publisher:
        self._running = running(self._backplane, self._realm)
        tasks = await self._running.__aenter__()
        try:
            self._realm.learn(await self._backplane.topics_of(self._realm), self._backplane)
            tasks.start_soon(self._keep_learning)
        except BaseException:
            if not await self._running.__aexit__(*sys.exc_info()):
                raise
        return self

    async def _keep_learning(self) -> None:
        """Notice when the application is deployed with other topic routes."""
        while True:
            await anyio.sleep(timings.TOPICS_SECONDS)
            with suppress(Unavailable):
                self._realm.learn(await self._backplane.topics_of(self._realm), self._backplane)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._running is not None
        return await self._running.__aexit__(kind, error, traceback)

    async def publish(
        self,
        topic: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        exclude: Iterable[int] | int = (),
        eligible: Iterable[int] | int | None = None,
        exclude_authid: Iterable[str] | str = (),
        eligible_authid: Iterable[str] | str | None = None,
        exclude_authrole: Iterable[str] | str = (),
        eligible_authrole: Iterable[str] | str | None = None,
    ) -> int:
        """Publish an event; return its id when Redis has accepted it.

        The arguments are those of `Realm.publish`; sessions are named by their ids.

        Raises: BackplaneUnavailable if the event was not sent; BackplaneOutcomeUnknown if it may
        have been sent; ValueError when `topic` is invalid or reserved for the protocol, and when no
        serialization format can express the arguments.
        """
        publication = publication_to(
            topic,
            args,
            kwargs,
            exclude=exclude,
            eligible=eligible,
            exclude_authid=exclude_authid,
            eligible_authid=eligible_authid,
            exclude_authrole=exclude_authrole,
            eligible_authrole=eligible_authrole,
        )
        try:
            await self._backplane.publish(self._realm, publication)
        except SerializationError as failure:
            raise ValueError(
                f"no format can express the event of {topic!r}: {failure}"
            ) from failure
        return publication.id


class BlockingPublisher:
    """A `Publisher` for programs without an event loop; its arguments are the same.

    Use it as a context manager. An event loop then runs in a thread of its own. Any thread may
    publish.

    Raises: what `Publisher` raises.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._publisher = Publisher(url, **options)
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> BlockingPublisher:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            stack.enter_context(portal.wrap_async_context_manager(self._publisher))
            self._portal, self._stack = portal, stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._portal = None
        return self._stack.__exit__(kind, error, traceback)

    def publish(
        self,
        topic: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> int:
        """Publish an event; return its id when Redis has accepted it. See `Publisher.publish`.

        Raises: what `Publisher.publish` raises; RuntimeError outside of the ``with`` block.
        """
        if self._portal is None:
            raise RuntimeError("a BlockingPublisher publishes only inside its with block")
        return self._portal.call(partial(self._publisher.publish, topic, args, kwargs, **options))


class _Outside(NodeEvents):
    """A realm without subscribers, seen from a program that only publishes."""

    has_stores = False
    topics: Sequence[TopicRules] = ()
    limits = Limits()

    def __init__(self, uri: str | None) -> None:
        self.uri = uri
        self._logs: RouteTable[tuple[Log | None]] = RouteTable()

    def deliver(self, publication: Publication) -> None:
        pass

    def receive(self, publication: Publication) -> None:
        pass

    def learn(self, topics: Sequence[TopicRules], backplane: Backplane) -> None:
        """Note the topic routes of which the processes of the realm have told."""
        if topics == self.topics:
            return
        self.topics, self._logs = topics, RouteTable()
        for topic in topics:
            log = None
            if topic.history is not None:
                log = backplane.new_log(self, topic.name, topic.history)
            self._logs.add(topic.uri, topic.kind, (log,))

    def log_of(self, topic: str) -> Log | None:
        found = self._logs.resolve(topic)
        return None if found is None else found[0]

    def serves_topic(self, topic: str) -> bool:
        return self._logs.resolve(topic) is not None

    def lose_window(self, since: float, until: float, history: HistoryReader | None = None) -> None:
        pass
