"""What a client serves: the procedures that it has registered, and the calls it has to answer.

A client's answer is another peer's: whatever it is, and whether it comes or not, must harm nobody
but who called it. An invocation is over when it is answered, abandoned, or its client is gone;
what the client still says of it then is ignored.

Spec: Basic Profile, "Calling and CalleeRole"; Advanced Profile, "Call Canceling".
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
    """Who waits for the answer to an invocation; each is told of exactly one end."""

    def take_progress(self, args: Args, kwargs: Kwargs) -> None: ...

    def take_result(self, args: Args, kwargs: Kwargs) -> None: ...

    def take_error(self, error: WAMPError) -> None: ...


class PendingInvocation:
    """A call that a client has been given and not yet answered."""

    __slots__ = ("_callee", "_observer", "first", "id")

    def __init__(self, id: int, callee: CalleeRole, observer: InvocationObserver) -> None:
        self.id: int = id
        """The request id of the INVOCATION."""
        self._callee = callee
        self._observer = observer
        self.first: Invocation | None = None
        """Where others with further arguments may follow, the one that they follow, without its
        own."""

    @property
    def timeout(self) -> float:
        """How many seconds the application waits for an answer, unless it says something else."""
        return self._callee.limits.invocation_timeout

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the client can be told that nobody waits any more."""
        return self._callee.features.call_canceling

    def interrupt(self) -> None:
        """Ask the client to stop; its answer is still waited for."""
        self._callee.interrupt(self, "kill")

    def abandon(self) -> None:
        """Wait for no answer any more, and tell the client if it can be told."""
        self._callee.forget(self)
        self._callee.interrupt(self, "killnowait")

    @property
    def room(self) -> Capacity:
        """What can be awaited until the client has read enough to be sent more."""
        return self._callee.room

    def go_on(self, args: Args, kwargs: Kwargs, *, is_last: bool) -> None:
        """Send further arguments.

        Raises: WAMPError when they can't be sent.
        """
        self._callee.go_on(self, args, kwargs, is_last=is_last)

    def forget(self) -> None:
        """Wait for no answer any more, and don't tell."""
        self._callee.forget(self)


OwnRegistration: TypeAlias = "Registration[CalleeRole]"


