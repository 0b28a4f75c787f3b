"""The handles that application code holds: a session, and the request of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from threading import get_ident
from typing import Any, Protocol

from anyio import from_thread

from serverwamp import uris
from serverwamp.client_call import ClientCall
from serverwamp.errors import checked_args


class Transport(Protocol):
    """The connection a session runs over, as far as application code is concerned."""

    @property
    def transport_info(self) -> Mapping[str, Any]: ...


class Testaments(Protocol):
    """What a client wants to be published when its session is over."""

    def add(self, message: Any, scope: str) -> None: ...

    def flush(self, scope: str) -> None: ...


class SessionControl(Protocol):
    """What a session handle needs from what runs the session."""

    @property
    def is_open(self) -> bool: ...

    @property
    def testaments(self) -> Testaments: ...

    def is_subscribed(self, subscription: int) -> bool: ...

    def can_receive(self, value: Any) -> bool: ...

    def send_event(
        self, topic: str | None, subscription: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Awaitable[None]: ...

    def call(
        self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> ClientCall: ...

    async def close(self, reason: str, message: str | None, *, quietly: bool = False) -> None: ...

    async def abort(self, reason: str, message: str | None) -> None: ...

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]: ...

    async def refresh(self, ticket: str) -> None: ...

    def expire(self) -> None: ...


class Session:
    """A client's session, from its HELLO to its end.

    ``session[key]`` holds whatever the application wants to remember with it. The session that a
    subscription handler gets is *bound* to that subscription: it shares everything with the
    session, but its events need no topic.
    """

    # A bound handle shares the dict of its session, so that nothing is kept twice.
    __slots__ = ("__dict__", "__weakref__", "_subscription")

    id: int
    """Random, and unique among the sessions that are open."""
    realm: str
    """The realm's URI, as the client named it; empty if it named none. What an authenticator makes
    of it is the realm that is joined."""
    connection: Transport
    """Has `transport_info`, a mapping of what is known of the client's connection."""
    auth_methods: Sequence[str]
    """The authentication methods that the client offered, the best first."""
    auth_method: str | None
    """The method by which the session was authenticated, if the client offered it."""
    auth_role: str | None
    """What the session may be; an authenticator can set it. None before the authentication."""
    auth_provider: str | None
    """Who has authenticated the session; an authenticator can set it, too."""
    auth_extra: Mapping[str, Any]
    """What else the client said for its authentication; without what was null."""
    identity: Any
    """What the authenticator returned; None for anonymous sessions."""
    is_authenticated: bool
    """Whether an authenticator has admitted the session; anonymous ones aren't."""
    # Those that most sessions don't have are looked up in the class.
    welcome_extra: Mapping[str, Any] | None = None
    """What WELCOME has as its ``authextra``; an authenticator can set it."""
    _expires_at: float | None = None
    _answers: dict[Any, tuple[bool, float]] | None = None
    """What an authorizer has said, and until when that is good."""

    def __init__(
        self,
        *,
        id: int,
        realm: str,
        connection: Transport,
        control: SessionControl,
        auth_id: str | None = None,
        auth_methods: Sequence[str] = (),
        auth_extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.realm = realm
        self.connection = connection
        self._claim(auth_id)
        self.auth_methods = tuple(auth_methods)
        self.auth_method = None
        self.auth_role = None
        self.auth_provider = None
        self.auth_extra = auth_extra or {}
        self.identity = None
        self.is_authenticated = False
        self._control = control
        self._thread = get_ident()
        self._data: dict[Any, Any] = {}
        self._subscription: Any = None

    def bound_to(self, subscription: Any) -> Session:
        """Return a handle of the same session whose events go to `subscription`."""
        bound = object.__new__(type(self))
        bound.__dict__ = self.__dict__
        bound._subscription = subscription
        return bound

    def __repr__(self) -> str:
        return f"<Session {self.id} in {self.realm!r} auth_id={self.auth_id!r}>"

    @property
    def auth_id(self) -> str | None:
        """The name of the client.

        While authenticators run, it is what the client claims. After that it is the name that the
        client has proved by a ticket or a signature, or that an authenticator has assigned, which
        may be the one that was claimed. Every other client gets a random name.
        """
        return self._auth_id

    @auth_id.setter
    def auth_id(self, auth_id: str | None) -> None:
        if not isinstance(auth_id, str | None):
            raise TypeError(f"auth_id has to be text, and is {auth_id!r:.100}")
        self._auth_id = auth_id
        self._is_claimed = False

    def _claim(self, auth_id: str | None) -> None:
        """Let `auth_id` be a name that only the client has said."""
        self._auth_id = auth_id
        self._is_claimed = True

    # ---- the application's data

    def __getitem__(self, key: Any) -> Any:
        return self._data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._data[key] = value

    def __delitem__(self, key: Any) -> None:
        del self._data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def get(self, key: Any, default: Any = None) -> Any:
        """Return what is remembered under `key`, or else `default`."""
        return self._data.get(key, default)

    # ---- what can be done with it

    def is_subscribed(self, subscription: int) -> bool:
        """Tell whether the session has the subscription of that id."""
        return self._control.is_subscribed(subscription)

    @property
    def is_open(self) -> bool:
        """Whether the session has been welcomed and has not ended."""
        return self._control.is_open

    @property
    def expires_at(self) -> float | None:
        """When the credentials of the session expire, in seconds since 1970; None for never.

        An authenticator can set it, and handlers can set it anew. When that time has come the
        session is closed with ``wamp.close.killed``, whatever it is doing.
        """
        return self._expires_at

    @expires_at.setter
    def expires_at(self, time: float | None) -> None:
        self._expires_at = time
        if get_ident() != self._thread:
            from_thread.run_sync(self._control.expire)
        else:
            self._control.expire()

    async def refresh(self, ticket: str) -> None:
        """Ask the realm's ticket authenticator about a new ticket, as if the session began now.

        `identity` and `expires_at` are what it says then. The session stays the same principal.

        Raises: WAMPError when the ticket isn't good, or is that of somebody else, or of another
            role; nothing has changed then.
        """
        await self._control.refresh(ticket)

    def send_event(
        self,
        topic: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Awaitable[None]:
        """Queue an event for this session, in order; awaiting the result waits for room.

        Without `topic` it goes to the subscription to which the handle is bound. A session that
        has no such subscription, any more or yet, gets nothing. It can also be called in the
        worker threads in which plain functions run; there the result is not to be awaited.

        An event that the client's format can't hold is lost, which is logged once for its
        connection: other formats may be able to hold it.

        Raises: TypeError without a topic on a handle that no subscription handler got; ValueError
            for arguments that no format can hold.
        """
        if topic is None and self._subscription is None:
            raise TypeError("send_event() needs a topic outside of a subscription handler")
        send, args, kwargs = self._control.send_event, checked_args(args), kwargs or {}
        if get_ident() != self._thread:  # nothing of ours can be touched from there
            return from_thread.run_sync(send, topic, self._subscription, args, kwargs)
        return send(topic, self._subscription, args, kwargs)

    def call(
        self,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> ClientCall:
        """Call a procedure that this client has registered; awaiting it gives the result.

        `timeout` is in seconds, and counts anew with each report of progress; it is
        `Limits.invocation_timeout` if not given.

        Raises: WAMPError when awaited; see `ClientCall`.
        """
        return self._control.call(uri, checked_args(args), kwargs or {}, timeout)

    async def close(self, reason: str = uris.CLOSE_REALM, message: str | None = None) -> None:
        """Say GOODBYE: running calls are cancelled and subscriptions end.

        Returns when GOODBYE is on its way. The connection is closed when the client has answered,
        or hasn't in time. A session that isn't open any more is left alone.
        """
        await self._control.close(_checked(reason), message)

    async def abort(self, reason: str = uris.NOT_AUTHORIZED, message: str | None = None) -> None:
        """Send ABORT and close the connection; from an authenticator, refuse the session."""
        await self._control.abort(_checked(reason), message)

    # ---- for custom authentication

    async def challenge(
        self, method: str, extra: Mapping[str, Any] | None = None
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return signature and extra of the client's AUTHENTICATE.

        Only an authentication handler can do that.
        """
        return await self._control.challenge(method, extra or {})

    async def mark_authenticated(self, identity: Any = None) -> None:
        """Admit the session: it is welcomed when the authentication handler returns."""
        self.is_authenticated = True
        self.identity = identity


def _checked(reason: str) -> str:
    if not uris.is_valid_uri(reason):
        raise ValueError(f"{reason!r} is not a valid URI for a reason")
    return reason


class RPCRequest:
    """A call as its handler can ask for it, by a parameter named ``request``."""

    __slots__ = (
        "args",
        "disclose_caller",
        "id",
        "kwargs",
        "receive_progress",
        "session",
        "timeout",
        "uri",
    )

    def __init__(
        self,
        id: int,
        session: Session,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        timeout: int = 0,
        disclose_caller: bool = False,
        receive_progress: bool = False,
    ) -> None:
        self.id: int = id
        """The request id of the CALL."""
        self.session: Session = session
        """The session of the caller."""
        self.uri: str = uri
        """The URI that was called, which tells what a pattern matched."""
        self.args: Sequence[Any] = args
        """The positional arguments as they were parsed."""
        self.kwargs: Mapping[str, Any] = kwargs or {}
        """The keyword arguments as they were parsed."""
        self.timeout: int = timeout
        """How long the caller waits, in milliseconds; 0 for as long as it takes."""
        self.disclose_caller: bool = disclose_caller
        """Whether the caller wants the procedure to know who it is; here it does anyway."""
        self.receive_progress: bool = receive_progress
        """Whether the caller takes progress reports."""

    def __repr__(self) -> str:
        return f"<RPCRequest {self.id} of {self.uri!r}>"
