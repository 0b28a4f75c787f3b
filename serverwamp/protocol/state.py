"""The state machine of a session: which messages may be received and sent in which state.

::

    AWAITING_HELLO ──HELLO──▶ AUTHENTICATING ──WELCOME─▶ OPEN ──GOODBYE sent──▶ CLOSING
                                │      ▲                  │                        │
                           CHALLENGE  AUTHENTICATE   GOODBYE received      GOODBYE received
                                ▼      │                  ▼                        ▼
                               CHALLENGED              LEAVING ──GOODBYE sent─▶ CLOSED

The rules, which the tables `RECEIVED` and `SENT` spell out:

* Each side sends messages independently, so both a received and a sent message can change the
  state. A session has a single state, not one for each side.
* The client begins with HELLO. The server answers with WELCOME, with one or more CHALLENGEs and
  then WELCOME, or with ABORT. Until WELCOME, the client may only send one AUTHENTICATE for each
  CHALLENGE, or ABORT.
* While OPEN, both sides may send the messages of their roles in any order. These don't change the
  state.
* Either side ends an open session with GOODBYE, and the other answers with GOODBYE. A client that
  has sent GOODBYE sends nothing more until it has the answer. After that, a new session, with a new
  state machine, may begin on the same connection.
* While CLOSING, the client may not have seen the server's GOODBYE yet. Its messages are ignored,
  except GOODBYE and ABORT.
* ABORT ends the session from any state in which it is allowed; there is no answer. The server sends
  no ABORT after a GOODBYE, sent or received.
* Losing the transport ends the session from any state.
* Receiving a message that the tables don't allow raises ProtocolViolation. Sending one raises
  RuntimeError, because that is a bug of this package. Neither changes the state.

Request ids have rules as well:

* A request is *open* from its arrival until its answer. Until then, its id must not be used for
  another request. A PUBLISH without ``acknowledge`` has no answer and is never open.
* A CALL with ``progress`` announces further CALLs with the same id, which bring more arguments.
  They have to name the same procedure. The first one without ``progress`` is the last.
* If such a call is answered early, the client's remaining CALLs for it are ignored. A request with
  the same id that isn't such a CALL is a new request.

Spec: Basic Profile, "Sessions"; Advanced Profile, "Authentication".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

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
    """The states of a session."""

    if not TYPE_CHECKING:
        __hash__ = object.__hash__  # faster than that of Enum; states are looked up very often

    AWAITING_HELLO = "awaiting HELLO"
    AUTHENTICATING = "authenticating"
    CHALLENGED = "awaiting AUTHENTICATE"
    OPEN = "open"
    LEAVING = "answering GOODBYE"
    CLOSING = "awaiting GOODBYE"
    CLOSED = "closed"


Moves: TypeAlias = Mapping[type[Message], State]
"""The allowed messages, and the state to which each of them leads."""

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
"""The messages of a client with a request id that must not be in use."""

REMEMBERED_STREAMS: Final = 1_000
"""How many calls are remembered that were answered before their last arguments arrived."""

WRONG_ID: Final = "wrong id"
"""The kind of violation in which a request has an id in use, or an answer has an unknown id."""

INVALID: Final = "invalid message"
"""The kind of violation in which a message can be decoded but has an invalid value."""

CLIENT_ROLES: Final = frozenset(("publisher", "subscriber", "caller", "callee"))


class SessionState:
    """The state of one session, from before its HELLO until after its end."""

    def __init__(self) -> None:
        self.state: State = State.AWAITING_HELLO
        self._receivable = RECEIVED[self.state]
        self._open: set[int] = set()  # ids of requests without an answer
        # Procedures of calls whose last arguments haven't arrived yet, by request id:
        self._streams: dict[int, str] = {}  # of open calls
        self._answered_streams: dict[int, str] = {}  # of answered calls, oldest first

    def _move(self, state: State) -> None:
        self.state = state
        self._receivable = RECEIVED[state]

    def receive(self, message: Message) -> bool:
        """Record a received message; return False if it must be ignored.

        Raises: ProtocolViolation when it isn't allowed now, or has an invalid id, URI or role.
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
        """Record that a request was answered, so that its id may be used again.

        If the client still has to send arguments for it, these will be ignored.
        """
        self._open.discard(request)
        if request in self._streams:
            self._answered_streams[request] = self._streams.pop(request)
            if len(self._answered_streams) > REMEMBERED_STREAMS:
                del self._answered_streams[next(iter(self._answered_streams))]

    def _check_continues(self, request: int, message: Message) -> None:
        """Check that a message with the id of an open request brings further arguments for it.

        Raises: ProtocolViolation when it doesn't.
        """
        if not isinstance(message, Call) or request not in self._streams:
            raise ProtocolViolation(f"request id {request} is in use", kind=WRONG_ID)
        if self._streams[request] != message.procedure:
            raise ProtocolViolation(
                f"call {request} is continued with another procedure", kind=WRONG_ID
            )

    def _is_leftover(self, request: int, message: Message) -> bool:
        """Tell whether a message brings further arguments for a call that was answered already.

        Otherwise it is a new request, and no further arguments for that call are expected.
        """
        procedure = self._answered_streams.pop(request)
        if not isinstance(message, Call) or message.procedure != procedure:
            return False
        if message.options.progress:
            self._answered_streams[request] = procedure
        return True

    def send(self, message: Message) -> None:
        """Record a message that is about to be sent.

        Raises: RuntimeError when it may not be sent now, which is a bug of this package.
        """
        following = SENT[self.state].get(type(message))
        if following is None:
            raise RuntimeError(
                f"{type(message).__name__.upper()} can't be sent while {self.state.value}"
            )
        self._move(following)

    def lose(self) -> None:
        """Record that the transport is gone."""
        self._move(State.CLOSED)


def _check_hello(hello: Hello) -> None:
    if hello.realm is not None and not uris.is_valid_uri(hello.realm):
        raise ProtocolViolation("the realm is not a valid URI", uri=uris.INVALID_URI, kind=INVALID)
    if (hello.details.authid or "").startswith("\0"):  # in JSON it would mean binary data
        raise ProtocolViolation("the authid starts with NUL", kind=INVALID)
    _check_roles(hello.details)


def _check_roles(details: HelloDetails) -> None:
    if not CLIENT_ROLES.intersection(details.roles or ()):
        raise ProtocolViolation(
            "HELLO announces none of the roles caller, callee, publisher, subscriber", kind=INVALID
        )