class CalleeRole:
    """The callee's side of a session."""

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
        """What the client can do as a callee."""
        return CalleeFeatures(self._conversation.callee_role)

    # ---- registrations

    def register(self, message: Register) -> None:
        """Let the client serve a procedure: for the application, or for other clients as well."""
        try:
            registration = self._registered(message)
        except WAMPError as error:
            self._conversation.send_error(REGISTER, message.request, error)
            return
        # In this order, with nothing in between: no INVOCATION may come before REGISTERED.
        self._conversation.answer(Registered(message.request, registration.id))
        self._registrations.add(registration.procedure, registration.match, registration)
        self._by_id[registration.id] = registration
        if registration.callees and self._router.meta.registrations is not None:
            self._router.meta.registrations.note_joined(self.session, registration)

    def _registered(self, message: Register) -> OwnRegistration:
        uri, match = message.procedure, message.options.match or "exact"
        if not uris.is_valid_uri(uri, match) or uris.is_reserved(uri):
            raise InvalidURI(f"{uri!r} is not a URI that clients may register")
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
            raise Unavailable("the session has as many registrations as it may have")
        dealer = self._router.dealer
        if policy is None:
            return Registration(dealer.new_id(), uri, match)
        invoke = message.options.invoke or "single"
        registration: OwnRegistration = dealer.register(uri, match, invoke, self)
        registration.policy = policy
        registration.discloses_callers = policy.disclose_caller
        return registration

    def unregister(self, message: Unregister) -> None:
        """End a registration; calls that the client has been given go on."""
        registration = self._by_id.pop(message.registration, None)
        if registration is None:
            error = NoSuchRegistration("the session has no such registration")
            self._conversation.send_error(UNREGISTER, message.request, error)
            return
        self._withdraw(registration)
        self._conversation.answer(Unregistered(message.request))

    def _withdraw(self, registration: OwnRegistration) -> None:
        self._registrations.remove(registration.procedure, registration.match)
        if self in registration.callees:  # so it is shared
            self._router.dealer.unregister(registration, self)
            if self._router.meta.registrations is not None:
                self._router.meta.registrations.note_left(self.session, registration)

    def registration_for(self, procedure: str) -> OwnRegistration:
        """Return the client's own registration that serves a procedure.

        Raises: NoSuchProcedure.
        """
        registration = self._registrations.best(procedure)
        if registration is None:
            raise NoSuchProcedure(f"session {self.session.id} has registered no {procedure!r}")
        return registration

    def close(self) -> None:
        """End all that the client serves: its callers are told that it is gone."""
        for registration in self._by_id.values():
            self._withdraw(registration)
        self._by_id.clear()
        pending = list(self._pending.values())
        self._pending.clear()
        self._changes.notify()
        for invocation in pending:
            invocation._observer.take_error(CallCanceled("the client that was called is gone"))

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
        """Have the client answer a call: `caller` is told what becomes of it.

        `details` may ask for progress, which is left out for a client that can't report any, and
        may say that further arguments follow.

        Raises: WAMPError when it can't be called.
        """
        conversation = self._conversation
        if not conversation.is_open:
            raise CallCanceled("the client that was called is gone")
        is_full = len(self._pending) >= self.limits.invocations_in_flight
        if is_full or self._outbound.backlog.blocks_reader:
            text = "session %s has %s calls to answer, or doesn't read them"
            count = len(self._pending)
            conversation.limit_log.record("invocations_in_flight", text, self.session.id, count)
            raise Unavailable("the client that was called is busy")
        if "progress" in details and not self.features.progressive_call_invocations:
            raise FeatureNotSupported("the callee takes its arguments all at once")
        id_ = self._last_id + 1
        if registration.match != "exact":
            details = {**details, "procedure": procedure}
        if "receive_progress" in details and not self.features.progressive_call_results:
            details = {key: details[key] for key in details if key != "receive_progress"}
        try:
            unit = self._encode_wire(_wire(id_, registration.id, details, args, kwargs))
        except SerializationError as error:
            raise error.answer(f"the callee can't be sent the arguments: {error}") from None
        self._last_id = id_
        invocation = self._pending[id_] = PendingInvocation(id_, self, observer)
        if "progress" in details:
            invocation.first = Invocation(id_, registration.id, details)
        self._outbound.put(unit)
        return invocation

    def go_on(
        self, invocation: PendingInvocation, args: Args, kwargs: Kwargs, *, is_last: bool
    ) -> None:
        """Send further arguments of a call, with the details of the first.

        Raises: InvalidArgument.
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
            raise error.answer(f"the callee can't be sent the arguments: {error}") from None

    def interrupt(self, invocation: PendingInvocation, mode: str) -> None:
        """Send INTERRUPT to a client that understands it."""
        if self.features.call_canceling:
            self._conversation.send(Interrupt(invocation.id, {"mode": mode}))

    def forget(self, invocation: PendingInvocation) -> None:
        """Ignore what the client says of an invocation from now on."""
        self._pending.pop(invocation.id, None)
        self._changes.notify()

    async def wait_idle(self) -> None:
        """Return when the client has answered everything that it was asked."""
        await self._changes.wait_until(lambda: not self._pending)

    # ---- answers

    def on_yield(self, message: Yield) -> None:
        """Hand on a result, or a report of progress."""
        invocation = self._pending.get(message.request)
        if invocation is None:
            self._check_is_late(message.request)
            return
        args, kwargs = message.args or (), message.kwargs or {}
        if message.options.progress:
            invocation._observer.take_progress(args, kwargs)
            return
        del self._pending[message.request]
        self._changes.notify()
        invocation._observer.take_result(args, kwargs)

    def on_error(self, message: Error) -> None:
        """Hand on an error.

        Raises: ProtocolViolation for an ERROR that answers something else than an INVOCATION.
        """
        if message.request_type != INVOCATION:
            raise ProtocolViolation("ERROR answers an INVOCATION, or nothing", kind=INVALID)
        invocation = self._pending.pop(message.request, None)
        if invocation is None:
            self._check_is_late(message.request)
            return
        self._changes.notify()
        uri = message.error if uris.is_valid_uri(message.error) else uris.RUNTIME_ERROR
        invocation._observer.take_error(WAMPError(uri, message.args or (), message.kwargs or {}))

    def _check_is_late(self, request: int) -> None:
        if request > self._last_id:
            raise ProtocolViolation(f"there was no invocation {request}", kind=WRONG_ID)


def _wire(id_: int, registration: int, details: Any, args: Args, kwargs: Kwargs) -> tuple[Any, ...]:
    """Return what `Invocation.wire` would, in half the time."""
    if kwargs:
        return (INVOCATION, id_, registration, details, args, kwargs)
    if args:
        return (INVOCATION, id_, registration, details, args)
    return (INVOCATION, id_, registration, details)
