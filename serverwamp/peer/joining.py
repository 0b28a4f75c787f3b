"""The beginning of a session: HELLO, authentication, and WELCOME or a refusal.

Spec: Basic Profile, "Sessions"; Advanced Profile, "Authentication".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from time import time
from typing import Any

import anyio

from serverwamp import uris
from serverwamp.concurrency.failures import raise_unless_failure
from serverwamp.errors import (
    AuthenticationFailed,
    NoSuchRealm,
    ProtocolViolation,
    Unavailable,
    WAMPError,
    parts_of,
    without,
)
from serverwamp.peer.conversation import REFUSED, SHUTTING_DOWN, Conversation
from serverwamp.protocol.ids import new_session_id
from serverwamp.protocol.messages import Authenticate, Challenge, Hello, Welcome
from serverwamp.protocol.state import State
from serverwamp.router.router import RealmRouter
from serverwamp.session import Session, SessionControl

logger: logging.Logger = logging.getLogger(__name__)


def _without_nulls(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out entries whose value is null; some clients send null for absent entries."""
    return {name: value for name, value in extra.items() if value is not None}


class _ClientLeft(Exception):
    """The client has disconnected, or sent ABORT, during its authentication."""


def _from_now(seconds: float) -> float:
    return anyio.current_time() + seconds


