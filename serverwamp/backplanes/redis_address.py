"""Where Redis is, and how to log in: from a URL to a connection.

Spec: Redis, "Sentinel client spec".
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import uniform
from typing import Any, Final
from urllib.parse import unquote

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import RedisError

from serverwamp.backplanes import timings
from serverwamp.concurrency.failures import handle_failure
from serverwamp.errors import BackplaneUnavailable, ConfigurationError

logger: logging.Logger = logging.getLogger(__name__)

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
EXAMPLES: Final = "redis://localhost:6379 or redis+sentinel://host1:26379,host2:26379/primary"


class RedisAddress:
    """The address of a Redis, or of the Sentinels that know it.

    Raises: ConfigurationError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        ssl_context: ssl.SSLContext | None,
        sentinel_password: str | None,
        *,
        connect_timeout: float,
        reply_timeout: float,
    ) -> None:
        scheme, _, rest = url.partition("://")
        transport, _, kind = scheme.partition("+")
        netloc, _, path = rest.partition("?")[0].partition("/")
        if transport not in ("redis", "rediss") or kind not in ("", "sentinel"):
            raise ConfigurationError(f"a backplane needs a URL such as {EXAMPLES}")
        login, _, hosts = netloc.rpartition("@")
        username, _, password = login.partition(":")
        self._username = unquote(username) or None
        self._password = unquote(password) or None
        self._sentinel_password = sentinel_password
        self._primary = path if kind else ""
        default_port = SENTINEL_PORT if kind else REDIS_PORT
        self._locations = [_location(host, default_port) for host in hosts.split(",")]
        if kind and not self._primary:
            raise ConfigurationError("the URL of Sentinels has to end with the primary's name")
        if not kind and len(self._locations) > 1:
            raise ConfigurationError("several hosts need the scheme redis+sentinel://")
        self._ssl_context = ssl_context
        if transport == "rediss" and ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        elif transport == "redis" and ssl_context is not None:
            raise ConfigurationError("an ssl_context needs a URL with rediss://")
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self.last_failure: str = "it doesn't answer"

    def __str__(self) -> str:
        places = ", ".join(f"{place.host}:{place.port}" for place in self._locations)
        return f"the Redis {self._primary!r} of {places}" if self._primary else f"Redis at {places}"

    @asynccontextmanager
    async def connected(
        self, processing_budget: anyio.CapacityLimiter
    ) -> AsyncIterator[TCPConnection]:
        """Connect and log in. `processing_budget` is what the connection needs to parse.

        Raises: RedisError; TimeoutError; OSError; BackplaneUnavailable if no Sentinel knows.
        """
        location = self._locations[0]
        if self._primary:
            location = await self._ask_sentinels()
        async with self._opened(
            location, self._username, self._password, processing_budget
        ) as connection:
            await self.check_role(connection)
            yield connection

    async def keep_connected(
        self, serve: Callable[[TCPConnection, anyio.CapacityLimiter], Awaitable[None]]
    ) -> None:
        """Serve one connection after the other, with a pause after each failure."""
        failures = 0

        async def note(error: BaseException) -> None:
            self.last_failure = _reason_of(error)
            if failures == 0:
                logger.warning("no connection to %s: %s", self, self.last_failure)

        while True:
            connected_at, budget = math.inf, anyio.CapacityLimiter(1)
            try:
                async with self.connected(budget) as connection:
                    connected_at = anyio.current_time()
                    await serve(connection, budget)
            except BaseException as error:
                await handle_failure(error, note)
            shortest, longest = timings.BACK_OFF
            failures = 0 if anyio.current_time() - connected_at > longest else failures + 1
            await anyio.sleep(uniform(0.5, 1) * min(longest, shortest * 2 ** min(failures, 8)))

    async def check_role(self, connection: TCPConnection) -> None:
        """Check that a Redis that Sentinels have named is still the primary.

        Raises: BackplaneUnavailable.
        """
        if not self._primary:
            return
        with anyio.fail_after(self._reply_timeout):
            role: Any = await connection.create_request(b"ROLE")
        if role[0] != b"master":
            raise BackplaneUnavailable(f"{self} has moved")

    async def _ask_sentinels(self) -> TCPLocation:
        failure: Exception | None = None
        for place in list(self._locations):
            try:
                async with self._opened(
                    place, None, self._sentinel_password, anyio.CapacityLimiter(1)
                ) as sentinel:
                    with anyio.fail_after(self._reply_timeout):
                        answer: Any = await sentinel.create_request(
                            b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._primary
                        )
            except Exception as error:
                failure = error
                continue
            if answer:
                self._prefer(place)
                return TCPLocation(answer[0].decode(), int(answer[1]))
        raise BackplaneUnavailable(f"no Sentinel knows {self}") from failure

    def _prefer(self, place: TCPLocation) -> None:
        """Ask the Sentinel that has answered first the next time."""
        self._locations.remove(place)
        self._locations.insert(0, place)

    @asynccontextmanager
    async def _opened(
        self,
        location: TCPLocation,
        username: str | None,
        password: str | None,
        processing_budget: anyio.CapacityLimiter,
    ) -> AsyncIterator[TCPConnection]:
        async with anyio.create_task_group() as tasks:
            connection = TCPConnection(
                location,
                connect_timeout=self._connect_timeout,
                stream_timeout=self._reply_timeout,
                username=username,
                password=password,
                ssl_context=self._ssl_context,
                processing_budget=processing_budget,
            )
            try:
                with anyio.fail_after(self._connect_timeout + self._reply_timeout):
                    await tasks.start(connection.run)
                yield connection
            finally:
                _close_streams(connection)
                tasks.cancel_scope.cancel()


def _location(host: str, default_port: int) -> TCPLocation:
    name, separator, port = host.rpartition(":")
    if not separator or host.endswith("]"):  # an IPv6 address without a port
        name, port = host, str(default_port)
    name = name.removeprefix("[").removesuffix("]")
    if not name or not port.isdecimal():
        raise ConfigurationError(f"a backplane needs a URL such as {EXAMPLES}")
    return TCPLocation(name, int(port))


def _close_streams(connection: TCPConnection) -> None:
    """Close what a connection of coredis leaves open when it can't connect."""
    for value in vars(connection).values():
        if isinstance(value, (MemoryObjectSendStream, MemoryObjectReceiveStream)):
            value.close()


def _reason_of(error: BaseException) -> str:
    """Return the cause of a lost connection as a text for the log."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, RedisError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
