"""What all parts of one session share: its connection, its state, its router, and how it sends.

Spec: Basic Profile, "Sessions".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

from serverwamp import uris
from serverwamp.concurrency.tasks import Starter, open_starter
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
"""The WebSocket close code after an ABORT that is no protocol violation."""
GOING_AWAY: Final = 1001
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
SHUTTING_DOWN: Final = "the server is shutting down"


class ConnectionProtocol(Protocol):
    """The connection of a session, as the session uses it."""

    serializer: Serializer
    outbound: Outbound
    limit_log: LimitLog
    received: int
    """How many messages have been received, including the one that is awaited now."""

    @property
    def transport_info(self) -> Mapping[str, Any]:
        """The description of the client that `Session.connection` offers."""
        ...

    async def receive(self) -> tuple[Message, Unit] | None:
        """Return the next message and its encoded form; None when the client is gone.

        Raises: ProtocolViolation.
        """
        ...

    async def finish(self, code: int) -> None:
        """Send the queued messages, for a limited time, and close the connection."""
        ...


class ServerContext(Protocol):
    """The application, as a session uses it."""

    limits: Limits
    debug: bool
    synchronize_requests: bool
    connections: set[Any]
    counters: Counters

    @property
    def sessions(self) -> Mapping[int, Session]:
        """The open sessions, by their ids."""
        ...

    def admit(self, session: Session) -> None:
        """Add a session to the open sessions."""
        ...

    def forget(self, session: Session) -> None:
        """Remove a session from the open sessions; do nothing if it isn't one of them."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether the server is shutting down and accepts no new sessions."""
        ...

    @property
    def is_saying_goodbye(self) -> bool:
        """Whether sessions get GOODBYE when the server shuts down.

        Many clients don't reconnect after GOODBYE. They do if the connection is only closed.
        """
        ...

    def router_for(self, uri: str | None) -> RealmRouter | None:
        """Return the router of the realm that a client joins if its HELLO names `uri`."""
        ...


class Conversation:
    """One session, as its parts share it, from before HELLO until after its end.

    `close_code` is the code with which the connection is closed at the end of the session. With
    None, the connection stays open and the client may begin another session.
    """

    def __init__(self, server: ServerContext, connection: ConnectionProtocol) -> None:
        self.server: ServerContext = server
        self.connection: ConnectionProtocol = connection
        self.serializer: Serializer = connection.serializer
        self.outbound: Outbound = connection.outbound
        self.limits: Limits = server.limits
        self.limit_log: LimitLog = connection.limit_log
        self.state: SessionState = SessionState()
        self.starter: Starter = open_starter()
        """Starts tasks while the session is open, and owns them."""
        self.callee_role: Role | None = None
        """The features that the client announced for its callee role, once HELLO has arrived."""
        self.close_code: int | None = None
        self._session: Session | None = None
        self._router: RealmRouter | None = None
        self._encode = connection.serializer.encode
        self._put = connection.outbound.put

    def begin(self, session: Session, router: RealmRouter, callee_role: Role | None) -> None:
        """Set what is known once HELLO has arrived."""
        self._session = session
        self._router = router
        self.callee_role = callee_role

    def move_to(self, router: RealmRouter) -> None:
        """Change the realm, before WELCOME."""
        self._router = router

    @property
    def session(self) -> Session:
        """The session as handlers see it; it exists once HELLO has arrived."""
        assert self._session is not None
        return self._session

    @property
    def router(self) -> RealmRouter:
        """The router of the session's realm; it is known once HELLO has arrived."""
        assert self._router is not None
        return self._router

    @property
    def is_open(self) -> bool:
        """Whether WELCOME has been sent and the session has not ended."""
        return self.state.state is State.OPEN

    def send(self, message: Message) -> None:
        """Queue a message, or drop it if the session isn't open.

        Raises: SerializationError.
        """
        if self.state.state is State.OPEN:
            self._put(self._encode(message))

    def answer(self, message: Answer) -> None:
        """Queue the message that answers a request of the client.

        Raises: SerializationError.
        """
        self.state.answered(message.request)
        self.send(message)

    def send_error(self, kind: int, request: int, error: WAMPError) -> None:
        """Queue the ERROR that answers a request.

        If the client's format can't express the error's arguments, they are left out and logged.
        """
        self.state.answered(request)
        try:
            self.send(Error(kind, request, {}, error.uri, error.args, error.kwargs))
        except SerializationError as failure:
            if self.limit_log.is_first("the lost arguments of an error"):
                logger.error("the arguments of error %s are lost: %s", error.uri, failure)
            self.send(Error(kind, request, {}, error.uri))

    async def error_for(self, error: BaseException, doing: str) -> WAMPError:
        """Return the error that tells the client about an exception; log what it must not see.

        `doing` says in the log what has failed.
        """
        errors, debug = self.router.errors, self.server.debug
        return await errors.error_for(error, doing, self.limit_log, debug=debug)

    def advance(self, message: Message) -> None:
        """Queue a message that changes the state of the session.

        Raises: SerializationError.
        """
        unit = self._encode(message)
        self.state.send(message)
        self._put(unit)

    def abort(self, reason: str, message: str, close_code: int) -> None:
        """Queue ABORT and end the session; do nothing if it has ended.

        After GOODBYE, the session ends without ABORT. If `message` can't be expressed in the
        client's format, ABORT repeats `reason` instead.
        """
        if self.state.state is State.CLOSING:
            self.state.lose()  # no message may follow our GOODBYE
        elif self.state.state is not State.CLOSED:
            self.close_code = close_code
            try:
                self.advance(Abort({"message": message}, reason))
            except SerializationError:
                self.advance(Abort({"message": reason}, reason))

    def turn_away(self) -> None:
        """Refuse a session before WELCOME, because the server is shutting down."""
        if self.server.is_saying_goodbye:
            self.abort(uris.SYSTEM_SHUTDOWN, SHUTTING_DOWN, GOING_AWAY)
        else:
            self.close_code = SERVICE_RESTART
            self.state.lose()

    def violate(self, violation: ProtocolViolation) -> None:
        """Log a protocol violation by the client, and abort the session."""
        # Some clients show nobody the reason in ABORT, so log it.
        if isinstance(violation, LimitExceeded):
            self.limit_log.record(violation.limit, "%s", violation.message)
        else:
            logger.warning("protocol violation: %.300s", violation.message)
            self.server.counters.violations[violation.kind] += 1
        self.abort(violation.uri, violation.message, violation.close_code)
