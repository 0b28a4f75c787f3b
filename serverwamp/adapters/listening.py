"""Listen on TCP ports and Unix sockets, and accept connections."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NoReturn, Protocol, TypeAlias, cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

logger: logging.Logger = logging.getLogger(__name__)

Serve: TypeAlias = Callable[[ByteStream], Coroutine[Any, Any, None]]

CHUNK: Final = 64 * 1024
"""How many bytes are read at once."""
BACKLOG: Final = 4096
"""How many connections may wait to be accepted. The operating system has its own limit."""
REST_SECONDS: Final = 0.1
"""How long to wait before accepting connections again after accepting one failed."""


class Listening(Protocol):
    """A listener, which accepts connections."""

    async def accept(self) -> ByteStream:
        """Wait for the next connection, and return it."""
        ...


@asynccontextmanager
async def listening(
    host: str, port: int | None, path: str | os.PathLike[str] | None
) -> AsyncIterator[tuple[Sequence[Listening], int | str]]:
    """Listen on a TCP port or a Unix socket while the block runs.

    If `port` is None, the system chooses a free port.
    """
    if path is not None:
        with UnixListener(os.fspath(path)) as unix:
            yield [unix], os.fspath(path)
    else:
        tcp = await anyio.create_tcp_listener(local_host=host, local_port=port or 0)
        async with tcp:
            listeners = cast("Sequence[Listening]", tcp.listeners)
            yield listeners, tcp.extra(SocketAttribute.local_port)


async def accept_all(listeners: Sequence[Listening], serve: Serve) -> NoReturn:
    """Accept connections, and run `serve` for each in a separate task, until this is cancelled."""
    async with anyio.create_task_group() as tasks:
        for listener in listeners[1:]:
            tasks.start_soon(_accept, listener, serve, tasks)
        await _accept(listeners[0], serve, tasks)
    raise AssertionError("accepting connections has ended")


async def _accept(listener: Listening, serve: Serve, tasks: TaskGroup) -> NoReturn:
    while True:
        try:
            stream = await listener.accept()
        except (OSError, anyio.BrokenResourceError) as error:
            # For example, the process has too many open files. Later connections may succeed.
            logger.error("no connection can be accepted: %s", error.__cause__ or error)
            await anyio.sleep(REST_SECONDS)
        else:
            tasks.start_soon(serve, stream)


class UnixListener:
    """Listens on a Unix socket. (The listener of anyio logs an error on asyncio when cancelled.)"""

    def __init__(self, path: str) -> None:
        self._path = path
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(path).st_mode):  # left by a killed process
                os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)

    def __enter__(self) -> UnixListener:
        try:
            self._socket.bind(self._path)
            self._socket.listen(BACKLOG)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._path)

    async def accept(self) -> ByteStream:
        """Wait for the next connection, and return it."""
        while True:
            await anyio.wait_readable(self._socket)
            with suppress(BlockingIOError):
                return UnixStream(self._socket.accept()[0])


class UnixStream(ByteStream):
    """A connection over a Unix socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The attributes of the socket, for `extra`."""
        return {
            SocketAttribute.family: lambda: self._socket.family,
            SocketAttribute.local_address: self._socket.getsockname,
            SocketAttribute.raw_socket: lambda: self._socket,
        }

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Return the next bytes.

        Raises: EndOfStream when the client has closed its side.
        """
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
            else:
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Send all of `item`."""
        await anyio.lowlevel.checkpoint()
        left = memoryview(item)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """Close the sending side."""
        self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()
        await anyio.lowlevel.checkpoint()
