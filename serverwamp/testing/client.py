"""Test an application in process: a WAMP client over ASGI, on asyncio and on trio.

    async with connect(app, "realm1") as client:
        result = await client.call("math.add", (2, 3))
        assert result.args == (5,)

There is no network and no server. The client uses the real protocol. If an expected message doesn't
arrive in time, the test fails, with a transcript of all messages.

One module despite its length: the client has a short method for each message of the protocol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from serverwamp.concurrency.tasks import open_starter
from serverwamp.errors import WAMPError
from serverwamp.protocol.framings import Frame
from serverwamp.protocol.serializers import serializer_for
from serverwamp.testing.asgi import (
    ASGIApplication,
    ASGIEvent,
    ExpectationFailed,
    HandshakeRefused,
    ServedWebSocket,
    running,
    websocket_scope,
)
from serverwamp.testing.codecs import decoded, encoded
from serverwamp.testing.logins import Login

ROLES: Mapping[str, Any] = {
    "caller": {
        "features": {
            "progressive_call_results": True,
            "progressive_call_invocations": True,
            "call_canceling": True,
        }
    },
    "subscriber": {"features": {}},
    "publisher": {"features": {}},
    "callee": {"features": {"progressive_call_results": True, "call_canceling": True}},
}
REQUESTS = frozenset((16, 32, 34, 48, 64, 66))
"""The type codes of the client's requests."""


@dataclass(frozen=True)
class CallResult:
    """The result of a call, or a progress report."""

    args: tuple[Any, ...] = ()
    """The positional arguments."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The keyword arguments."""


@dataclass(frozen=True)
class Event:
    """A received event."""

    args: tuple[Any, ...]
    """The positional arguments."""
    kwargs: dict[str, Any]
    """The keyword arguments."""
    subscription: int
    """The subscription id."""
    publication: int
    """The publication id."""
    details: dict[str, Any]
    """The details of EVENT."""


@dataclass(frozen=True)
class CaughtUp:
    """Past events of a subscription."""

    events: list[Event]
    """The events."""
    complete: bool
    """Whether no event since the given event or time is missing."""
    time: str
    """The time of the answer, by the application's clock. It can be the start of the next query."""


@dataclass(frozen=True)
class Subscription:
    """A subscription of the client."""

    id: int
    """The subscription id."""
    topic: str
    """The topic, or the pattern, as it was subscribed to."""


@dataclass(frozen=True)
class Registration:
    """A procedure that the client has registered."""

    id: int
    """The registration id."""
    procedure: str
    """The procedure, or the pattern, as it was registered."""