class Joining:
    """The beginning of one session.

    `scope` has the deadline for HELLO, and then for the authentication. The scope spans the whole
    session, because lifespan handlers can open other scopes inside it that stay open. Its deadline
    is removed when the session joins.
    """

    __slots__ = ("_admitting_router", "_asked_for", "_control", "_conversation", "scope")

    def __init__(self, conversation: Conversation, control: SessionControl) -> None:
        self._conversation = conversation
        self._control = control
        self._asked_for = ""  # the realm in HELLO
        self._admitting_router: RealmRouter | None = None  # its realm authenticates the client
        self.scope: anyio.CancelScope = anyio.CancelScope(
            deadline=_from_now(conversation.limits.hello_timeout)
        )

    async def receive_hello(self) -> RealmRouter | None:
        """Receive HELLO and return the router of the realm to join; None if the session is over."""
        conversation = self._conversation
        hello = await self._next_hello()
        if hello is None:
            return None
        router = self._router_for(hello)
        if router is None:
            return None
        self._admitting_router = router
        self._asked_for = hello.realm or ""
        callee_role = (hello.details.roles or {}).get("callee")
        conversation.begin(self._new_session(hello), router, callee_role)
        if router.keeps_clients_waiting:
            self.scope.deadline = _from_now(conversation.limits.authentication_timeout)
        return router

    async def _next_hello(self) -> Hello | None:
        conversation = self._conversation
        try:
            received = await conversation.connection.receive()
            if received is None:
                conversation.state.lose()
                return None
            conversation.state.receive(received[0])
        except ProtocolViolation as violation:
            conversation.violate(violation)
            return None
        if isinstance(received[0], Hello):
            return received[0]
        conversation.close_code = REFUSED  # the client sent ABORT
        return None

    def _router_for(self, hello: Hello) -> RealmRouter | None:
        server = self._conversation.server
        if server.is_draining:
            logger.info("a session is refused: %s", SHUTTING_DOWN)
            self._conversation.turn_away()
            return None
        router = server.router_for(hello.realm)
        if router is None:
            self._refuse(NoSuchRealm(f"there is no realm {hello.realm!r}"))
        return router

    async def join(self, lifespan: AsyncExitStack) -> None:
        """Authenticate the session, or refuse it; `lifespan` closes its lifespan handlers."""
        conversation = self._conversation
        router, session = conversation.router, conversation.session
        try:
            self._check_sessions()
            await router.open_lifespan_handlers(session, lifespan, authenticated=False)
            await self._authenticate()
            if conversation.state.state is State.AUTHENTICATING:
                if session.realm != self._asked_for or not session.realm:
                    await self._move_to_assigned_realm(lifespan)
                    router = conversation.router
                await router.open_lifespan_handlers(session, lifespan, authenticated=True)
            self._check_sessions()  # other sessions may have joined in the meantime
        except ProtocolViolation as violation:
            conversation.violate(violation)
        except _ClientLeft:
            conversation.close_code = REFUSED
        except BaseException as error:
            raise_unless_failure(error)
            doing = f"the beginning of session {session.id}"
            self._refuse(await conversation.error_for(error, doing))
        if conversation.state.state is State.AUTHENTICATING:
            self.scope.deadline = math.inf

    async def _move_to_assigned_realm(self, lifespan: AsyncExitStack) -> None:
        """Move the session to the realm that an authenticator has assigned to it.

        Raises: NoSuchRealm.
        """
        conversation, uri = self._conversation, self._conversation.session.realm
        router = conversation.server.router_for(uri) if uris.is_valid_uri(uri) else None
        if router is None:
            logger.warning(
                "session %s was assigned an unknown realm: %.100r", conversation.session.id, uri
            )
            raise NoSuchRealm("there is no realm for this client")
        if router is not self._admitting_router:
            conversation.move_to(router)
            await router.open_lifespan_handlers(conversation.session, lifespan, authenticated=False)

    def _check_sessions(self) -> None:
        count = len(self._conversation.server.sessions)
        if count >= self._conversation.limits.sessions:
            self._conversation.limit_log.record("sessions", "%s sessions are open", count)
            raise Unavailable("the server has the maximum number of sessions")

    def _refuse(self, error: WAMPError) -> None:
        logger.info("a session is refused: %.300s", error)
        self._conversation.abort(error.uri, error.message, REFUSED)

    def _new_session(self, hello: Hello) -> Session:
        session_id = new_session_id()
        while session_id in self._conversation.server.sessions:
            session_id = new_session_id()
        details = hello.details
        return Session(
            id=session_id,
            realm=hello.realm or "",
            connection=self._conversation.connection,
            control=self._control,
            auth_id=details.authid,
            auth_methods=details.authmethods or (),
            auth_extra=details.authextra and _without_nulls(details.authextra),
        )

    async def _authenticate(self) -> None:
        session = self._conversation.session
        assert self._admitting_router is not None
        try:
            await self._admitting_router.authentication.authenticate(session)
            if session.expires_at is not None and session.expires_at <= time():
                raise AuthenticationFailed("the credentials have expired")
        except BaseException as error:
            raise_unless_failure(error)
            raise self._reason_of(error) from None

    def _reason_of(self, error: BaseException) -> Exception:
        """Return why an authenticator has refused a session; log any other part of `error`."""
        kinds = (ProtocolViolation, WAMPError, _ClientLeft)
        reason = next((part for part in parts_of(error) if isinstance(part, kinds)), None)
        unknown = without(error, reason)
        if unknown is not None:
            id_ = self._conversation.session.id
            logger.error("an authenticator failed for session %s", id_, exc_info=unknown)
        return AuthenticationFailed("authentication failed") if reason is None else reason

    async def refresh(self, ticket: str) -> None:
        """Authenticate the open session again, with a new ticket.

        Raises: WAMPError when it is refused. The session is unchanged then.
        """
        session = self._conversation.session
        assert self._admitting_router is not None
        renewed = Session(
            id=session.id,
            realm=self._asked_for,
            connection=session.connection,
            control=self._control,
            auth_id=session.auth_id,
            auth_methods=session.auth_methods,
            auth_extra=session.auth_extra,
        )
        try:
            await self._admitting_router.authentication.refresh(session, renewed, ticket)
        except Exception as error:
            raise self._reason_of(error) from None

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return the ``(signature, extra)`` of AUTHENTICATE.

        Raises: ProtocolViolation; _ClientLeft when the client disconnects or sends ABORT.
        """
        conversation = self._conversation
        conversation.advance(Challenge(method, extra))
        received = await conversation.connection.receive()
        if received is None:
            conversation.state.lose()
            raise _ClientLeft
        message = received[0]
        conversation.state.receive(message)
        if not isinstance(message, Authenticate):
            raise _ClientLeft
        return message.signature, message.extra

    def welcome(self) -> None:
        """Queue WELCOME, which opens the session."""
        session = self._conversation.session
        details = {
            "realm": session.realm,
            "agent": "serverwamp",
            "roles": self._conversation.router.features.roles_for(session),
            "authid": session.auth_id,
            "authrole": session.auth_role,
            "authprovider": session.auth_provider,
        }
        if session.auth_method is not None:  # clients leave if they didn't offer the method
            details["authmethod"] = session.auth_method
        if session.welcome_extra is not None:
            details["authextra"] = session.welcome_extra
        self._conversation.advance(Welcome(session.id, details))

    def tell_of_timeout(self) -> None:
        """Refuse the session, after the deadline of `scope`; do nothing if it is over already."""
        conversation, note = self._conversation, self._conversation.limit_log.record
        if conversation.state.state is State.AWAITING_HELLO:
            note("hello_timeout", "a client sent no HELLO in time")
            conversation.abort(uris.PROTOCOL_VIOLATION, "no HELLO in time", 1002)
        elif conversation.state.state is not State.CLOSED:
            note("authentication_timeout", "a client wasn't authenticated in time")
            conversation.abort(uris.AUTHENTICATION_FAILED, "not authenticated in time", REFUSED)
