"""The state that an application's connections share: limits, sessions and shutdown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import uniform
from types import MappingProxyType
from typing import Any

import anyio

from serverwamp.limits import Limits
from serverwamp.peer.conversation import SHUTTING_DOWN
from serverwamp.protocol.serializers import Serializer, serializer_for
from serverwamp.protocol.shapes import ShapeLimits
from serverwamp.router.router import RealmRouter
from serverwamp.serving.connection import Connection
from serverwamp.serving.handshake import HandshakeRefused
from serverwamp.session import Session
from serverwamp.statistics import Counters, Statistics

logger: logging.Logger = logging.getLogger(__name__)


class Server:
    """The connections of an application, and their sessions.

    `router_for` returns the router of the realm that a client joins when it names a URI in HELLO;
    None refuses the client.
    """

    def __init__(
        self,
        limits: Limits,
        router_for: Callable[[str | None], RealmRouter | None],
        *,
        debug: bool,
        synchronize_requests: bool,
    ) -> None:
        self.limits: Limits = limits
        self.router_for: Callable[[str | None], RealmRouter | None] = router_for
        self.debug: bool = debug
        self.synchronize_requests: bool = synchronize_requests
        self.counters: Counters = Counters()
        self.connections: set[Connection] = set()
        """The connections that are served, including those without an open session."""
        self._sessions: dict[int, Session] = {}
        self.sessions: Mapping[int, Session] = MappingProxyType(self._sessions)
        """The open sessions of all realms, by id."""
        self._connected = 0
        self._goodbyes: list[bool] = []  # for each running drain, whether it sends GOODBYE
        self._shape = ShapeLimits(
            message_depth=limits.message_depth,
            array_length=limits.array_length,
            map_length=limits.map_length,
            uri_length=limits.uri_length,
            message_values=limits.message_values,
        )

    def serializer_for(self, subprotocol: str) -> Serializer:
        """Return a serializer for `subprotocol` that enforces the limits."""
        return serializer_for(subprotocol, self._shape)

    # ---- connections

    def check_admission(self) -> None:
        """Check that another connection may be opened.

        Raises: HandshakeRefused.
        """
        if self.is_draining:
            raise HandshakeRefused(SHUTTING_DOWN, status=503)
        count = self._connected - len(self._sessions)
        if count >= self.limits.unauthenticated_sessions:
            self.counters.violations["unauthenticated_sessions"] += 1
            raise HandshakeRefused(
                f"Limits.unauthenticated_sessions: {count} connections have no session", status=503
            )

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a connection while the block runs."""
        self._connected += 1
        try:
            yield
        finally:
            self._connected -= 1

    # ---- sessions

    def admit(self, session: Session) -> None:
        """Add a session to the open sessions."""
        self._sessions[session.id] = session

    def forget(self, session: Session) -> None:
        """Remove a session from the open sessions, if it is there."""
        self._sessions.pop(session.id, None)

    def statistics(self) -> Statistics:
        """Return the application's counters and its current load."""
        backlogs = [connection.outbound.backlog for connection in self.connections]
        return self.counters.statistics(
            sessions=len(self._sessions),
            connections=self._connected,
            outbound_messages=sum(backlog.messages for backlog in backlogs),
            outbound_bytes=sum(backlog.bytes for backlog in backlogs),
        )

    async def disconnect(self, wanted: Mapping[str, Any], reason: str, message: str | None) -> int:
        """End the sessions that have all attributes in `wanted`; return their number."""
        ended = [await each.disconnect(wanted, reason, message) for each in list(self.connections)]
        return sum(ended)

    # ---- shutting down

    @property
    def is_draining(self) -> bool:
        """Whether sessions are being closed and no session may begin."""
        return bool(self._goodbyes)

    @property
    def is_saying_goodbye(self) -> bool:
        """Whether the sessions that are being closed receive GOODBYE."""
        return any(self._goodbyes)

    @contextmanager
    def draining(self, goodbye: bool) -> Iterator[None]:
        """Refuse new connections and sessions while the block runs."""
        self._goodbyes.append(goodbye)
        try:
            yield
        finally:
            self._goodbyes.remove(goodbye)

    async def close_sessions(
        self, grace: float, *, batch_size: int, batch_interval: float, goodbye: bool
    ) -> None:
        """Close every session and its connection; see `Application.close_sessions`."""
        with self.draining(goodbye):
            connections = list(self.connections)
            if connections:
                logger.info("closing %d connections", len(connections))
            # Shielded, because the caller may be a handler, which is cancelled with its session.
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as closing:
                    for number, connection in enumerate(connections, 1):
                        closing.start_soon(connection.shut_down, grace)
                        if number % batch_size == 0 and number < len(connections):
                            await anyio.sleep(batch_interval * uniform(0.5, 1.5))
            with anyio.move_on_after(2 * self.limits.goodbye_timeout):
                for connection in connections:
                    await connection.wait_ended()
