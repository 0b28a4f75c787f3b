"""The state machine of one session: what may be received, and sent, now.

::

    AWAITING_HELLO ──HELLO──▶ AUTHENTICATING ──WELCOME─▶ OPEN ──GOODBYE sent──▶ CLOSING
                                │      ▲                  │                        │
                           CHALLENGE  AUTHENTICATE   GOODBYE received      GOODBYE received
                                ▼      │                  ▼                        ▼
                               CHALLENGED              LEAVING ──GOODBYE sent─▶ CLOSED

ABORT, sent or received, leads from everywhere to CLOSED, but none is sent after GOODBYE. What the
tables don't hold is a protocol violation when it is received, and a bug of ours when it is sent;
an illegal move leaves the state as it was. While CLOSING, what the client still sends is ignored.

Spec: Basic Profile, "Sessions"; Advanced Profile, "Authentication".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from serverwamp import uris
from serverwamp.errors import ProtocolViolation
from serverwamp.protocol.messages import (
    Abort,
    Authenticate,
    Call,
    Cancel,
    Challenge,
    Error,
    Event,
    Goodbye,
    Hello,
    HelloDetails,
    Interrupt,
    Invocation,
    Message,
    Publish,
    Published,
    Register,
    Registered,
    Result,
    Subscribe,
    Subscribed,
    Unregister,
    Unregistered,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    Yield,
)


class State(Enum):
    """How far a session is."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # they are looked up all the time, and Enum's own is slow

    AWAITING_HELLO = "awaiting HELLO"
    AUTHENTICATING = "authenticating"
    CHALLENGED = "awaiting AUTHENTICATE"
    OPEN = "open"
    LEAVING = "answering GOODBYE"
    CLOSING = "awaiting GOODBYE"
    CLOSED = "closed"


Moves = Mapping[type[Message], State]

RECEIVED: Final[Mapping[State, Moves]] = {
    State.AWAITING_HELLO: {Hello: State.AUTHENTICATING, Abort: State.CLOSED},
    State.AUTHENTICATING: {Abort: State.CLOSED},
    State.CHALLENGED: {Authenticate: State.AUTHENTICATING, Abort: State.CLOSED},
    State.OPEN: {
        **dict.fromkeys(
            (
                Call,
                Cancel,
                Publish,
                Subscribe,
                Unsubscribe,
                Register,
                Unregister,
                Yield,
                Error,
            ),
            State.OPEN,
        ),
        Goodbye: State.LEAVING,
        Abort: State.CLOSED,
    },
    State.LEAVING: {},
    State.CLOSING: {Goodbye: State.CLOSED, Abort: State.CLOSED},
    State.CLOSED: {},
}

SENT: Final[Mapping[State, Moves]] = {
    State.AWAITING_HELLO: {Abort: State.CLOSED},
    State.AUTHENTICATING: {
        Challenge: State.CHALLENGED,
        Welcome: State.OPEN,
        Abort: State.CLOSED,
    },
    State.CHALLENGED: {Abort: State.CLOSED},
    State.OPEN: {
        **dict.fromkeys(
            (
                Result,
                Error,
                Subscribed,
                Unsubscribed,
                Event,
                Published,
                Registered,
                Unregistered,
                Invocation,
                Interrupt,
            ),
            State.OPEN,
        ),
        Goodbye: State.CLOSING,
        Abort: State.CLOSED,
    },
    State.LEAVING: {Goodbye: State.CLOSED},
    State.CLOSING: {},
    State.CLOSED: {},
}

REQUESTS: Final = frozenset((Call, Publish, Subscribe, Unsubscribe, Register, Unregister))
"""What the client gives an id, which no other open request of its session may have."""

REMEMBERED_STREAMS: Final = 1_000
"""How many calls are remembered that were answered before all of their arguments had come."""

WRONG_ID: Final = "wrong id"
"""The kind of violations by a request whose id is in use, or an answer to what was never asked."""

INVALID: Final = "invalid message"
"""The kind of violations by a message that can be decoded, and makes no sense."""

CLIENT_ROLES: Final = frozenset(("publisher", "subscriber", "caller", "callee"))


