"""Runs scripts in Redis, over a connection of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
from coredis.connection import TCPConnection
from coredis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, RedisError
from coredis.exceptions import ConnectionError as ConnectionLost

from serverwamp.backplanes import timings
from serverwamp.backplanes.redis_scripts import Script
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable


class ScriptRunner:
    """Runs scripts in the order in which they were asked for, also after a reconnection."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._connection: TCPConnection | None = None
        self.greet: Callable[[TCPConnection], None] = lambda connection: None
        """Called with each new connection, before anything else is sent."""
        self._jobs: dict[_Job, None] = {}  # those without an answer, the oldest first

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def serve(self, connection: TCPConnection, _: anyio.CapacityLimiter) -> None:
        """Use a connection until it doesn't answer any more."""
        self._connection = connection
        try:
            self.greet(connection)
            for job in self._jobs:
                if job.request is None:
                    job.send(connection)
            self._changes.notify()
            await self._changes.wait_until(lambda: self._connection is not connection)
        finally:
            if self._connection is connection:
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

        Raises: BackplaneUnavailable when it was not sent, or was refused; BackplaneOutcomeUnknown
        when there is no answer.
        """
        job = _Job(script, [len(keys), *keys, *args])
        self._jobs[job] = None
        try:
            with anyio.move_on_after(timings.ACCEPT_SECONDS + timings.REPLY_SECONDS):
                return await self._answer(job, is_repeatable=is_repeatable)
        finally:
            del self._jobs[job]
        if job.is_doubtful:
            raise BackplaneOutcomeUnknown("the backplane doesn't answer")
        raise BackplaneUnavailable("the backplane can't be reached")

    async def _answer(self, job: _Job, *, is_repeatable: bool) -> Any:
        """Return the answer to a job.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown.
        """
        while True:
            connection = await self._sent(job)
            was_doubtful, job.is_doubtful = job.is_doubtful, True
            try:
                return await job.request
            except NoScriptError:  # since Redis was started nobody has run it
                job.is_doubtful = was_doubtful
                job.knows_script = False
                job.request = None
            except (BusyLoadingError, ReadOnlyError):  # it was restarted, or was the primary once
                job.is_doubtful = was_doubtful
                self._give_up(connection, job)
            except (ConnectionLost, TimeoutError):
                self._give_up(connection, job)
                if was_doubtful or not is_repeatable:
                    raise BackplaneOutcomeUnknown("the backplane doesn't answer") from None
            except RedisError as error:
                if was_doubtful:
                    raise BackplaneOutcomeUnknown("the backplane doesn't answer") from error
                raise BackplaneUnavailable(f"the backplane refuses: {error}") from error

    async def _sent(self, job: _Job) -> TCPConnection:
        """Send a job; return over which connection.

        Raises: BackplaneUnavailable; BackplaneOutcomeUnknown.
        """
        connection = self._connection
        if job.request is None and connection is not None:
            job.send(connection)
            if job.request is None:
                self._give_up(connection, job)
        if job.request is None:
            with anyio.move_on_after(timings.ACCEPT_SECONDS):
                await job.sent.wait()
        if job.request is None:
            if job.is_doubtful:
                raise BackplaneOutcomeUnknown("the backplane doesn't answer")
            raise BackplaneUnavailable("the backplane can't be reached")
        assert job.connection is not None
        return job.connection

    def _give_up(self, connection: TCPConnection, job: _Job) -> None:
        """Have a connection replaced, over which a job will be sent again."""
        job.request, job.sent = None, anyio.Event()
        if self._connection is connection:
            self._connection = None
            self._changes.notify()


class _Job:
    """A script that is to be run."""

    def __init__(self, script: Script, args: Sequence[str | bytes | int]) -> None:
        self._script = script
        self._args = args
        self.knows_script: bool = True
        """Whether Redis knows the script by its hash."""
        self.is_doubtful: bool = False
        """Whether it was sent, and perhaps run."""
        self.connection: TCPConnection | None = None
        self.request: Any = None
        self.sent: anyio.Event = anyio.Event()

    def send(self, connection: TCPConnection) -> None:
        """Send it, unless the connection is closed."""
        script = self._script
        command = (b"EVALSHA", script.sha) if self.knows_script else (b"EVAL", script.source)
        try:
            self.request = connection.create_request(
                *command, *self._args, timeout=timings.REPLY_SECONDS
            )
        except ConnectionLost:
            return
        self.connection = connection
        self.sent.set()
