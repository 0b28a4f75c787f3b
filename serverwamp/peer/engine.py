"""The life of a session: it begins, reads and handles messages, and ends.

One module despite its length: all received messages are dispatched here, and all the ways in which
a session can end share their state.

Spec: Basic Profile, "Sessions".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import time
from typing import Any, Final

import anyio
import anyio.lowlevel

from serverwamp import uris
from serverwamp.auth.authorization import Authorization, forget_answers, question_about
from serverwamp.client_call import ClientCall
from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.failures import raise_unless_failure
from serverwamp.concurrency.tasks import StartedTask
from serverwamp.errors import (
    CallCanceled,
    LimitExceeded,
    ProtocolViolation,
    RefusedMessage,
    RuntimeFailure,
    SerializationError,
    WAMPError,
)
from serverwamp.peer.callee import CalleeRole, PendingInvocation
from serverwamp.peer.caller import CallerRole
from serverwamp.peer.conversation import (
    GOING_AWAY,
    INTERNAL_ERROR,
    REFUSED,
    SERVICE_RESTART,
    SHUTTING_DOWN,
    ConnectionProtocol,
    Conversation,
    ServerContext,
)
from serverwamp.peer.joining import Joining
from serverwamp.peer.publisher import PublisherRole
from serverwamp.peer.subscriber import SubscriberRole
from serverwamp.peer.testaments import Testaments
from serverwamp.protocol.messages import (
    Abort,
    Call,
    Cancel,
    Error,
    Goodbye,
    Invocation,
    Message,
    Publish,
    Register,
    Subscribe,
    Unregister,
    Unsubscribe,
    Yield,
)
from serverwamp.protocol.serializers import can_hold
from serverwamp.protocol.state import State
from serverwamp.router.router import RealmRouter
from serverwamp.session import Session

logger: logging.Logger = logging.getLogger(__name__)

CLOCK_SECONDS: Final = 600.0
"""How often the clock is checked for expired credentials, in case somebody has set it."""


class SessionEngine:
    """Runs one session, from before HELLO until after its end.

    It is also the `SessionControl` behind the `Session` that handlers receive.
    """

    def __init__(self, server: ServerContext, connection: ConnectionProtocol) -> None:
        self._conversation = Conversation(server, connection)
        self._state = self._conversation.state
        self._joining = Joining(self._conversation, control=self)
        self._reading: anyio.CancelScope | None = None
        self._idling: StartedTask | None = None
        self._expiring: StartedTask | None = None
        self._ends_quietly = False
        # Each of these is made when it is first needed. Many clients never need most of them.
        self._caller: CallerRole | None = None
        self._subscriber: SubscriberRole | None = None
        self._publisher: PublisherRole | None = None
        self._callee: CalleeRole | None = None
        self._testaments: Testaments | None = None

    # ---- the state

    @property
    def is_open(self) -> bool:
        """Whether WELCOME has been sent and the session has not ended."""
        return self._state.state is State.OPEN

    @property
    def is_welcomed(self) -> bool:
        """Whether WELCOME has been sent, or the session has ended without it."""
        return self._state.state not in (
            State.AWAITING_HELLO,
            State.AUTHENTICATING,
            State.CHALLENGED,
        )

    @property
    def has_begun(self) -> bool:
        """Whether HELLO has arrived, or the session has ended without it."""
        return self._state.state is not State.AWAITING_HELLO

    @property
    def _is_joining(self) -> bool:
        return self._state.state in (State.AUTHENTICATING, State.CHALLENGED)

    # ---- the client's roles, while the session is open

    @property
    def caller(self) -> CallerRole:
        """The calls that the client makes."""
        if self._caller is None:
            synchronize = self._conversation.server.synchronize_requests
            self._caller = CallerRole(self._conversation, synchronize=synchronize)
        return self._caller

    @property
    def subscriber(self) -> SubscriberRole:
        """The subscriptions of the client."""
        if self._subscriber is None:
            self._subscriber = SubscriberRole(self._conversation)
        return self._subscriber

    @property
    def publisher(self) -> PublisherRole:
        """The publications of the client."""
        if self._publisher is None:
            self._publisher = PublisherRole(self._conversation)
        return self._publisher

    @property
    def callee(self) -> CalleeRole:
        """The registrations of the client, and the calls that it has to answer."""
        if self._callee is None:
            self._callee = CalleeRole(self._conversation)
        return self._callee

    @property
    def testaments(self) -> Testaments:
        """The publications that the client leaves for the end of the session."""
        if self._testaments is None:
            self._testaments = Testaments(self._conversation)
        return self._testaments

    # ---- from the beginning to the end

    async def run(self) -> int | None:
        """Serve the session until it ends.

        Returns the code with which to close the connection. None means that the client may
        begin another session.
        """
        with self._joining.scope:
            await self._run()
        if self._joining.scope.cancelled_caught:
            self._joining.tell_of_timeout()
        return self._conversation.close_code

    async def _run(self) -> None:
        router = await self._joining.receive_hello()
        if router is None:
            return
        if router.keeps_clients_waiting:  # its functions may set context variables
            await in_own_context(self._join_and_converse(router))
        else:
            await self._join_and_converse(router)

    async def _join_and_converse(self, router: RealmRouter) -> None:
        try:
            async with router.lifespan_stack() as lifespan:
                await self._joining.join(lifespan)
                if self._state.state is State.AUTHENTICATING:
                    await self._converse()
        except BaseException as error:
            raise_unless_failure(error)
            logger.exception("ending a session failed")

    # ---- the open session

    async def _converse(self) -> None:
        conversation, session = self._conversation, self._conversation.session
        async with conversation.starter:
            conversation.server.admit(session)
            if conversation.limits.idle_timeout < math.inf:
                self._idling = conversation.starter.start(self._end_when_idle)
            try:
                self._reading = anyio.CancelScope()
                self._joining.welcome()
                conversation.router.enter(session)
                if session.expires_at is not None:
                    self.expire()
                with self._reading:
                    try:
                        await self._read()
                    finally:
                        # A task can cancel the scope while it is being started. Deliver that here.
                        if self._reading.cancel_called:
                            await anyio.lowlevel.checkpoint()
                if self._state.state is State.CLOSING:
                    text = "a client didn't answer GOODBYE in time"
                    conversation.limit_log.record("goodbye_timeout", text)
            except ProtocolViolation as violation:
                conversation.violate(violation)
            except Exception:  # a bug of this package ends this session, but no other session
                logger.exception("session %s failed", session.id)
                conversation.abort(uris.RUNTIME_ERROR, "the server failed", INTERNAL_ERROR)
            except BaseException:
                conversation.outbound.discard()  # a cancelled task can't wait until it is sent
                conversation.close_code = INTERNAL_ERROR  # so that no other session follows
                raise
            finally:
                self._release()
            # Calls may still be sending. Limit the time for that: the starter would wait forever.
            if conversation.close_code is not None:
                await conversation.connection.finish(conversation.close_code)
            elif conversation.outbound.is_sending:
                await conversation.outbound.flush()

    async def _read(self) -> None:
        state, start_call = self._state, self.caller.start
        receive, session = self._conversation.connection.receive, self._conversation.session
        authorization = self._conversation.router.authorization
        while state.state is not State.CLOSED:
            try:
                received = await receive()
            except RefusedMessage as refused:
                self._refuse_message(refused)
                continue
            if received is None:
                await self._finish_publishing()
                state.lose()
                return
            message, unit = received
            if state.receive(message):
                if authorization is not None:
                    if not await self._may(authorization, session, message):
                        continue
                if type(message) is Call:
                    waiting = start_call(message, unit)
                    if waiting is not None:
                        await waiting
                elif type(message) is Publish:
                    waiting = self.publisher.publish(message, unit)
                    if waiting is not None:
                        await waiting
                else:
                    if type(message) is Goodbye:
                        await self._finish_publishing()
                    self._on[type(message)](self, message)

    async def _may(self, authorization: Authorization, session: Session, message: Message) -> bool:
        """Authorize a message; send the refusal if it isn't allowed."""
        question = question_about(session, message)
        if question is None:
            return True
        if isinstance(message, Call) and self.caller.is_open(message.request):
            return True  # further arguments of a call that was allowed
        answer = authorization.known(question)
        if answer is None:
            answer = await authorization.ask(question)
            if not self.is_open:
                return False
        if answer is not True:
            self._refuse(message, question.refusal(answer))
        return answer is True

    def _refuse(self, request: Message, error: WAMPError) -> None:
        if isinstance(request, Call):
            self.caller.refuse(request, error)
        elif not isinstance(request, Publish) or request.options.acknowledge:
            request_id: int = request.request  # type: ignore[attr-defined]
            self._conversation.send_error(request.type_code, request_id, error)

    async def _finish_publishing(self) -> None:
        """Wait, for a limited time, until the publications of a leaving client are complete."""
        if self._publisher is not None and self._publisher.are_waiting:
            with anyio.move_on_after(self._conversation.limits.goodbye_timeout):
                await self._publisher.wait_idle()

    def _refuse_message(self, refused: RefusedMessage) -> None:
        """Answer a message whose arguments are invalid or exceed a limit.

        Requests get an ERROR. An invalid YIELD or ERROR of a callee ends the call with an ERROR to
        its caller.

        Raises: RefusedMessage for any other message; it is a protocol violation then.
        """
        message = refused.request
        is_reply = isinstance(message, (Yield, Error))
        if not is_reply and not isinstance(message, (Call, Subscribe, Publish, Register)):
            raise refused
        if not self._state.receive(message):
            return
        if isinstance(refused, LimitExceeded):
            self._conversation.limit_log.record(refused.limit, "%s", refused.message)
        if is_reply:
            kind = message.request_type if isinstance(message, Error) else Invocation.type_code
            answer = RuntimeFailure("the callee's answer can't be handled")
            failure = Error(kind, message.request, {}, answer.uri, answer.args, answer.kwargs)
            self._on[Error](self, failure)
            return
        self._refuse(message, refused.error(refused.message))

    async def _end_when_idle(self) -> None:
        """Close the session after `Limits.idle_timeout` seconds without messages or work."""
        conversation, timeout = self._conversation, self._conversation.limits.idle_timeout
        silent_quarters = 0
        while silent_quarters < 4:
            before = conversation.connection.received
            await anyio.sleep(timeout / 4)
            is_silent = conversation.connection.received == before
            is_busy = self.caller.are_running or self.publisher.are_waiting
            is_waited_for = is_busy or conversation.outbound.backlog.blocks_reader
            silent_quarters = silent_quarters + 1 if is_silent and not is_waited_for else 0
        text = f"nothing was received for {timeout} seconds"
        conversation.limit_log.record("idle_timeout", "%s", text)
        await self.close(uris.KILLED, text)

    async def _end_when_expired(self, expires_at: float) -> None:
        """Close the session when its credentials expire."""
        left = expires_at - time()
        while left > 0:
            await anyio.sleep(min(left, CLOCK_SECONDS))
            left = expires_at - time()
        await self.close(uris.KILLED, "the credentials have expired")

    def _release(self) -> None:
        """Cancel the session's tasks and give up what it holds. This doesn't wait for the tasks.

        Calling it again is harmless.
        """
        conversation, session = self._conversation, self._conversation.session
        conversation.server.forget(session)
        if self.is_open:
            self._state.lose()
        if self._caller is not None:
            self._caller.cancel_all()
        if self._publisher is not None:
            self._publisher.cancel_all()
        if self._subscriber is not None:
            self._subscriber.close_all()
        if self._callee is not None:
            self._callee.close()
        was_member = conversation.router.leave(session, quietly=self._ends_quietly)
        if was_member and self._testaments is not None and not self._ends_quietly:
            conversation.starter.start(self._testaments.publish)
        if self._idling is not None:
            self._idling.cancel()
        if self._expiring is not None:
            self._expiring.cancel()

    # ---- received messages

    def _on_cancel(self, message: Cancel) -> None:
        self.caller.cancel(message)

    def _on_subscribe(self, message: Subscribe) -> None:
        self.subscriber.subscribe(message)

    def _on_unsubscribe(self, message: Unsubscribe) -> None:
        self.subscriber.unsubscribe(message)

    def _on_goodbye(self, message: Goodbye) -> None:
        if self._state.state is State.LEAVING:
            self._conversation.advance(Goodbye({}, uris.GOODBYE_AND_OUT))

    def _on_abort(self, message: Abort) -> None:
        self._conversation.close_code = REFUSED

    def _on_register(self, message: Register) -> None:
        self.callee.register(message)

    def _on_unregister(self, message: Unregister) -> None:
        self.callee.unregister(message)

    def _on_yield(self, message: Yield) -> None:
        self.callee.on_yield(message)

    def _on_error(self, message: Error) -> None:
        self.callee.on_error(message)

    _on: Final[Mapping[type[Message], Callable[[SessionEngine, Any], None]]] = {
        Cancel: _on_cancel,
        Subscribe: _on_subscribe,
        Unsubscribe: _on_unsubscribe,
        Register: _on_register,
        Unregister: _on_unregister,
        Yield: _on_yield,
        Error: _on_error,
        Goodbye: _on_goodbye,
        Abort: _on_abort,
    }

    # ---- SessionControl: what application code asks of the session

    def send_event(
        self, topic: str | None, subscription: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Awaitable[None]:
        """Queue an event for this session only; see `Session.send_event`.

        Without `topic`, the event goes to `subscription`, to which the session's handle is bound.
        """
        if self._subscriber is None:
            session_id = self._conversation.session.id
            logger.debug("session %s isn't subscribed to %r", session_id, topic)
            return self._conversation.outbound.room_for_events
        return self._subscriber.send_event(topic, subscription, args, kwargs)

    def is_subscribed(self, subscription: int) -> bool:
        """Tell whether the session has the subscription with that id."""
        return self._subscriber is not None and self._subscriber.has(subscription)

    def can_receive(self, value: Any) -> bool:
        """Tell whether the client's format can express a value."""
        return can_hold(self._conversation.serializer.format, value)

    def call(
        self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> ClientCall:
        """Return a call of a procedure that the client has registered."""

        def begin(call: ClientCall, details: Mapping[str, Any]) -> PendingInvocation:
            if not self.is_open:
                raise CallCanceled("the session isn't open")
            registration = self.callee.registration_for(uri)
            return self.callee.invoke(registration, uri, args, kwargs, call, details)

        return ClientCall(begin, timeout)

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return the ``(signature, extra)`` of AUTHENTICATE."""
        return await self._joining.challenge(method, extra)

    async def refresh(self, ticket: str) -> None:
        """Authenticate the session again, with a new ticket.

        Raises: WAMPError when it is refused. The session is unchanged then.
        """
        await self._joining.refresh(ticket)
        forget_answers(self._conversation.session)  # they may be different for the new identity

    def expire(self) -> None:
        """Apply a new `Session.expires_at`."""
        if self._expiring is not None:
            self._expiring.cancel()
            self._expiring = None
        expires_at = self._conversation.session.expires_at
        if self.is_open and expires_at is not None:
            start = self._conversation.starter.start
            self._expiring = start(self._end_when_expired, expires_at)

    async def close(self, reason: str, message: str | None, *, quietly: bool = False) -> None:
        """Send GOODBYE and give the client time to answer; do nothing if the session isn't open.

        With `quietly`, there are no meta events about the end, and no testaments are published. If
        `message` can't be expressed in the client's format, it is left out.
        """
        if not self.is_open:
            return
        self._ends_quietly = quietly
        details = {} if message is None else {"message": message}
        try:
            self._conversation.advance(Goodbye(details, reason))
        except SerializationError:
            self._conversation.advance(Goodbye({}, reason))
        self._conversation.close_code = GOING_AWAY if reason == uris.SYSTEM_SHUTDOWN else REFUSED
        assert self._reading is not None
        timeout = self._conversation.limits.goodbye_timeout
        self._reading.deadline = anyio.current_time() + timeout
        self._release()

    async def abort(self, reason: str, message: str | None) -> None:
        """Send ABORT and end the session at once."""
        was_open = self.is_open
        self._conversation.abort(reason, message or reason, REFUSED)
        if was_open:
            self._release()  # now, so that no event can follow ABORT
        if self._reading is not None:
            self._reading.cancel()

    def lose(self, close_code: int | None = None) -> None:
        """End the session without a message, because the connection is lost.

        With `close_code`, the server gives up the client and closes the connection.
        """
        if close_code is not None:
            self._conversation.close_code = close_code
        was_open = self.is_open or self._state.state is State.CLOSING
        self._state.lose()
        scope = self._reading if was_open and self._reading is not None else self._joining.scope
        scope.cancel()

    # ---- what the server asks of the session

    async def disconnect(self, wanted: Mapping[str, Any], reason: str, message: str | None) -> bool:
        """End the session if it has all attributes in `wanted`; tell whether it has."""
        if not (self.is_open or self._is_joining):
            return False
        session = self._conversation.session
        if any(getattr(session, name) != value for name, value in wanted.items()):
            return False
        if self.is_open:
            await self.close(reason, message)
        else:
            self._conversation.abort(reason, message or reason, REFUSED)
            self._joining.scope.cancel()
        return True

    async def shut_down(self, grace: float) -> None:
        """End the session when its calls and publications are complete.

        After `grace` seconds, the rest is cancelled. That includes the calls that the client has to
        answer.
        """
        if self.is_open:
            with anyio.move_on_after(grace):
                await self.caller.wait_idle()
                await self.publisher.wait_idle()
                if self._callee is not None:
                    await self._callee.wait_idle()
            self.caller.answer_all(CallCanceled(SHUTTING_DOWN))
            if self._conversation.server.is_saying_goodbye:
                await self.close(uris.SYSTEM_SHUTDOWN, None)
            else:
                self.lose(SERVICE_RESTART)
        elif self._is_joining:
            self._conversation.turn_away()
            self._joining.scope.cancel()
