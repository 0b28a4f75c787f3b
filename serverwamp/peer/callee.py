"""What a client serves: the procedures that it has registered, and the calls that it has to answer.

A bad or missing answer must not harm anybody except the caller. An invocation ends when the client
answers it, when it is abandoned, or when the client leaves. Later answers to it are ignored.

Spec: Basic Profile, "Calling and Invocations"; Advanced Profile, "Call Canceling".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Protocol, TypeAlias

from serverwamp import uris
from serverwamp.concurrency.changes import Changes
from serverwamp.errors import (
    CallCanceled,
    FeatureNotSupported,
    InvalidURI,
    NoSuchProcedure,
    NoSuchRegistration,
    ProcedureAlreadyExists,
    ProtocolViolation,
    SerializationError,
    Unavailable,
    WAMPError,
)
from serverwamp.limits import Limits
from serverwamp.outbound.sender import Capacity
from serverwamp.patterns import PatternTable
from serverwamp.peer.conversation import Conversation
from serverwamp.protocol.messages import (
    Args,
    Error,
    Interrupt,
    Invocation,
    Kwargs,
    Register,
    Registered,
    Unregister,
    Unregistered,
    Yield,
)
from serverwamp.protocol.state import INVALID, WRONG_ID
from serverwamp.router.dealer import Registration
from serverwamp.router.features import CalleeFeatures
from serverwamp.session import Session

REGISTER: Final = Register.type_code
UNREGISTER: Final = Unregister.type_code
INVOCATION: Final = Invocation.type_code


class InvocationObserver(Protocol):
    """Receives the answer to an invocation: any number of reports, then one result or error.

    An abandoned or forgotten invocation reports nothing more.
    """

    def take_progress(self, args: Args, kwargs: Kwargs) -> None:
        """Take a progress report."""

    def take_result(self, args: Args, kwargs: Kwargs) -> None:
        """Take the result, which ends the invocation."""

    def take_error(self, error: WAMPError) -> None:
        """Take an error, which ends the invocation."""


class PendingInvocation:
    """An INVOCATION that a client has not answered yet."""

    __slots__ = ("_callee", "first", "id", "observer")

    def __init__(self, id: int, callee: CalleeRole, observer: InvocationObserver) -> None:
        self.id: int = id
        """The request id of the INVOCATION."""
        self._callee = callee
        self.observer: InvocationObserver = observer
        self.first: Invocation | None = None
        """For streamed arguments: the first INVOCATION, without arguments. Others repeat it."""

    @property
    def timeout(self) -> float:
        """How many seconds the application waits for an answer by default."""
        return self._callee.limits.invocation_timeout

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the client understands INTERRUPT."""
        return self._callee.features.call_canceling

    def interrupt(self) -> None:
        """Ask the client to stop; its answer is still handed over."""
        self._callee.interrupt(self, "kill")

    def abandon(self) -> None:
        """Ignore the answer, and ask the client to stop if it understands that."""
        self._callee.forget(self)
        self._callee.interrupt(self, "killnowait")

    @property
    def room(self) -> Capacity:
        """The client's capacity for further arguments; await it until there is room."""
        return self._callee.room

    def go_on(self, args: Args, kwargs: Kwargs, *, is_last: bool) -> None:
        """Send further arguments.

        Raises: InvalidArgument when the client's format can't express them.
        """
        self._callee.go_on(self, args, kwargs, is_last=is_last)

    def forget(self) -> None:
        """Ignore the answer, without telling the client."""
        self._callee.forget(self)


OwnRegistration: TypeAlias = "Registration[CalleeRole]"
"""A registration of this session, which it may share with other sessions."""


