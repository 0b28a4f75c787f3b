"""Runs scripts in Redis, over a connection of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
from coredis.connection import TCPConnection
from coredis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, RedisError
from coredis.exceptions import ConnectionError as ConnectionLost

from serverwamp.backplanes import timings
from serverwamp.backplanes.redis_scripts import Script
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    BackplaneOutcomeUnknown,
    BackplaneUnavailable,
)


class ScriptRunner:
    """Runs scripts over a connection of its own."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._connection: TCPConnection | None = None
        self._is_silent = False

    async def serve(self, connection: TCPConnection, _: anyio.CapacityLimiter) -> None:
        """Use a connection until it doesn't answer any more."""
        self._connection, self._is_silent = connection, False
        self._changes.notify()
        try:
            await self._changes.wait_until(lambda: self._is_silent)
        finally:
            self._connection = None

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes],
        *,
        is_repeatable: bool = True,
    ) -> Any:
        """Run a script and return its answer. If there is none, run it once more if it may be.

        Raises: BackplaneUnavailable when it was not sent, or refused; BackplaneOutcomeUnknown when
            there is no answer.
        """
        is_sent = False
        with anyio.move_on_after(timings.ACCEPT_SECONDS + timings.REPLY_SECONDS):
            while not is_sent or is_repeatable:
                is_repeatable &= not is_sent
                connection = await self._connected()
                if connection is None:
                    break
                try:
                    request = _request(connection, b"EVALSHA", script.sha, keys, args)
                    is_sent = True
                    return await self._answer(connection, request, script, keys, args)
                except BusyLoadingError as error:
                    raise BackplaneUnavailable(f"the backplane refuses: {error}") from error
                except (ConnectionLost, TimeoutError, ReadOnlyError) as error:
                    is_sent &= not isinstance(error, ReadOnlyError)  # it was the primary once
                    if self._connection is connection:
                        self._is_silent = True
                        self._connection = None
                        self._changes.notify()
                except RedisError as error:
                    text = f"the backplane refuses: {error}"
                    raise BackplaneUnavailable(text) from error
        if is_sent:
            raise BackplaneOutcomeUnknown("the backplane doesn't answer")
        raise BackplaneUnavailable("the backplane can't be reached")

    async def _connected(self) -> TCPConnection | None:
        if self._connection is not None:
            return self._connection
        with anyio.move_on_after(timings.ACCEPT_SECONDS):
            await self._changes.wait_until(lambda: self._connection is not None)
        return self._connection

    async def _answer(
        self,
        connection: TCPConnection,
        request: Any,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes],
    ) -> Any:
        try:
            return await request
        except NoScriptError:  # since Redis was started nobody has run it
            return await _request(connection, b"EVAL", script.source, keys, args)


def _request(
    connection: TCPConnection,
    command: bytes,
    script: bytes,
    keys: Sequence[str],
    args: Sequence[str | bytes],
) -> Any:
    return connection.create_request(
        command, script, len(keys), *keys, *args, timeout=timings.REPLY_SECONDS
    )
