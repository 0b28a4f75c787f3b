"""One session, from its HELLO to its end.

One module, though a long one: joining, talking and leaving are moves of the same state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol

import anyio

from serverwamp import uris
from serverwamp.calls import Calls
from serverwamp.conversation import Conversation
from serverwamp.errors import (
    AuthenticationFailed,
    CallCanceled,
    InvalidURI,
    LimitExceeded,
    NoSuchRealm,
    NoSuchRegistration,
    NotAuthorized,
    ProtocolViolation,
    SerializationError,
    Unavailable,
    WAMPError,
)
from serverwamp.limits import LimitLog, Limits
from serverwamp.outbound import Outbound
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.ids import new_session_id
from serverwamp.protocol.messages import (
    Abort,
    Authenticate,
    Call,
    Cancel,
    Challenge,
    Goodbye,
    Hello,
    Message,
    Publish,
    Register,
    Subscribe,
    Unregister,
    Unsubscribe,
    Welcome,
)
from serverwamp.protocol.serializers import Serializer
from serverwamp.protocol.session import SessionState, State
from serverwamp.realm import Realm
from serverwamp.session import Session
from serverwamp.starting import StartedTask, escaping, open_starter
from serverwamp.statistics import Counters
from serverwamp.subscriptions import Subscriptions

logger: logging.Logger = logging.getLogger(__name__)

ROLES: Final[Mapping[str, Any]] = {
    # Both always have their features, even none: a client fails without.
    "broker": {"features": {}},
    "dealer": {
        "features": {
            "progressive_call_results": True,
            "call_canceling": True,
            "call_timeout": True,
        }
    },
}
"""What is announced in WELCOME: only what a test proves."""

REFUSED: Final = 1000
"""The WebSocket close code after an ABORT that refuses a session: nothing was violated."""
GOING_AWAY: Final = 1001
INTERNAL_ERROR: Final = 1011
SHUTTING_DOWN: Final = "the server is shutting down"


class Carrier(Protocol):
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


class Host(Protocol):
    """The application, as far as a session is concerned."""

    limits: Limits
    debug: bool
    synchronize_requests: bool
    sessions: dict[int, ServedSession]
    connections: set[Any]
    counters: Counters

    @property
    def is_draining(self) -> bool:
        """Whether no session may begin."""
        ...

    def realm_for(self, uri: str | None) -> Realm | None: ...


class _ClientLeft(Exception):
    """The client is gone, or has sent ABORT, while it was to be authenticated."""


def _from_now(seconds: float) -> float:
    return anyio.current_time() + seconds


class ServedSession:
    """What runs a session: reads, answers, and cleans up.

    `run` is over when the session is. `close_code` then tells with which code the connection is
    to be closed; None lets the client begin another session.
    """

    def __init__(self, host: Host, carrier: Carrier) -> None:
        self._host = host
        self._carrier = carrier
        self._outbound = carrier.outbound
        self._encode = carrier.serializer.encode
        self._note_limit = carrier.limit_log.note
        self._state = SessionState()
        self._joining = anyio.CancelScope(deadline=_from_now(host.limits.hello_timeout))
        self._reading: anyio.CancelScope | None = None
        self._idling: StartedTask | None = None
        self.close_code: int | None = None

    @property
    def is_open(self) -> bool:
        return self._state.state is State.OPEN

    @property
    def has_begun(self) -> bool:
        return self._state.state is not State.AWAITING_HELLO

    # ---- sending

    def _advance(self, message: Message) -> None:
        """Queue a message that changes the session's state."""
        unit = self._encode(message)
        self._state.send(message)
        self._outbound.put(unit)

    def _abort(self, reason: str, message: str, close_code: int) -> None:
        if self._state.state is State.CLOSING:
            self._state.lose()  # no message may follow GOODBYE
        elif self._state.state is not State.CLOSED:
            self.close_code = close_code
            try:
                self._advance(Abort({"message": message}, reason))
            except SerializationError:
                self._advance(Abort({"message": reason}, reason))

    def _violate(self, violation: ProtocolViolation) -> None:
        # Some clients don't show the reason to anybody, so it has to be found here.
        if isinstance(violation, LimitExceeded):
            self._note_limit(violation.limit, "%s", violation.message)
        else:
            logger.warning("protocol violation: %.300s", violation.message)
            self._host.counters.violations[violation.kind] += 1
        self._abort(violation.uri, violation.message, violation.close_code)

    # ---- the whole session

    async def run(self) -> None:
        """Serve the session until it ends."""
        # One scope for all of it, because lifespan handlers can leave scopes of their own open.
        with self._joining:
            await self._run()
        if self._joining.cancelled_caught:
            if self._state.state is State.AWAITING_HELLO:
                self._note_limit("hello_timeout", "a client said no HELLO in time")
                self._abort(uris.PROTOCOL_VIOLATION, "no HELLO in time", 1002)
            elif self._state.state is not State.CLOSED:
                self._note_limit("authentication_timeout", "a client wasn't authenticated in time")
                self._abort(uris.AUTHENTICATION_FAILED, "not authenticated in time", REFUSED)

    async def _run(self) -> None:
        hello = await self._receive_hello()
        realm = self._realm_for(hello)
        if hello is None or realm is None:
            return
        self._realm = realm
        self.session: Session = self._new_session(hello)
        if realm.keeps_clients_waiting:
            self._joining.deadline = _from_now(self._host.limits.authentication_timeout)
        try:
            async with realm.lifespan_stack() as lifespan:
                await self._join(realm, lifespan)
                if self._state.state is State.AUTHENTICATING:
                    self._joining.deadline = math.inf
                    await self._converse()
        except BaseException as error:
            if escaping(error) is not None:
                raise
            logger.exception("the end of a session failed")

    # ---- joining

    async def _receive_hello(self) -> Hello | None:
        try:
            received = await self._carrier.receive()
            if received is None:
                self._state.lose()
                return None
            self._state.receive(received[0])
        except ProtocolViolation as violation:
            self._violate(violation)
            return None
        if isinstance(received[0], Hello):
            return received[0]
        self.close_code = REFUSED  # the client sent ABORT
        return None

    def _realm_for(self, hello: Hello | None) -> Realm | None:
        if hello is None:
            return None
        if self._host.is_draining:
            logger.info("a session is refused: %s", SHUTTING_DOWN)
            self._abort(uris.SYSTEM_SHUTDOWN, SHUTTING_DOWN, GOING_AWAY)
            return None
        realm = self._host.realm_for(hello.realm) if hello.realm is not None else None
        if realm is None:
            self._refuse(NoSuchRealm(f"there is no realm {hello.realm!r}"))
        return realm

    async def _join(self, realm: Realm, lifespan: AsyncExitStack) -> None:
        """Authenticate the session, or refuse it."""
        try:
            self._check_sessions()
            await realm.open_lifespan_handlers(self.session, lifespan, authenticated=False)
            await self._authenticate(realm)
            if self._state.state is State.AUTHENTICATING:
                await realm.open_lifespan_handlers(self.session, lifespan, authenticated=True)
            self._check_sessions()  # others have joined meanwhile
        except ProtocolViolation as violation:
            self._violate(violation)
        except _ClientLeft:
            self.close_code = REFUSED
        except WAMPError as error:
            self._refuse(error)
        except BaseException as error:
            if escaping(error) is not None:
                raise
            doing = f"the beginning of session {self.session.id}"
            self._refuse(await realm.error_for(error, doing, debug=self._host.debug))

    def _check_sessions(self) -> None:
        if len(self._host.sessions) >= self._host.limits.sessions:
            self._note_limit("sessions", "%s sessions are open", len(self._host.sessions))
            raise Unavailable("the server has as many sessions as it may have")

    def _refuse(self, error: WAMPError) -> None:
        logger.info("a session is refused: %.300s", error)
        self._abort(error.uri, error.message, REFUSED)

    def _new_session(self, hello: Hello) -> Session:
        session_id = new_session_id()
        while session_id in self._host.sessions:
            session_id = new_session_id()
        details = hello.details
        return Session(
            id=session_id,
            realm=hello.realm or "",
            connection=self._carrier,
            link=self,
            auth_id=details.authid,
            auth_methods=details.authmethods or (),
            auth_extra=details.authextra,
        )

    async def _authenticate(self, realm: Realm) -> None:
        try:
            await realm.authentication.authenticate(self.session)
        except (ProtocolViolation, WAMPError, _ClientLeft):
            raise
        except BaseException as error:
            if escaping(error) is not None:
                raise
            logger.exception("an authenticator failed for session %s", self.session.id)
            raise AuthenticationFailed("authentication failed") from None

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return what AUTHENTICATE brings."""
        self._advance(Challenge(method, extra))
        received = await self._carrier.receive()
        if received is None:
            self._state.lose()
            raise _ClientLeft
        message = received[0]
        self._state.receive(message)
        if not isinstance(message, Authenticate):
            raise _ClientLeft
        return message.signature, message.extra

    def _welcome(self) -> Welcome:
        session = self.session
        details = {
            "realm": session.realm,
            "agent": "serverwamp",
            "roles": ROLES,
            "authid": session.auth_id,
            "authrole": session.auth_role,
            "authprovider": session.auth_provider,
        }
        if session.auth_method is not None:  # told of a method it didn't offer, a client leaves
            details["authmethod"] = session.auth_method
        return Welcome(session.id, details)

    # ---- the open session

    async def _converse(self) -> None:
        async with open_starter() as starter:
            self._conversation = Conversation(
                self.session,
                self._realm,
                self._state,
                self._carrier.serializer,
                self._outbound,
                starter,
                self._host.limits,
                self._carrier.limit_log,
                debug=self._host.debug,
            )
            self._calls = Calls(self._conversation, synchronize=self._host.synchronize_requests)
            self._subscriptions = Subscriptions(self._conversation)
            self._host.sessions[self.session.id] = self
            if self._host.limits.idle_timeout < math.inf:
                self._idling = starter.start(self._end_when_idle)
            try:
                self._advance(self._welcome())
                with anyio.CancelScope() as self._reading:
                    await self._read()
                if self._state.state is State.CLOSING:
                    self._note_limit("goodbye_timeout", "a client didn't answer GOODBYE in time")
            except ProtocolViolation as violation:
                self._violate(violation)
            except Exception:  # a mistake of ours: this session ends, and no other
                logger.exception("session %s failed", self.session.id)
                self._abort(uris.RUNTIME_ERROR, "the server failed", INTERNAL_ERROR)
            except BaseException:
                self._outbound.discard()  # nothing of it could be waited for
                raise
            finally:
                self._release()
            # Calls may still be sending what is queued, so that has to come to an end here.
            if self.close_code is not None:
                await self._carrier.finish(self.close_code)
            elif self._outbound.is_sending:
                await self._outbound.flush()

    async def _read(self) -> None:
        state, receive, start_call = self._state, self._carrier.receive, self._calls.start
        while state.state is not State.CLOSED:
            try:
                received = await receive()
            except LimitExceeded as exceeded:
                self._refuse_request(exceeded)
                continue
            if received is None:
                state.lose()
                return
            message, unit = received
            if state.receive(message):
                if type(message) is Call:
                    waiting = start_call(message, unit)
                    if waiting is not None:
                        await waiting
                else:
                    self._on[type(message)](self, message)

    def _refuse_request(self, exceeded: LimitExceeded) -> None:
        """Answer a request that exceeds a limit, or raise what else it is."""
        request = exceeded.request
        if not isinstance(request, (Call, Subscribe, Publish, Register)):
            raise exceeded
        if not self._state.receive(request):
            return
        self._note_limit(exceeded.limit, "%s", exceeded.message)
        if not isinstance(request, Publish) or request.options.acknowledge:
            error = exceeded.error(exceeded.message)
            self._conversation.send_error(request.type_code, request.request, error)

    async def _end_when_idle(self) -> None:
        """Close the session when nothing has come for a while, and no call is running."""
        timeout = self._host.limits.idle_timeout
        silent_quarters = 0
        while silent_quarters < 4:
            before = self._carrier.received
            await anyio.sleep(timeout / 4)
            is_silent = self._carrier.received == before
            is_waited_for = self._calls.are_running or self._outbound.is_clogged
            silent_quarters = silent_quarters + 1 if is_silent and not is_waited_for else 0
        text = f"nothing has come for {timeout} seconds"
        self._note_limit("idle_timeout", "%s", text)
        await self.close(uris.KILLED, text)

    def _release(self) -> None:
        """Cancel what the session is doing; what has to be closed is being closed after this."""
        self._host.sessions.pop(self.session.id, None)
        if self.is_open:
            self._state.lose()
        self._calls.cancel_all()
        self._subscriptions.close_all()
        if self._idling is not None:
            self._idling.cancel()

    def _on_cancel(self, message: Cancel) -> None:
        self._calls.cancel(message)

    def _on_subscribe(self, message: Subscribe) -> None:
        self._subscriptions.subscribe(message)

    def _on_unsubscribe(self, message: Unsubscribe) -> None:
        self._subscriptions.unsubscribe(message)

    def _on_goodbye(self, message: Goodbye) -> None:
        if self._state.state is State.LEAVING:
            self._advance(Goodbye({}, uris.GOODBYE_AND_OUT))

    def _on_abort(self, message: Abort) -> None:
        self.close_code = REFUSED

    def _on_publish(self, message: Publish) -> None:
        if message.options.acknowledge:  # without, there is no answer at all
            self._refuse_action(message, message.topic, "publish")

    def _on_register(self, message: Register) -> None:
        self._refuse_action(message, message.procedure, "register")

    def _on_unregister(self, message: Unregister) -> None:
        error = NoSuchRegistration("the session has no such registration")
        self._conversation.send_error(Unregister.type_code, message.request, error)

    def _refuse_action(self, message: Publish | Register, uri: str, action: str) -> None:
        error: WAMPError = NotAuthorized(f"clients may not {action} here")
        if not uris.is_valid_uri(uri) or uris.is_reserved(uri):
            error = InvalidURI(f"{uri!r} is not a URI that clients may {action}")
        self._conversation.send_error(message.type_code, message.request, error)

    _on: Final[Mapping[type[Message], Callable[[ServedSession, Any], None]]] = {
        Cancel: _on_cancel,
        Subscribe: _on_subscribe,
        Unsubscribe: _on_unsubscribe,
        Publish: _on_publish,
        Register: _on_register,
        Unregister: _on_unregister,
        Goodbye: _on_goodbye,
        Abort: _on_abort,
    }

    # ---- what the session handle asks for

    def send_event(
        self, topic: str | None, subscription: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Awaitable[None]:
        """Queue an event for this session alone."""
        if not hasattr(self, "_subscriptions"):
            logger.debug("session %s isn't welcomed yet", self.session.id)
            return self._outbound.room_for_events
        return self._subscriptions.send_event(topic, subscription, args, kwargs)

    async def close(self, reason: str, message: str | None) -> None:
        """Say GOODBYE, and give the client some time to say it too."""
        if not self.is_open:
            return
        details = {} if message is None else {"message": message}
        self._advance(Goodbye(details, reason))
        self.close_code = GOING_AWAY if reason == uris.SYSTEM_SHUTDOWN else REFUSED
        assert self._reading is not None
        self._reading.deadline = _from_now(self._host.limits.goodbye_timeout)
        self._release()

    async def abort(self, reason: str, message: str | None) -> None:
        """Send ABORT: the session is over at once."""
        was_open = self.is_open
        self._abort(reason, message or reason, REFUSED)
        if was_open:
            self._release()  # before anything is published that would follow ABORT
        if self._reading is not None:
            self._reading.cancel()

    def lose(self) -> None:
        """End the session, whose client is gone or is given up."""
        was_open = self.is_open or self._state.state is State.CLOSING
        self._state.lose()
        (self._reading if was_open and self._reading is not None else self._joining).cancel()

    # ---- what the server asks for

    async def shut_down(self, grace: float) -> None:
        """Say GOODBYE when running calls are over, or after `grace` seconds, in which they end."""
        if self.is_open:
            with anyio.move_on_after(grace):
                await self._calls.wait_idle()
            self._calls.answer_all(CallCanceled(SHUTTING_DOWN))
            await self.close(uris.SYSTEM_SHUTDOWN, None)
        elif self._state.state in (State.AUTHENTICATING, State.CHALLENGED):
            self._abort(uris.SYSTEM_SHUTDOWN, SHUTTING_DOWN, GOING_AWAY)
            self._joining.cancel()
