"""How a session begins: from HELLO, by way of its authentication, to WELCOME or a refusal."""

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
    """Leave out what some clients send as null, and mean as absent."""
    return {name: value for name, value in extra.items() if value is not None}


class _ClientLeft(Exception):
    """The client is gone, or has sent ABORT, while it was to be authenticated."""


def _from_now(seconds: float) -> float:
    return anyio.current_time() + seconds


class Joining:
    """The beginning of a session, for which a client has only so much time.

    `scope` sees to that. It spans the whole session all the same, because lifespan handlers can
    leave scopes of their own open in it.
    """

    __slots__ = ("_admitted_by", "_asked_for", "_control", "_conversation", "scope")

    _admitted_by: RealmRouter
    _asked_for: str

    def __init__(self, conversation: Conversation, control: SessionControl) -> None:
        self._conversation = conversation
        self._control = control
        self.scope: anyio.CancelScope = anyio.CancelScope(
            deadline=_from_now(conversation.limits.hello_timeout)
        )

    async def receive_hello(self) -> RealmRouter | None:
        """Receive HELLO, and return the realm to be joined; None if that isn't to be."""
        conversation = self._conversation
        hello = await self._next_hello()
        if hello is None:
            return None
        realm = self._router_for(hello)
        if realm is None:
            return None
        conversation.router = self._admitted_by = realm
        conversation.session = self._new_session(hello)
        conversation.callee_role = (hello.details.roles or {}).get("callee")
        self._asked_for = conversation.session.realm
        if realm.keeps_clients_waiting:
            self.scope.deadline = _from_now(conversation.limits.authentication_timeout)
        return realm

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
        realm = server.router_for(hello.realm)
        if realm is None:
            self._refuse(NoSuchRealm(f"there is no realm {hello.realm!r}"))
        return realm

    async def join(self, lifespan: AsyncExitStack) -> None:
        """Authenticate the session, or refuse it."""
        conversation = self._conversation
        realm, session = conversation.router, conversation.session
        try:
            self._check_sessions()
            await realm.open_lifespan_handlers(session, lifespan, authenticated=False)
            await self._authenticate()
            if conversation.state.state is State.AUTHENTICATING:
                if session.realm != self._asked_for or not session.realm:
                    await self._move_to_assigned_realm(lifespan)
                    realm = conversation.router
                await realm.open_lifespan_handlers(session, lifespan, authenticated=True)
            self._check_sessions()  # others have joined meanwhile
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
        """Let the session be one of the realm that an authenticator has chosen for it.

        Raises: NoSuchRealm.
        """
        conversation, uri = self._conversation, self._conversation.session.realm
        realm = conversation.server.router_for(uri) if uris.is_valid_uri(uri) else None
        if realm is None:
            logger.warning("session %s was given no realm: %.100r", conversation.session.id, uri)
            raise NoSuchRealm("there is no realm for this client")
        if realm is not self._admitted_by:
            conversation.router = realm
            await realm.open_lifespan_handlers(conversation.session, lifespan, authenticated=False)

    def _check_sessions(self) -> None:
        count = len(self._conversation.server.sessions)
        if count >= self._conversation.limits.sessions:
            self._conversation.limit_log.record("sessions", "%s sessions are open", count)
            raise Unavailable("the server has as many sessions as it may have")

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
        try:
            await self._admitted_by.authentication.authenticate(session)
            if session.expires_at is not None and session.expires_at <= time():
                raise AuthenticationFailed("the credentials have expired")
        except BaseException as error:
            raise_unless_failure(error)
            raise self._reason_of(error) from None

    def _reason_of(self, error: BaseException) -> Exception:
        """Return why an authenticator refuses a session; the log gets the rest of `error`."""
        kinds = (ProtocolViolation, WAMPError, _ClientLeft)
        reason = next((part for part in parts_of(error) if isinstance(part, kinds)), None)
        unknown = without(error, reason)
        if unknown is not None:
            id_ = self._conversation.session.id
            logger.error("an authenticator failed for session %s", id_, exc_info=unknown)
        return AuthenticationFailed("authentication failed") if reason is None else reason

    async def refresh(self, ticket: str) -> None:
        """Authenticate the open session by a ticket once more.

        Raises: WAMPError; the session is left as it was then.
        """
        session = self._conversation.session
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
            await self._admitted_by.authentication.refresh(session, renewed, ticket)
        except Exception as error:
            raise self._reason_of(error) from None

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return what AUTHENTICATE brings."""
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
        """Queue WELCOME: the session is open."""
        session = self._conversation.session
        details = {
            "realm": session.realm,
            "agent": "serverwamp",
            "roles": self._conversation.router.features.roles_for(session),
            "authid": session.auth_id,
            "authrole": session.auth_role,
            "authprovider": session.auth_provider,
        }
        if session.auth_method is not None:  # told of a method it didn't offer, a client leaves
            details["authmethod"] = session.auth_method
        if session.welcome_extra is not None:
            details["authextra"] = session.welcome_extra
        self._conversation.advance(Welcome(session.id, details))

    def tell_of_timeout(self) -> None:
        """Refuse the session because its time was over, if it was."""
        conversation, note = self._conversation, self._conversation.limit_log.record
        if conversation.state.state is State.AWAITING_HELLO:
            note("hello_timeout", "a client said no HELLO in time")
            conversation.abort(uris.PROTOCOL_VIOLATION, "no HELLO in time", 1002)
        elif conversation.state.state is not State.CLOSED:
            note("authentication_timeout", "a client wasn't authenticated in time")
            conversation.abort(uris.AUTHENTICATION_FAILED, "not authenticated in time", REFUSED)