class Invocation:
    """A call that the client has to answer, exactly once."""

    def __init__(self, client: Client, message: list[Any]) -> None:
        self._client = client
        self.request: int = message[1]
        """The request id of the INVOCATION."""
        self.registration: int = message[2]
        """The id of the registration."""
        self.details: dict[str, Any] = message[3]
        """The details of INVOCATION. They name the procedure if a pattern was registered."""
        args, kwargs = _payload(message, 4)
        self.args: tuple[Any, ...] = args
        """The positional arguments."""
        self.kwargs: dict[str, Any] = kwargs
        """The keyword arguments."""

    async def progress(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Send a progress report."""
        payload = _sent_payload(args, kwargs)
        await self._client.send([70, self.request, {"progress": True}, *payload])

    async def result(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Answer with a result."""
        await self._client.send([70, self.request, {}, *_sent_payload(args, kwargs)])

    async def error(
        self, uri: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Answer with an error."""
        await self._client.send([8, 68, self.request, {}, uri, *_sent_payload(args, kwargs)])

    async def expect_interrupt(self, *, timeout: float | None = None) -> str:
        """Wait for the INTERRUPT that cancels the call, and return its mode."""
        message = await self._client.expect(
            lambda m: m[:2] == [69, self.request],
            f"INTERRUPT of invocation {self.request}",
            timeout=timeout,
        )
        return str(message[2]["mode"])


class PendingCall:
    """A call that was sent, and whose result may arrive later."""

    def __init__(self, client: Client, request: int, uri: str) -> None:
        self._client = client
        self._uri = uri
        self.request = request
        """The request id of the CALL."""

    async def progress(self, *, timeout: float | None = None) -> CallResult:
        """Return the next progress report."""
        message = await self._client.expect(
            lambda m: m[:2] == [50, self.request] and m[2].get("progress") is True,
            f"progress of call {self.request}",
            timeout=timeout,
        )
        return CallResult(*_payload(message, 3))

    async def send_chunk(self, chunk: Any) -> None:
        """Send a chunk to a call that was started with ``progress=True``."""
        await self._client.send([48, self.request, {"progress": True}, self._uri, [chunk]])

    async def end_chunks(self) -> None:
        """Tell the application that there are no more chunks."""
        await self._client.send([48, self.request, {}, self._uri])

    async def cancel(self, mode: str | None = None) -> None:
        """Send CANCEL; `mode` is "skip", "kill" or "killnowait"."""
        await self._client.send([49, self.request, {"mode": mode} if mode else {}])

    async def result(self, *, timeout: float | None = None) -> CallResult:
        """Return the final result.

        Raises: WAMPError when the answer is an ERROR.
        """
        message = await self._client.expect(
            lambda m: (
                m[:3] == [8, 48, self.request]
                or (m[:2] == [50, self.request] and not m[2].get("progress"))
            ),
            f"the result of call {self.request}",
            timeout=timeout,
        )
        return CallResult(*_payload(_checked(message), 3))


class Client:
    """A WAMP client that is connected to an application; `connect` creates it.

    Every method that waits takes a `timeout` in seconds; the default is that of `connect`. It
    raises `ExpectationFailed` after that time.
    """

    def __init__(
        self,
        subprotocol: str,
        frames: MemoryObjectSendStream[ASGIEvent],
        replies: MemoryObjectReceiveStream[ASGIEvent],
        timeout: float,
    ) -> None:
        self.subprotocol = subprotocol
        self.session: int | None = None
        """The session id from WELCOME; None if no session is open."""
        self.welcome: dict[str, Any] = {}
        """The details of the last WELCOME."""
        self.close_code: int | None = None
        """The code with which the application closed the WebSocket; None if it didn't."""
        self.transcript: list[str] = []
        """All messages in both directions, one per line."""
        self._serializer = serializer_for(subprotocol)
        self._is_text = self._serializer.frame_type is str
        self._frames = frames
        self._replies = replies
        self._timeout = timeout
        self._inbox: list[list[Any]] = []
        self._arrived = anyio.Event()
        self._closed = anyio.Event()
        self._resumed = anyio.Event()
        self._resumed.set()
        self._last_request = 0

    # ---- raw messages

    async def send(self, *messages: Sequence[Any]) -> None:
        """Send raw messages (lists). With a batched subprotocol, all are in a single frame.

        A request with the next id uses up that id, as if a method such as `call` had sent it.
        """
        units = [encoded(message, self.subprotocol) for message in messages]
        for message in messages:
            self.transcript.append(f"client: {message!r}")
            if len(message) > 1 and message[0] in REQUESTS and message[1] == self._last_request + 1:
                self._last_request += 1
        frames = [units] if self._serializer.batched else [[unit] for unit in units]
        for frame in frames:
            await self._send_frame(self._serializer.join(frame))

    async def send_frame(self, frame: Frame) -> None:
        """Send a WebSocket message with any content: a text message for a str, else binary."""
        self.transcript.append(f"client: frame {frame[:100]!r}")
        await self._send_frame(frame)

    async def _send_frame(self, frame: Frame) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        with anyio.move_on_after(self._timeout) as scope:
            await self._frames.send({"type": "websocket.receive", key: frame})
        if scope.cancelled_caught:
            self._fail("the application doesn't read")

    async def receive(self, *, timeout: float | None = None) -> list[Any]:
        """Return the next message that no other method has taken, as a list."""
        return await self.expect(lambda message: True, "a message", timeout=timeout)

    async def expect(
        self,
        wanted: Callable[[list[Any]], bool],
        what: str = "a certain message",
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """Return the first message not yet taken for which `wanted` returns True, as a list.

        `what` describes it for the text of `ExpectationFailed`.
        """
        seconds = self._timeout if timeout is None else timeout
        with anyio.move_on_after(seconds):
            while True:
                for index, message in enumerate(self._inbox):
                    if wanted(message):
                        return self._inbox.pop(index)
                if self._closed.is_set():
                    self._fail(f"the connection was closed while waiting for {what}")
                await self._arrived.wait()
        self._fail(f"waited {seconds} seconds for {what}")

    def take_all(self) -> list[list[Any]]:
        """Return all received messages that no other method has taken, without waiting."""
        messages, self._inbox = self._inbox, []
        return messages

    async def expect_nothing(self) -> None:
        """Check that all received messages have been taken.

        To wait for messages that are on their way, it first calls a procedure that doesn't exist.
        The answer to that call arrives last.
        """
        try:
            await self.call("serverwamp.testing.client.nothing")
        except WAMPError:
            pass
        if self._inbox:
            self._fail(f"no message was expected, but these came: {self._inbox!r}")

    async def expect_close(self, *, timeout: float | None = None) -> int:
        """Wait until the application closes the WebSocket, and return the code."""
        seconds = self._timeout if timeout is None else timeout
        with anyio.move_on_after(seconds):
            await self._closed.wait()
        if self.close_code is None:
            self._fail(f"waited {seconds} seconds for the connection to be closed")
        return self.close_code

    def next_request(self) -> int:
        """Return the id for the next request of this session."""
        self._last_request += 1
        return self._last_request

    # ---- sessions

    async def join(
        self,
        realm: str | None = "realm1",
        *,
        authid: str | None = None,
        authmethods: Sequence[str] | None = None,
        authextra: Mapping[str, Any] | None = None,
        ticket: str | None = None,
        secret: str | None = None,
        password: str | None = None,
        private_key: str | None = None,
        roles: Mapping[str, Any] = ROLES,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Open a session and return the details of WELCOME; if `realm` is None, the server chooses.

        To log in, pass a `ticket`, a `secret` for WAMP-CRA (salted or not), a `password` for SCRAM
        (in both dialects), or a `private_key` for cryptosign (64 hexadecimal digits). The client
        offers the methods for which credentials are given, in this order, unless `authmethods` is
        given.

        Raises: WAMPError when the session is refused; its URI is the reason of ABORT.
        """
        login = Login(
            authid or "", ticket=ticket, secret=secret, password=password, private_key=private_key
        )
        if authmethods is None:
            authmethods = login.authmethods or None
        extra = {**login.authextra, **(authextra or {})} or None
        details = {"authid": authid, "authmethods": authmethods, "authextra": extra}
        given = {key: value for key, value in details.items() if value is not None}
        self._last_request = 0
        await self.send([1, realm, {"roles": dict(roles), **given}])
        message = await self._expect_kind((2, 3, 4), "WELCOME", timeout)
        if message[0] == 4:
            await self.send([5, *login.answer(message[1], message[2])])
            message = await self._expect_kind((2, 3), "WELCOME", timeout)
        if message[0] == 3:
            raise WAMPError(message[2], (message[1].get("message", ""),))
        if not login.trusts(message[2]):
            self._fail("the server has not proved that it knows the password")
        self.session, self.welcome = message[1], message[2]
        return self.welcome

    async def leave(
        self, reason: str = "wamp.close.close_realm", *, timeout: float | None = None
    ) -> str:
        """Send GOODBYE, and return the reason in the answer. After that, you can `join` again."""
        await self.send([6, {}, reason])
        message = await self._expect_kind((6,), "GOODBYE", timeout)
        self.session = None
        return str(message[2])

    # ---- calls

    async def call(
        self,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> CallResult:
        """Call a procedure and return its final result; `options` are the options of CALL.

        Raises: WAMPError when the answer is an ERROR.
        """
        pending = await self.start_call(uri, args, kwargs, **options)
        return await pending.result(timeout=timeout)

    async def start_call(
        self,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> PendingCall:
        """Call a procedure without waiting for the result.

        `options` are the options of CALL: ``receive_progress=True`` asks for progress reports, and
        ``progress=True`` announces chunks. Use ``options={"timeout": milliseconds}`` for a timeout.
        """
        request = self.next_request()
        options = {**options.pop("options", {}), **options}
        await self.send([48, request, options, uri, *_sent_payload(args, kwargs)])
        return PendingCall(self, request, uri)

    # ---- events

    async def subscribe(
        self, topic: str, *, timeout: float | None = None, **options: Any
    ) -> Subscription:
        """Subscribe to a topic; `options` are the options of SUBSCRIBE.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([32, request, options, topic])
        message = await self._expect_reply(32, 33, request, timeout)
        return Subscription(message[2], topic)

    async def catch_up(
        self, subscription: Subscription, *, timeout: float | None = None, **since: Any
    ) -> CaughtUp:
        """Return the stored events of a subscription since an event or a time.

        `since` are arguments of ``wamp.subscription.get_events``, such as
        ``after_publication=event.publication`` or ``from_time=caught_up.time``. If the client has
        received some of these events already, they are dropped, so that `expect_event` returns only
        later ones.

        Raises: WAMPError when the answer is an ERROR.
        """
        uri = "wamp.subscription.get_events"
        result = await self.call(uri, [subscription.id], since, timeout=timeout)
        events = [
            Event(
                tuple(event.get("args", ())),
                event.get("kwargs", {}),
                event["subscription"],
                event["publication"],
                event["details"],
            )
            for event in result.args[0]
        ]
        seen = {(event.subscription, event.publication) for event in events}
        self._inbox = [m for m in self._inbox if m[0] != 36 or (m[1], m[2]) not in seen]
        return CaughtUp(events, result.kwargs["complete"], result.kwargs["time"])

    async def unsubscribe(
        self, subscription: Subscription, *, timeout: float | None = None
    ) -> None:
        """End a subscription.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([34, request, subscription.id])
        await self._expect_reply(34, 35, request, timeout)

    async def expect_event(
        self, subscription: Subscription | None = None, *, timeout: float | None = None
    ) -> Event:
        """Return the next event, of `subscription` or of any."""
        message = await self.expect(
            lambda m: m[0] == 36 and (subscription is None or m[1] == subscription.id),
            "an event",
            timeout=timeout,
        )
        args, kwargs = _payload(message, 4)
        return Event(args, kwargs, message[1], message[2], message[3])

    async def register(
        self, procedure: str, *, timeout: float | None = None, **options: Any
    ) -> Registration:
        """Register a procedure; `options` are the options of REGISTER.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([64, request, options, procedure])
        message = await self._expect_reply(64, 65, request, timeout)
        return Registration(message[2], procedure)

    async def unregister(self, registration: Registration, *, timeout: float | None = None) -> None:
        """End a registration.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([66, request, registration.id])
        await self._expect_reply(66, 67, request, timeout)

    async def expect_invocation(
        self, registration: Registration | None = None, *, timeout: float | None = None
    ) -> Invocation:
        """Return the next call to answer, for `registration` or for any."""
        message = await self.expect(
            lambda m: m[0] == 68 and (registration is None or m[2] == registration.id),
            "an INVOCATION",
            timeout=timeout,
        )
        return Invocation(self, message)

    async def publish(
        self,
        topic: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> int | None:
        """Publish to a topic; `options` are the options of PUBLISH.

        With ``acknowledge=True``, wait for the answer and return the publication id.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([16, request, options, topic, *_sent_payload(args, kwargs)])
        if not options.get("acknowledge"):
            return None
        message = await self._expect_reply(16, 17, request, timeout)
        return int(message[2])

    async def _expect_reply(
        self, request_type: int, reply_type: int, request: int, timeout: float | None
    ) -> list[Any]:
        return _checked(
            await self.expect(
                lambda m: m[:2] == [reply_type, request] or m[:3] == [8, request_type, request],
                f"the reply to request {request}",
                timeout=timeout,
            )
        )

    async def _expect_kind(
        self, kinds: tuple[int, ...], what: str, timeout: float | None
    ) -> list[Any]:
        return await self.expect(lambda m: m[0] in kinds, what, timeout=timeout)

    # ---- the transport

    async def disconnect(self, code: int = 1005) -> None:
        """Disconnect without a GOODBYE, like a client that has lost its network."""
        self.transcript.append(f"client: disconnects ({code})")
        self._replies.close()
        await self._frames.send({"type": "websocket.disconnect", "code": code, "reason": ""})
        self._frames.close()

    def pause(self) -> None:
        """Stop reading, like a client that is too slow or asleep."""
        if self._resumed.is_set():
            self._resumed = anyio.Event()

    def resume(self) -> None:
        """Resume reading."""
        self._resumed.set()

    async def _read(self) -> None:
        """Receive what the application sends, until the connection ends."""
        try:
            async for event in self._replies:
                if not self._resumed.is_set():
                    await self._resumed.wait()
                self.feed(event)
        except anyio.ClosedResourceError:
            pass  # the client has disconnected
        self.feed_end()

    def feed(self, event: ASGIEvent) -> None:
        """Receive an event of the application; only a transport calls this.

        `connect` has its own transport. Other transports, such as one over a real socket, pass
        ``websocket.send`` and ``websocket.close`` to this method.
        """
        if event["type"] == "websocket.close":
            self.close_code = event.get("code", 1000)
            self.transcript.append(f"server: closes the connection ({self.close_code})")
            self._closed.set()
        else:
            frame = event["text"] if self._is_text else event["bytes"]
            for unit in self._serializer.split(frame):
                message = decoded(unit, self.subprotocol)
                self.transcript.append(f"server: {message!r}")
                self._inbox.append(message)
        self._arrived.set()
        self._arrived = anyio.Event()

    def feed_end(self) -> None:
        """Record that the application sends nothing more; only a transport calls this."""
        self._closed.set()
        self._arrived.set()

    def _fail(self, what: str) -> NoReturn:
        lines = "\n  ".join(self.transcript[-50:]) or "no messages"
        raise ExpectationFailed(f"{what}; the transcript:\n  {lines}")


def _sent_payload(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[Any]:
    if kwargs:
        return [list(args), dict(kwargs)]
    return [list(args)] if args else []


def _payload(message: list[Any], start: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args = message[start] if len(message) > start else []
    kwargs = message[start + 1] if len(message) > start + 1 else {}
    return tuple(args), kwargs


def _checked(message: list[Any]) -> list[Any]:
    """Return a reply unchanged.

    Raises: WAMPError if it is an ERROR.
    """
    if message[0] == 8:
        raise WAMPError(message[4], *_payload(message, 5))
    return message


@asynccontextmanager
async def connect(
    app: ASGIApplication,
    realm: str | None = "realm1",
    *,
    subprotocol: str = "wamp.2.json",
    subprotocols: Sequence[str] | None = None,
    path: str = "/",
    query_string: str = "",
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    peer_address: str = "127.0.0.1",
    extensions: Mapping[str, Any] | None = None,
    lifespan: bool = False,
    timeout: float = 5.0,
    **login: Any,
) -> AsyncIterator[Client]:
    """Connect a client to an ASGI application, and join `realm` unless it is None.

    The client offers `subprotocol`, or the list `subprotocols` if given. It speaks the one that the
    application accepts. `login` are arguments of `Client.join`. With `lifespan`, the application is
    started before and shut down afterwards, as by `running`. When the block ends, the client
    disconnects, and the application has `timeout` seconds to finish. The block may begin and end in
    different tasks, as in a fixture of pytest-asyncio.

    Raises: HandshakeRefused; WAMPError when the session is refused; what the application raises.
    """
    scope = websocket_scope(
        path=path,
        query_string=query_string,
        headers=headers or {},
        cookies=cookies or {},
        peer_address=peer_address,
        subprotocols=[subprotocol] if subprotocols is None else subprotocols,
        extensions=extensions or {},
    )
    started = running(app, timeout=timeout) if lifespan else nullcontext(app)
    async with started as served, _connected(served, scope, subprotocol, timeout) as client:
        if realm is not None:
            await client.join(realm, **login)
        yield client


@asynccontextmanager
async def _connected(
    app: ASGIApplication, scope: ASGIEvent, subprotocol: str, timeout: float
) -> AsyncIterator[Client]:
    """Open a WebSocket, and disconnect when the block ends."""
    socket = ServedWebSocket(app, scope)
    failure: Exception | None = None
    with closing(socket):
        async with open_starter() as tasks:
            serving = tasks.start(socket.run)
            with anyio.move_on_after(timeout):
                await socket.is_decided.wait()
            client = Client(
                socket.subprotocol or subprotocol, socket.frames, socket.replies, timeout
            )
            reading = tasks.start(client._read)
            try:
                if socket.subprotocol is None:
                    raise HandshakeRefused(socket.status)
                yield client
            except Exception as error:
                failure = error
            finally:
                if not await socket.disconnect(timeout) and failure is None:
                    failure = ExpectationFailed(
                        "the application didn't end after the client disconnected"
                    )
                socket.frames.close()
                serving.cancel()
                reading.cancel()
    failure = socket.failure or failure  # an exception of the application explains more
    if failure is not None:
        raise failure
