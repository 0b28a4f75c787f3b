"""A session as all its parts share it: where it belongs, how far it has come, and its voice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

from serverwamp import uris
from serverwamp.concurrency.tasks import Starter
from serverwamp.errors import LimitExceeded, ProtocolViolation, SerializationError, WAMPError
from serverwamp.limits import LimitLog, Limits
from serverwamp.outbound.sender import Outbound
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.messages import (
    Abort,
    Error,
    Message,
    Published,
    Registered,
    Role,
    Subscribed,
    Unregistered,
    Unsubscribed,
)
from serverwamp.protocol.serializers import Serializer
from serverwamp.protocol.state import SessionState, State
from serverwamp.router.router import RealmRouter
from serverwamp.session import Session
from serverwamp.statistics import Counters

logger: logging.Logger = logging.getLogger(__name__)

Answer: TypeAlias = Published | Subscribed | Unsubscribed | Registered | Unregistered

REFUSED: Final = 1000
"""The WebSocket close code after an ABORT that refuses a session: nothing was violated."""
GOING_AWAY: Final = 1001
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
SHUTTING_DOWN: Final = "the server is shutting down"


class ConnectionProtocol(Protocol):
    """The connection that carries a session."""

    serializer: Serializer
    outbound: Outbound
    limit_log: LimitLog
    received: int
    """How many messages have come."""

    @property
    def transport_info(self) -> Mapping[str, Any]: ...

    async def receive(self) -> tuple[Message, Unit] | None:
        """Return the next message and what it was decoded from; None when the client is gone.

        Raises: ProtocolViolation.
        """
        ...

    async def finish(self, code: int) -> None:
        """Hand over what is queued, within a bounded time, and close the connection."""
        ...


class ServerContext(Protocol):
    """The application, as far as a session is concerned."""

    limits: Limits
    debug: bool
    synchronize_requests: bool
    connections: set[Any]
    counters: Counters

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The sessions that are open."""
        ...

    def admit(self, session: Session) -> None:
        """Count a session among those that are open."""
        ...

    def forget(self, session: Session) -> None:
        """Count it no more; one that never was among them is ignored."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether no session may begin."""
        ...

    @property
    def is_saying_goodbye(self) -> bool:
        """Whether sessions end with a message while the application drains.

        Clients take a message as the request to stay away. They reconnect when only the connection
        is closed.
        """
        ...

    def router_for(self, uri: str | None) -> RealmRouter | None:
        """Return the router of the realm that a client joins when it asks for `uri`."""
        ...


class Conversation:
    """A session, for those who take part in it, from its HELLO to its end.

    It has a session and a realm when HELLO has come, and a starter when it is open. `close_code`
    tells with which code the connection is to be closed after it; None lets the client begin
    another session.
    """

    session: Session
    router: RealmRouter
    starter: Starter
    callee_role: Role | None
    """What the client has announced that it can do as a callee."""

    def __init__(self, server: ServerContext, connection: ConnectionProtocol) -> None:
        self.server: ServerContext = server
        self.connection: ConnectionProtocol = connection
        self.serializer: Serializer = connection.serializer
        self.outbound: Outbound = connection.outbound
        self.limits: Limits = server.limits
        self.limit_log: LimitLog = connection.limit_log
        self.state: SessionState = SessionState()
        self.close_code: int | None = None
        self._encode = connection.serializer.encode
        self._put = connection.outbound.put

    @property
    def is_open(self) -> bool:
        """Whether calls can be answered, and events sent."""
        return self.state.state is State.OPEN

    def send(self, message: Message) -> None:
        """Queue a message; dropped when the session isn't open any more.

        Raises: SerializationError.
        """
        if self.state.state is State.OPEN:
            self._put(self._encode(message))

    def answer(self, message: Answer) -> None:
        """Queue the message that answers a request of the client."""
        self.state.answered(message.request)
        self.send(message)

    def send_error(self, kind: int, request: int, error: WAMPError) -> None:
        """Queue the ERROR that answers a request; if need be, without its arguments."""
        self.state.answered(request)
        try:
            self.send(Error(kind, request, {}, error.uri, error.args, error.kwargs))
        except SerializationError as failure:
            if self.limit_log.is_first("the lost arguments of an error"):
                logger.error("the arguments of error %s are lost: %s", error.uri, failure)
            self.send(Error(kind, request, {}, error.uri))

    async def error_for(self, error: BaseException, doing: str) -> WAMPError:
        """Return what the client is told about an exception; the log gets the rest."""
        errors, debug = self.router.errors, self.server.debug
        return await errors.error_for(error, doing, self.limit_log, debug=debug)

    def advance(self, message: Message) -> None:
        """Queue a message that changes the session's state.

        Raises: SerializationError.
        """
        unit = self._encode(message)
        self.state.send(message)
        self._put(unit)

    def abort(self, reason: str, message: str, close_code: int) -> None:
        """Queue ABORT, unless the session is over."""
        if self.state.state is State.CLOSING:
            self.state.lose()  # no message may follow GOODBYE
        elif self.state.state is not State.CLOSED:
            self.close_code = close_code
            try:
                self.advance(Abort({"message": message}, reason))
            except SerializationError:
                self.advance(Abort({"message": reason}, reason))

    def turn_away(self) -> None:
        """End a session that has not begun, because the server goes down."""
        if self.server.is_saying_goodbye:
            self.abort(uris.SYSTEM_SHUTDOWN, SHUTTING_DOWN, GOING_AWAY)
        else:
            self.close_code = SERVICE_RESTART
            self.state.lose()

    def violate(self, violation: ProtocolViolation) -> None:
        """Queue the ABORT for what the client has done."""
        # Some clients don't show the reason to anybody, so it has to be found here.
        if isinstance(violation, LimitExceeded):
            self.limit_log.record(violation.limit, "%s", violation.message)
        else:
            logger.warning("protocol violation: %.300s", violation.message)
            self.server.counters.violations[violation.kind] += 1
        self.abort(violation.uri, violation.message, violation.close_code)
