"""The objects that handlers receive: a session, and the request of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from threading import get_ident
from typing import Any, Protocol

from anyio import from_thread

from serverwamp import uris
from serverwamp.client_call import ClientCall
from serverwamp.errors import checked_args


class Transport(Protocol):
    """The part of a connection that application code can see."""

    @property
    def transport_info(self) -> Mapping[str, Any]:
        """The description of the client's end: cookies, headers, address and so on."""
        ...


class Testaments(Protocol):
    """The publications that a client leaves for the end of its session."""

    def add(self, message: Any, scope: str) -> None:
        """Add a PUBLISH message, to be published at the end of `scope`."""

    def flush(self, scope: str) -> None:
        """Drop the messages that were added for `scope`."""


class SessionControl(Protocol):
    """The running session behind a `Session`.

    `Session` itself uses most of it. The meta API (`router.meta`) uses `testaments`, `can_receive`
    and `close` with `quietly`, which application code can't reach.
    """

    @property
    def is_open(self) -> bool:
        """Whether WELCOME has been sent and the session has not ended."""
        ...

    @property
    def testaments(self) -> Testaments:
        """The testaments of the session."""
        ...

    def is_subscribed(self, subscription: int) -> bool:
        """Tell whether the session has the subscription with that id."""
        ...

    def can_receive(self, value: Any) -> bool:
        """Tell whether the client's serialization format can express `value`."""
        ...

    def send_event(
        self, topic: str | None, subscription: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Awaitable[None]:
        """Queue an event for `topic` or, without one, for `subscription`."""
        ...

    def call(
        self, uri: str, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> ClientCall:
        """Call a procedure that the client has registered."""
        ...

    async def close(self, reason: str, message: str | None, *, quietly: bool = False) -> None:
        """Send GOODBYE; with `quietly`, without meta events and without testaments."""

    async def abort(self, reason: str, message: str | None) -> None:
        """Send ABORT."""

    async def challenge(
        self, method: str, extra: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return the signature and extra of AUTHENTICATE."""
        ...

    async def refresh(self, ticket: str) -> None:
        """Authenticate the open session again, with a new ticket."""

    def expire(self) -> None:
        """Apply a new `Session.expires_at`."""


class Session:
    """A client's session, from its HELLO to its end.

    ``session[key]`` stores data of the application for the lifetime of the session. The session
    that a subscription handler receives is *bound* to that subscription: it is the same session
    and shares its data, but `send_event` needs no topic.

    Other threads may read the attributes and the data. In the worker threads of plain functions,
    `send_event` may be called and `expires_at` may be set. All other methods must be called in the
    event loop.
    """

    # A bound handle shares the __dict__ of its session, so both always have the same state.
    __slots__ = ("__dict__", "__weakref__", "_subscription")

    id: int
    """A random number, unique among the open sessions of this process."""
    realm: str
    """The URI of the realm, as the client named it; empty if it named none. An authenticator can
    set it: the session then joins that realm."""
    connection: Transport
    """The client's connection. Its `transport_info` is a mapping of what is known about it, such as
    cookies, headers and the peer's address."""
    auth_methods: Sequence[str]
    """The authentication methods that the client offered, in its order of preference."""
    auth_method: str | None
    """The method that authenticated the session; None if the client didn't offer that method."""
    auth_role: str | None
    """The role of the session. An authenticator can set it. None before authentication."""
    auth_provider: str | None
    """The name of the party that authenticated the session. An authenticator can set it."""
    auth_extra: Mapping[str, Any]
    """The client's ``authextra`` from HELLO, without entries whose value is null."""
    identity: Any
    """The value that the authenticator returned; None for anonymous sessions."""
    is_authenticated: bool
    """Whether an authenticator has admitted the session; False for anonymous sessions."""
    # Most sessions never set the following, so the default values are attributes of the class.
    welcome_extra: Mapping[str, Any] | None = None
    """The ``authextra`` that WELCOME sends to the client. An authenticator can set it."""
    _expires_at: float | None = None
    _answers: dict[Any, tuple[bool, float]] | None = None
    """The cached answers of the realm's authorizer. Only `auth.authorization` uses them."""

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
        """Return a handle of the same session that sends its events to `subscription`.

        The realm does this for subscription handlers. Application code doesn't need it.
        """
        bound = object.__new__(type(self))
        bound.__dict__ = self.__dict__
        bound._subscription = subscription
        return bound

    def __repr__(self) -> str:
        return f"<Session {self.id} in {self.realm!r} auth_id={self.auth_id!r}>"

    @property
    def auth_id(self) -> str | None:
        """The name of the client (``authid``).

        While authenticators run, it is the name that the client claims. Afterwards it is the name
        that the client proved by a ticket or a signature, or the name that an authenticator
        assigned. If there is neither, it is a random name. An authenticator that trusts the claimed
        name has to assign it: ``session.auth_id = session.auth_id``.

        Raises: TypeError when a value is assigned that is neither text nor None.
        """
        return self._auth_id

    @auth_id.setter
    def auth_id(self, auth_id: str | None) -> None:
        if not isinstance(auth_id, str | None):
            raise TypeError(f"auth_id must be a string, not {auth_id!r:.100}")
        self._auth_id = auth_id
        self._is_claimed = False

    def _claim(self, auth_id: str | None) -> None:
        """Set `auth_id` to a name that the client claims and nobody has verified."""
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
        """Return ``session[key]``, or `default` if there is no such key."""
        return self._data.get(key, default)

    # ---- operations

    def is_subscribed(self, subscription: int) -> bool:
        """Tell whether the session has the subscription with that id."""
        return self._control.is_subscribed(subscription)

    @property
    def is_open(self) -> bool:
        """Whether WELCOME has been sent and the session has not ended."""
        return self._control.is_open

    @property
    def expires_at(self) -> float | None:
        """When the session's credentials expire, as a Unix timestamp in seconds; None for never.

        Authenticators and handlers can set it. At that time the session is closed with
        ``wamp.close.killed``, even if calls are running.

        Worker threads of plain functions can set it, too; in other threads that raises
        RuntimeError.
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
        """Authenticate the open session again, with a new ticket.

        The realm's ticket authenticator is called as for a new session. If it accepts the ticket,
        `identity` and `expires_at` are updated, and the cached answers of the authorizer are
        forgotten. The realm, `auth_id` and `auth_role` must stay the same.

        Raises: WAMPError when the ticket is refused, or belongs to another realm, `auth_id` or
        `auth_role`. The session is unchanged then.
        """
        await self._control.refresh(ticket)

    def send_event(
        self,
        topic: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Awaitable[None]:
        """Queue an event for this session only.

        The event is queued when this method returns; events leave in the order of the calls. Await
        the result to wait until the session's backlog has room again.

        Without `topic`, the event goes to the subscription that this handle is bound to. If the
        session has no subscription for the event, nothing is sent; that isn't an error.

        Plain functions, which run in worker threads, can call this method too, but can't await its
        result. In other threads it raises RuntimeError.

        If the client's serialization format can't express the arguments, the event is dropped; that
        is logged once per connection.

        Raises: TypeError without a topic on a session that isn't bound to a subscription;
        ValueError for arguments that no serialization format can express.
        """
        if topic is None and self._subscription is None:
            raise TypeError("send_event() needs a topic outside of a subscription handler")
        send, args, kwargs = self._control.send_event, checked_args(args), kwargs or {}
        if get_ident() != self._thread:  # the session isn't thread-safe
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
        """Call a procedure that this client has registered; await the call to get its result.

        `timeout` is in seconds and starts again with each progressive result. It defaults to
        `Limits.invocation_timeout`.

        Raises: WAMPError when awaited; see `ClientCall`.
        """
        return self._control.call(uri, checked_args(args), kwargs or {}, timeout)

    async def close(self, reason: str = uris.CLOSE_REALM, message: str | None = None) -> None:
        """Send GOODBYE, cancel the session's running calls, and end its subscriptions.

        Returns when GOODBYE is queued. The connection is closed when the client has answered, or
        after `Limits.goodbye_timeout`. Does nothing if the session isn't open.

        Raises: ValueError when `reason` is not a valid URI.
        """
        await self._control.close(_checked(reason), message)

    async def abort(self, reason: str = uris.NOT_AUTHORIZED, message: str | None = None) -> None:
        """Send ABORT and close the connection. In an authenticator, this refuses the session.

        Raises: ValueError when `reason` is not a valid URI.
        """
        await self._control.abort(_checked(reason), message)

    # ---- for custom authentication

    async def challenge(
        self, method: str, extra: Mapping[str, Any] | None = None
    ) -> tuple[str, Mapping[str, Any]]:
        """Send CHALLENGE and return the ``(signature, extra)`` of the client's AUTHENTICATE.

        Call it only in a function that `Realm.set_authentication_handler` was given.
        """
        return await self._control.challenge(method, extra or {})

    async def mark_authenticated(self, identity: Any = None) -> None:
        """Admit the session. WELCOME is sent when the authentication handler has returned."""
        self.is_authenticated = True
        self.identity = identity


def _checked(reason: str) -> str:
    if not uris.is_valid_uri(reason):
        raise ValueError(f"{reason!r} is not a valid URI for a reason")
    return reason


class RPCRequest:
    """A call, as passed to the handler's parameter ``request``."""

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
        """The URI that the client called. For a pattern route, it is the concrete URI."""
        self.args: Sequence[Any] = args
        """The positional arguments, before conversion."""
        self.kwargs: Mapping[str, Any] = kwargs or {}
        """The keyword arguments, before conversion."""
        self.timeout: int = timeout
        """The caller's timeout in milliseconds; 0 for none."""
        self.disclose_caller: bool = disclose_caller
        """Whether the caller set ``disclose_me``. Handlers can always see the caller's session."""
        self.receive_progress: bool = receive_progress
        """Whether the caller accepts progressive results."""

    def __repr__(self) -> str:
        return f"<RPCRequest {self.id} of {self.uri!r}>"
