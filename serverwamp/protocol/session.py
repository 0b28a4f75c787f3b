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
from serverwamp.protocol.ids import follows
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
"""What draws its id from the session's sequence of requests."""

REMEMBERED_STREAMS: Final = 1_000
"""How many calls are remembered that were answered before the client had sent all its arguments,
those included that are being sent."""

INVALID: Final = "invalid message"
"""The kind of violations by a message that can be decoded, and makes no sense."""

CLIENT_ROLES: Final = frozenset(("publisher", "subscriber", "caller", "callee"))


class SessionState:
    """The state of one session, from before its HELLO until after its end."""

    def __init__(self) -> None:
        self._last_request = 0
        self._streams: dict[int, str | None] = {}
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
            if request <= self._last_request and not follows(request, self._last_request):
                if isinstance(message, Call) and request in self._streams:
                    return self._continues(message)
                raise ProtocolViolation(
                    f"request id {request} after {self._last_request} is out of sequence",
                    kind="out of sequence",
                )
            self._last_request = request
        elif isinstance(message, Hello):
            _check_hello(message)
        elif isinstance(message, (Goodbye, Abort)) and not uris.is_valid_uri(message.reason):
            raise ProtocolViolation(
                f"{kind.__name__.upper()} with an invalid URI as its reason", kind=INVALID
            )
        if following is not self.state:
            self._move(following)
        return True

    def begin_stream(self, call: Call) -> None:
        """Take note that further CALLs of the same id belong to a call."""
        self._streams[call.request] = call.procedure

    def end_stream(self, request: int) -> None:
        """Take note that a call is answered: those that are still on their way are ignored."""
        if self._streams.get(request) is not None:
            del self._streams[request]
            self._streams[request] = None  # the newest of those that are remembered
            if len(self._streams) > REMEMBERED_STREAMS:
                ended = (id_ for id_, procedure in self._streams.items() if procedure is None)
                del self._streams[next(ended)]

    def _continues(self, call: Call) -> bool:
        """Tell whether a further CALL of a call comes before its answer.

        Raises: ProtocolViolation.
        """
        procedure = self._streams[call.request]
        if procedure is not None and procedure != call.procedure:
            raise ProtocolViolation(
                f"call {call.request} can't go on with another procedure", kind="out of sequence"
            )
        if not call.options.progress:
            del self._streams[call.request]
        return procedure is not None

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
    _check_roles(hello.details)


def _check_roles(details: HelloDetails) -> None:
    if not CLIENT_ROLES.intersection(details.roles or ()):
        raise ProtocolViolation(
            "HELLO announces none of the roles caller, callee, publisher, subscriber", kind=INVALID
        )