class CalleeRole:
    """The client as a callee."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._router = conversation.router
        self._outbound = conversation.outbound
        self._encode_wire = conversation.serializer.encode_wire
        self.room: Capacity = conversation.outbound.room_for_replies
        self.session: Session = conversation.session
        self.limits: Limits = conversation.limits
        self._registrations: PatternTable[OwnRegistration] = PatternTable()
        self._by_id: dict[int, OwnRegistration] = {}
        self._pending: dict[int, PendingInvocation] = {}
        self._last_id = 0
        self._changes = Changes()  # when an invocation ends

    @cached_property
    def features(self) -> CalleeFeatures:
        """The features of its callee role that the client announced in HELLO."""
        return CalleeFeatures(self._conversation.callee_role)

    # ---- registrations

    def register(self, message: Register) -> None:
        """Register a procedure, for the application or also for other clients; answer the request.

        Other clients can call it if a registration policy of the realm covers it.
        """
        try:
            registration = self._registered(message)
        except WAMPError as error:
            self._conversation.send_error(REGISTER, message.request, error)
            return
        # Queue REGISTERED first, and don't wait in between, so that no INVOCATION precedes it.
        self._conversation.answer(Registered(message.request, registration.id))
        self._registrations.add(registration.procedure, registration.match, registration)
        self._by_id[registration.id] = registration
        if registration.callees and self._router.meta.registrations is not None:
            self._router.meta.registrations.note_joined(self.session, registration)

    def _registered(self, message: Register) -> OwnRegistration:
        uri, match = message.procedure, message.options.match or "exact"
        if not uris.is_valid_uri(uri, match) or uris.is_reserved(uri):
            raise InvalidURI(f"{uri!r} is not a URI that clients can register")
        policy, endpoints = self._router.registration_policy(uri, match), self._router.endpoints
        taken = endpoints.has_procedure if policy is None else endpoints.serves
        if taken(uri, match):
            raise ProcedureAlreadyExists(f"the application serves {uri!r} itself")
        if self._registrations.get(uri, match) is not None:
            raise ProcedureAlreadyExists(f"the session has registered {uri!r} already")
        if len(self._by_id) >= self.limits.registrations:
            text = "session %s has %s registrations"
            count = len(self._by_id)
            self._conversation.limit_log.record("registrations", text, self.session.id, count)
            raise Unavailable("the session has the maximum number of registrations")
        dealer = self._router.dealer
        if policy is None:
            return Registration(dealer.new_id(), uri, match)
        invoke = message.options.invoke or "single"
        registration: OwnRegistration = dealer.register(uri, match, invoke, self)
        registration.policy = policy
        registration.discloses_callers = policy.disclose_caller
        return registration

    def unregister(self, message: Unregister) -> None:
        """End a registration; unanswered invocations go on."""
        registration = self._by_id.pop(message.registration, None)
        if registration is None:
            error = NoSuchRegistration("the session has no such registration")
            self._conversation.send_error(UNREGISTER, message.request, error)
            return
        self._withdraw(registration)
        self._conversation.answer(Unregistered(message.request))

    def _withdraw(self, registration: OwnRegistration) -> None:
        self._registrations.remove(registration.procedure, registration.match)
        if self in registration.callees:  # other clients can call it
            self._router.dealer.unregister(registration, self)
            if self._router.meta.registrations is not None:
                self._router.meta.registrations.note_left(self.session, registration)

    def registration_for(self, procedure: str) -> OwnRegistration:
        """Return the registration by which this client serves a procedure.

        Raises: NoSuchProcedure.
        """
        registration = self._registrations.best(procedure)
        if registration is None:
            raise NoSuchProcedure(f"session {self.session.id} has registered no {procedure!r}")
        return registration

    def close(self) -> None:
        """End all registrations and invocations, because the session has ended."""
        for registration in self._by_id.values():
            self._withdraw(registration)
        self._by_id.clear()
        pending = list(self._pending.values())
        self._pending.clear()
        self._changes.notify()
        for invocation in pending:
            invocation.observer.take_error(CallCanceled("the client that was called is gone"))

    # ---- invocations

    def invoke(
        self,
        registration: OwnRegistration,
        procedure: str,
        args: Args,
        kwargs: Kwargs,
        observer: InvocationObserver,
        details: Mapping[str, Any],
    ) -> PendingInvocation:
        """Send INVOCATION to the client; `observer` receives the answer.

        `details` may ask for progress reports. That is left out if the client can't send any. They
        may also say that further arguments follow.

        Raises: WAMPError when the client can't be called.
        """
        conversation = self._conversation
        if not conversation.is_open:
            raise CallCanceled("the client that was called is gone")
        is_full = len(self._pending) >= self.limits.invocations_in_flight
        if is_full or self._outbound.backlog.blocks_reader:
            raise self._too_busy()
        if "progress" in details and not self.features.progressive_call_invocations:
            raise FeatureNotSupported("the callee does not accept streamed arguments")
        id_ = self._last_id + 1
        if registration.match != "exact":
            details = {**details, "procedure": procedure}
        if "receive_progress" in details and not self.features.progressive_call_results:
            details = {key: details[key] for key in details if key != "receive_progress"}
        try:
            unit = self._encode_wire(_wire(id_, registration.id, details, args, kwargs))
        except SerializationError as error:
            raise error.answer(f"the arguments can't be sent to the callee: {error}") from None
        self._last_id = id_
        invocation = self._pending[id_] = PendingInvocation(id_, self, observer)
        if "progress" in details:
            invocation.first = Invocation(id_, registration.id, details)
        self._outbound.put(unit)
        return invocation

    def _too_busy(self) -> WAMPError:
        """Return the error for another call of a client that is too busy, and log the limit."""
        text = "session %s has %s unanswered invocations, or reads too slowly"
        record, count = self._conversation.limit_log.record, len(self._pending)
        record("invocations_in_flight", text, self.session.id, count)
        return Unavailable("the client that was called is busy")

    def go_on(
        self, invocation: PendingInvocation, args: Args, kwargs: Kwargs, *, is_last: bool
    ) -> None:
        """Send further arguments, with the details of the first INVOCATION.

        Raises: InvalidArgument when the client's format can't express them.
        """
        first = invocation.first
        assert first is not None
        details = dict(first.details)
        if is_last:
            del details["progress"]
        try:
            message = Invocation(first.request, first.registration, details, args, kwargs)
            self._conversation.send(message)
        except SerializationError as error:
            raise error.answer(f"the arguments can't be sent to the callee: {error}") from None

    def interrupt(self, invocation: PendingInvocation, mode: str) -> None:
        """Send INTERRUPT, if the client understands it."""
        if self.features.call_canceling:
            self._conversation.send(Interrupt(invocation.id, {"mode": mode}))

    def forget(self, invocation: PendingInvocation) -> None:
        """End an invocation and ignore its answer."""
        self._pending.pop(invocation.id, None)
        self._changes.notify()

    async def wait_idle(self) -> None:
        """Return when no invocation waits for an answer."""
        await self._changes.wait_until(lambda: not self._pending)

    # ---- answers

    def on_yield(self, message: Yield) -> None:
        """Hand a result or progress report to the observer.

        Raises: ProtocolViolation for an invocation that never existed.
        """
        invocation = self._pending.get(message.request)
        if invocation is None:
            self._check_is_late(message.request)
            return
        args, kwargs = message.args or (), message.kwargs or {}
        if message.options.progress:
            invocation.observer.take_progress(args, kwargs)
            return
        del self._pending[message.request]
        self._changes.notify()
        invocation.observer.take_result(args, kwargs)

    def on_error(self, message: Error) -> None:
        """Hand an error to the observer.

        Raises: ProtocolViolation when it doesn't answer an invocation that exists or existed.
        """
        if message.request_type != INVOCATION:
            raise ProtocolViolation("clients may send ERROR only for INVOCATION", kind=INVALID)
        invocation = self._pending.pop(message.request, None)
        if invocation is None:
            self._check_is_late(message.request)
            return
        self._changes.notify()
        uri = message.error if uris.is_valid_uri(message.error) else uris.RUNTIME_ERROR
        invocation.observer.take_error(WAMPError(uri, message.args or (), message.kwargs or {}))

    def _check_is_late(self, request: int) -> None:
        if request > self._last_id:
            raise ProtocolViolation(f"there was no INVOCATION {request}", kind=WRONG_ID)


def _wire(id_: int, registration: int, details: Any, args: Args, kwargs: Kwargs) -> tuple[Any, ...]:
    """Return the same as `Invocation(...).wire()`, in half the time."""
    if kwargs:
        return (INVOCATION, id_, registration, details, args, kwargs)
    if args:
        return (INVOCATION, id_, registration, details, args)
    return (INVOCATION, id_, registration, details)