class SessionState:
    """The state of one session, from before its HELLO until after its end."""

    def __init__(self) -> None:
        self._open: set[int] = set()  # the requests that are not answered yet
        # The procedures of calls whose last arguments are still to come, by their request ids:
        self._streams: dict[int, str] = {}  # of open calls
        self._answered_streams: dict[int, str] = {}  # the oldest first
        self._move(State.AWAITING_HELLO)

    def _move(self, state: State) -> None:
        self.state: State = state
        self._receivable = RECEIVED[state]

    def receive(self, message: Message) -> bool:
        """Take note of a received message; tell whether it is to be handled, not ignored.

        Raises: ProtocolViolation.
        """
        kind = type(message)
        following = self._receivable.get(kind)
        if following is None:
            if self.state is State.CLOSING:
                return False
            raise ProtocolViolation(
                f"{kind.__name__.upper()} can't come while {self.state.value}",
                kind="unexpected message",
            )
        if kind in REQUESTS:
            request: int = message.request  # type: ignore[attr-defined]
            if request in self._open:
                self._check_continues(request, message)
            elif request in self._answered_streams and self._is_leftover(request, message):
                return False
            elif not isinstance(message, Publish) or message.options.acknowledge:
                self._open.add(request)
            if isinstance(message, Call):
                if message.options.progress:
                    self._streams[request] = message.procedure
                elif self._streams:
                    self._streams.pop(request, None)
        elif isinstance(message, Hello):
            _check_hello(message)
        elif isinstance(message, (Goodbye, Abort)) and not uris.is_valid_uri(message.reason):
            raise ProtocolViolation(
                f"{kind.__name__.upper()} with an invalid URI as its reason", kind=INVALID
            )
        if following is not self.state:
            self._move(following)
        return True

    def answered(self, request: int) -> None:
        """Take note that a request is answered: another one may have its id.

        If the client has yet to send further arguments of it, these are ignored.
        """
        self._open.discard(request)
        if request in self._streams:
            self._answered_streams[request] = self._streams.pop(request)
            if len(self._answered_streams) > REMEMBERED_STREAMS:
                del self._answered_streams[next(iter(self._answered_streams))]

    def _check_continues(self, request: int, message: Message) -> None:
        """Check that a message with the id of an open call brings further arguments of it.

        Raises: ProtocolViolation.
        """
        if not isinstance(message, Call) or request not in self._streams:
            raise ProtocolViolation(f"request id {request} is in use", kind=WRONG_ID)
        if self._streams[request] != message.procedure:
            raise ProtocolViolation(
                f"call {request} can't go on with another procedure", kind=WRONG_ID
            )

    def _is_leftover(self, request: int, message: Message) -> bool:
        """Tell whether a message was sent for a call before the client knew that it is answered.

        Otherwise it is a new request, and no more is expected of that call.
        """
        procedure = self._answered_streams.pop(request)
        if not isinstance(message, Call) or message.procedure != procedure:
            return False
        if message.options.progress:
            self._answered_streams[request] = procedure
        return True

    def send(self, message: Message) -> None:
        """Take note of a message that is about to be sent.

        Raises: RuntimeError when it can't be sent now, which is a mistake on this side.
        """
        following = SENT[self.state].get(type(message))
        if following is None:
            raise RuntimeError(
                f"{type(message).__name__.upper()} can't be sent while {self.state.value}"
            )
        self._move(following)

    def lose(self) -> None:
        """Take note that the transport is gone."""
        self._move(State.CLOSED)


def _check_hello(hello: Hello) -> None:
    if hello.realm is not None and not uris.is_valid_uri(hello.realm):
        raise ProtocolViolation("the realm is not a valid URI", uri=uris.INVALID_URI, kind=INVALID)
    if (hello.details.authid or "").startswith("\0"):  # it would stand for binary in JSON
        raise ProtocolViolation("the authid starts with NUL", kind=INVALID)
    _check_roles(hello.details)


def _check_roles(details: HelloDetails) -> None:
    if not CLIENT_ROLES.intersection(details.roles or ()):
        raise ProtocolViolation(
            "HELLO announces none of the roles caller, callee, publisher, subscriber", kind=INVALID
        )
