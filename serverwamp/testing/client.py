"""Test an application in process: a WAMP client over ASGI, on asyncio and on trio.

    async with connect(app, "realm1") as client:
        result = await client.call("math.add", (2, 3))
        assert result.args == (5,)

There is no network and no server. The client speaks the real protocol and is strict about it:
whatever a wait doesn't find within its timeout fails the test with a transcript of everything
that was said.

One module, though a long one: the client and the transport below it are of no use alone.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import anyio
import msgpack
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from serverwamp.concurrency.tasks import open_starter
from serverwamp.errors import WAMPError
from serverwamp.protocol.formats import Unit
from serverwamp.protocol.framings import Frame
from serverwamp.protocol.serializers import serializer_for
from serverwamp.testing.logins import Login

with suppress(ImportError):  # then CBOR isn't spoken here
    import cbor2

ASGIEvent: TypeAlias = MutableMapping[str, Any]
ASGIApplication: TypeAlias = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[ASGIEvent]],
        Callable[[ASGIEvent], Awaitable[None]],
    ],
    Awaitable[None],
]

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
"""The types of the messages that begin a request of the client."""
FRAMES_IN_FLIGHT = 64
"""How many frames either side can send before the other has taken one."""


class ExpectationFailed(AssertionError):
    """Something didn't come in time, or something else came; the text has the transcript."""


class HandshakeRefused(Exception):
    """The application closed the WebSocket before accepting it."""

    def __init__(self, status: int = 403) -> None:
        super().__init__(f"the application refused the WebSocket with status {status}")
        self.status: int = status
        """The HTTP status that a client gets."""


@dataclass(frozen=True)
class CallResult:
    """The result of a call."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """An event as it arrived; `subscription` and `publication` are ids."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    subscription: int
    publication: int
    details: dict[str, Any]


@dataclass(frozen=True)
class CaughtUp:
    """What is kept of what was published before."""

    events: list[Event]
    complete: bool
    """Whether these are all events since the event, or the moment, that was named."""
    time: str
    """When that was, by the application's clock; it can be named the next time."""


@dataclass(frozen=True)
class Subscription:
    """A subscription of the client."""

    id: int
    topic: str


@dataclass(frozen=True)
class Registration:
    """A procedure that the client serves."""

    id: int
    procedure: str


class Invocation:
    """A call that the client is to answer, once."""

    def __init__(self, client: Client, message: list[Any]) -> None:
        self._client = client
        self.request: int = message[1]
        """The request id of the INVOCATION."""
        self.registration: int = message[2]
        """The id of the registration."""
        self.details: dict[str, Any] = message[3]
        """The details, which name the procedure if a pattern was registered."""
        args, kwargs = _payload(message, 4)
        self.args: tuple[Any, ...] = args
        """The positional arguments."""
        self.kwargs: dict[str, Any] = kwargs
        """The keyword arguments."""

    async def progress(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Report progress."""
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
        """Wait until the call is cancelled, and return the mode."""
        message = await self._client.expect(
            lambda m: m[:2] == [69, self.request],
            f"INTERRUPT of invocation {self.request}",
            timeout=timeout,
        )
        return str(message[2]["mode"])


class PendingCall:
    """A call that was sent and may have its result later."""

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
        """Send a chunk into a call that was started with ``progress=True``."""
        await self._client.send([48, self.request, {"progress": True}, self._uri, [chunk]])

    async def end_chunks(self) -> None:
        """Say that there are no more chunks."""
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
    """A WAMP client that is connected to an application; made by `connect`.

    Every method that waits takes a `timeout` in seconds, otherwise the one of `connect` holds, and
    raises `ExpectationFailed` when it is over.
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
        """The id of the session, once it is welcomed."""
        self.welcome: dict[str, Any] = {}
        """The details of WELCOME."""
        self.close_code: int | None = None
        """The code with which the application closed the WebSocket."""
        self.transcript: list[str] = []
        """What was said, a line a message."""
        self._serializer = serializer_for(subprotocol)
        self._is_text = self._serializer.frame_type is str
        self._is_cbor = "cbor" in subprotocol
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
        """Send raw messages, as lists, in one frame each; in one altogether when batched.

        A request with the next id uses up that id, as if `call` or another method had sent it.
        """
        units = [self._encode(message) for message in messages]
        for message in messages:
            self.transcript.append(f"client: {message!r}")
            if len(message) > 1 and message[0] in REQUESTS and message[1] == self._last_request + 1:
                self._last_request += 1
        frames = [units] if self._serializer.batched else [[unit] for unit in units]
        for frame in frames:
            await self._send_frame(self._serializer.join(frame))

    async def send_frame(self, frame: Frame) -> None:
        """Send a WebSocket message of any content: text for a str, otherwise binary."""
        self.transcript.append(f"client: frame {frame[:100]!r}")
        await self._send_frame(frame)

    async def _send_frame(self, frame: Frame) -> None:
        key = "text" if isinstance(frame, str) else "bytes"
        with anyio.move_on_after(self._timeout) as scope:
            await self._frames.send({"type": "websocket.receive", key: frame})
        if scope.cancelled_caught:
            self._fail("the application doesn't read")

    async def receive(self, *, timeout: float | None = None) -> list[Any]:
        """Return the next message that nothing else has taken, as a list."""
        return await self.expect(lambda message: True, "a message", timeout=timeout)

    async def expect(
        self,
        wanted: Callable[[list[Any]], bool],
        what: str = "a certain message",
        *,
        timeout: float | None = None,
    ) -> list[Any]:
        """Return the first message that nothing else has taken and for which `wanted` is true."""
        seconds = self._timeout if timeout is None else timeout
        with anyio.move_on_after(seconds):
            while True:
                for index, message in enumerate(self._inbox):
                    if wanted(message):
                        return self._inbox.pop(index)
                if self._closed.is_set():
                    self._fail(f"the connection was closed while waiting for {what}")
                await self._arrived.wait()
        self._fail(f"waited {seconds} seconds in vain for {what}")

    def take_all(self) -> list[list[Any]]:
        """Return the messages that have arrived and that nothing else has taken; don't wait."""
        messages, self._inbox = self._inbox, []
        return messages

    async def expect_nothing(self) -> None:
        """Check that everything that has been received was expected.

        A call that no procedure serves is the last to be answered, so nothing is still on its way.
        """
        try:
            await self.call("serverwamp.testing.client.nothing")
        except WAMPError:
            pass
        if self._inbox:
            self._fail(f"nothing was expected, but came: {self._inbox!r}")

    async def expect_close(self, *, timeout: float | None = None) -> int:
        """Wait until the application closes the WebSocket, and return the code."""
        seconds = self._timeout if timeout is None else timeout
        with anyio.move_on_after(seconds):
            await self._closed.wait()
        if self.close_code is None:
            self._fail(f"waited {seconds} seconds in vain for the connection to be closed")
        return self.close_code

    def next_request(self) -> int:
        """Return the next id of this session's requests."""
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
        """Open a session and return the details of its WELCOME; without a realm the server chooses.

        `ticket` answers a ticket challenge, `secret` one of WAMP-CRA, salted or not, `password` one
        of SCRAM in either dialect, and `private_key` (64 hexadecimal digits) one of cryptosign;
        they are also what is offered, in this order, unless `authmethods` says something else.

        Raises: WAMPError when the session is refused, with the reason as its URI.
        """
        login = Login(
            authid or "", ticket=ticket, secret=secret, password=password, private_key=private_key
        )
        details: dict[str, Any] = {"roles": dict(roles)}
        given = {
            "authid": authid,
            "authmethods": login.authmethods or None if authmethods is None else authmethods,
            "authextra": {**login.authextra, **(authextra or {})} or None,
        }
        details.update({key: value for key, value in given.items() if value is not None})
        self._last_request = 0
        await self.send([1, realm, details])
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
        """Say GOODBYE and return the reason of the application's; another `join` may follow."""
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
        """Call a procedure and return its final result; `options` are those of the CALL.

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
        """Call a procedure without waiting: for progress, and to cancel it.

        ``receive_progress=True`` asks for progress reports, ``progress=True`` says that chunks
        follow, ``timeout`` is not an option here but ``options={"timeout": milliseconds}`` is.
        """
        request = self.next_request()
        options = {**options.pop("options", {}), **options}
        await self.send([48, request, options, uri, *_sent_payload(args, kwargs)])
        return PendingCall(self, request, uri)

    # ---- events

    async def subscribe(
        self, topic: str, *, timeout: float | None = None, **options: Any
    ) -> Subscription:
        """Subscribe to a topic; `options` are those of the SUBSCRIBE.

        Raises: WAMPError when the answer is an ERROR.
        """
        request = self.next_request()
        await self.send([32, request, options, topic])
        message = await self._expect_reply(32, 33, request, timeout)
        return Subscription(message[2], topic)

    async def catch_up(
        self, subscription: Subscription, *, timeout: float | None = None, **since: Any
    ) -> CaughtUp:
        """Return what is kept of the events of a subscription since a certain event or moment.

        `since` is what ``wamp.subscription.get_events`` takes, as in
        ``after_publication=event.publication`` or ``from_time=caught_up.time``. What is among it of
        that which has arrived in the meantime is dropped: `expect_event` goes on behind it.

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
        """Return the next event, of any subscription or of one."""
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
        """Register a procedure; `options` are those of the REGISTER.

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
        """Return the next call that is to be answered, of any registration or of one."""
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
        """Publish to a topic; with ``acknowledge=True`` wait, and return the publication's id.

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
        """Go away without a word, as a client does whose network is gone."""
        self.transcript.append(f"client: disconnects ({code})")
        self._replies.close()
        await self._frames.send({"type": "websocket.disconnect", "code": code, "reason": ""})
        self._frames.close()

    def pause(self) -> None:
        """Read nothing more, as a client does that is too slow or has gone to sleep."""
        if self._resumed.is_set():
            self._resumed = anyio.Event()

    def resume(self) -> None:
        """Read again."""
        self._resumed.set()

    def feed(self, event: ASGIEvent) -> None:
        """Take an event that the application sends; only a transport calls this.

        `connect` has a transport of its own. Others, such as one over a real socket, hand over
        `websocket.send` and `websocket.close` here.
        """
        if event["type"] == "websocket.close":
            self.close_code = event.get("code", 1000)
            self.transcript.append(f"server: closes the connection ({self.close_code})")
            self._closed.set()
        else:
            frame = event["text"] if self._is_text else event["bytes"]
            for unit in self._serializer.split(frame):
                message = self._decode(unit)
                self.transcript.append(f"server: {message!r}")
                self._inbox.append(message)
        self._arrived.set()
        self._arrived = anyio.Event()

    def feed_end(self) -> None:
        """Note that the application sends nothing more; only a transport calls this."""
        self._closed.set()
        self._arrived.set()

    def _fail(self, what: str) -> NoReturn:
        lines = "\n  ".join(self.transcript[-50:]) or "nothing was said"
        raise ExpectationFailed(f"{what}; the transcript:\n  {lines}")

    # The client has codecs of its own, so that it doesn't share the application's mistakes.

    def _encode(self, message: Sequence[Any]) -> Unit:
        if self._is_text:
            return json.dumps(message, default=_binary_text)
        if self._is_cbor:
            packed: bytes = cbor2.dumps(message)
        else:
            packed = msgpack.packb(message, datetime=True)
        return packed

    def _decode(self, unit: Unit) -> list[Any]:
        message: list[Any]
        if isinstance(unit, str):
            message = _with_binary(json.loads(unit, parse_constant=_refuse_constant))
        else:
            message = (cbor2.loads if self._is_cbor else msgpack.unpackb)(unit)
        return message


def _binary_text(value: Any) -> str:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"JSON can't express objects of type {type(value).__name__}: {value!r}")
    return "\0" + b64encode(value).decode()


def _with_binary(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("\0"):
        return b64decode(value[1:], validate=True)
    if isinstance(value, list):
        return [_with_binary(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_binary(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't JSON")


def _sent_payload(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[Any]:
    if kwargs:
        return [list(args), dict(kwargs)]
    return [list(args)] if args else []


def _payload(message: list[Any], start: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args = message[start] if len(message) > start else []
    kwargs = message[start + 1] if len(message) > start + 1 else {}
    return tuple(args), kwargs


def _checked(message: list[Any]) -> list[Any]:
    """Return a reply.

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
    """Connect a client to an ASGI application, and join `realm` unless that is None.

    `subprotocols` are what the handshake offers, if that is more than the one; `login` goes to
    `Client.join`. With `lifespan` the application is started before and shut down afterwards, as
    by `running`. When the block ends, a connection that is still open is dropped, and the
    application has `timeout` seconds to finish. The block may begin in one task and end in
    another, as fixtures of pytest-asyncio do.

    Raises: HandshakeRefused; WAMPError when the session is refused; whatever the application
        raises, which it shouldn't.
    """
    scope: ASGIEvent = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query_string.encode(),
        "headers": _headers(headers or {}, cookies or {}),
        "client": (peer_address, 50000),
        "server": ("testserver", 80),
        "subprotocols": [subprotocol] if subprotocols is None else list(subprotocols),
        "state": {},
        "extensions": {"websocket.http.response": {}, **(extensions or {})},
    }
    started = running(app, timeout=timeout) if lifespan else nullcontext(app)
    async with started as served, _connected(served, scope, subprotocol, timeout) as client:
        if realm is not None:
            await client.join(realm, **login)
        yield client


@asynccontextmanager
async def _connected(
    app: ASGIApplication, scope: ASGIEvent, subprotocol: str, timeout: float
) -> AsyncIterator[Client]:
    """Open a WebSocket, and drop it when the block ends."""
    to_app, from_client = anyio.create_memory_object_stream[ASGIEvent](FRAMES_IN_FLIGHT)
    to_client, from_app = anyio.create_memory_object_stream[ASGIEvent](FRAMES_IN_FLIGHT)
    accepted = anyio.Event()
    transport = _Transport(from_client, to_client, accepted)
    failure: BaseException | None = None

    async with from_client, from_app, open_starter() as tasks:
        ended = anyio.Event()

        async def serve() -> None:
            nonlocal failure
            try:
                await app(scope, transport.receive, transport.send)
            except Exception as error:
                failure = error
            finally:
                to_client.close()
                accepted.set()
                ended.set()

        serving = tasks.start(serve)
        with anyio.move_on_after(timeout):
            await accepted.wait()
        client = Client(transport.subprotocol or subprotocol, to_app, from_app, timeout)

        async def take() -> None:
            try:
                async for event in from_app:
                    if not client._resumed.is_set():
                        await client._resumed.wait()
                    client.feed(event)
            except anyio.ClosedResourceError:
                pass  # the client has disconnected
            client.feed_end()

        taking = tasks.start(take)
        try:
            if transport.subprotocol is None:
                raise failure or HandshakeRefused(transport.status)
            yield client
        except Exception as error:
            failure = failure or error
        finally:
            if not ended.is_set():
                with anyio.move_on_after(timeout, shield=True) as leaving:
                    with suppress(anyio.ClosedResourceError):
                        await to_app.send({"type": "websocket.disconnect", "code": 1005})
                    await ended.wait()
                if leaving.cancelled_caught and failure is None:
                    failure = ExpectationFailed("the application doesn't end with its connection")
            to_app.close()
            serving.cancel()
            taking.cancel()
    if failure is not None:
        raise failure


def _headers(headers: Mapping[str, str], cookies: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    raw = [] if "host" in headers else [(b"host", b"testserver")]
    raw += [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]
    if cookies:
        text = "; ".join(f"{name}={value}" for name, value in cookies.items())
        raw.append((b"cookie", text.encode("latin-1")))
    return raw


@asynccontextmanager
async def running(app: ASGIApplication, *, timeout: float = 5.0) -> AsyncIterator[ASGIApplication]:
    """Start an ASGI application and shut it down when the block ends, as a server does.

    That runs its lifespan. What the block gets is the application that clients are to be connected
    to: its connections share the state that the lifespan has set. Each phase may take `timeout`
    seconds.

    Raises: what the lifespan raises; ExpectationFailed when the application says that it failed, or
        says nothing.
    """
    lifespan, failure = _Lifespan(app), None

    async def with_state(scope: ASGIEvent, receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(lifespan.state)}, receive, send)

    async with open_starter() as tasks:
        task = tasks.start(lifespan.run)
        try:
            await lifespan.advance("startup", timeout)
            try:
                yield with_state
            finally:
                await lifespan.advance("shutdown", timeout)
        except Exception as error:
            failure = error
        finally:
            task.cancel()
            lifespan.close()
    if failure is not None:
        raise failure


class _Lifespan:
    """What an ASGI server gives an application for its lifespan."""

    def __init__(self, app: ASGIApplication) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._failure: Exception | None = None
        self._to_app, self._events = anyio.create_memory_object_stream[ASGIEvent](2)
        self._answers, self._from_app = anyio.create_memory_object_stream[ASGIEvent](2)

    async def run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            await self._app(scope, self._events.receive, self._answers.send)
        except Exception as error:
            self._failure = error
        finally:
            self._answers.close()

    def close(self) -> None:
        for stream in (self._to_app, self._events, self._answers, self._from_app):
            stream.close()

    async def advance(self, phase: str, timeout: float) -> None:
        """Begin a phase, and wait until the application has completed it.

        Raises: what the application raises; ExpectationFailed when it doesn't complete the phase.
        """
        answer: ASGIEvent = {"type": f"no answer within {timeout} seconds"}
        with anyio.move_on_after(timeout, shield=phase == "shutdown"):
            self._to_app.send_nowait({"type": f"lifespan.{phase}"})
            with suppress(anyio.EndOfStream):
                answer = await self._from_app.receive()
                if answer["type"] != "lifespan.startup.complete":
                    await self._from_app.receive()  # until the application has ended
        if self._failure is not None:
            raise self._failure
        if answer["type"] != f"lifespan.{phase}.complete":
            said = answer.get("message", answer["type"])
            raise ExpectationFailed(f"the application doesn't complete its {phase}: {said}")


class _Transport:
    """What an ASGI server gives an application for one WebSocket."""

    def __init__(
        self,
        events: MemoryObjectReceiveStream[ASGIEvent],
        sent: MemoryObjectSendStream[ASGIEvent],
        accepted: anyio.Event,
    ) -> None:
        self._events = events
        self._sent = sent
        self._accepted = accepted
        self._state = "connecting"
        self.subprotocol: str | None = None
        self.status = 403

    async def receive(self) -> ASGIEvent:
        if self._state == "connecting":
            self._state = "connected"
            return {"type": "websocket.connect"}
        if self._state == "disconnected":
            raise RuntimeError("receive() after websocket.disconnect waits for ever on servers")
        if self._state == "closed":
            self._state = "disconnected"
            return {"type": "websocket.disconnect", "code": 1005}
        event = await self._events.receive()
        if event["type"] == "websocket.disconnect":
            self._state = "disconnected"
        return event

    async def send(self, event: ASGIEvent) -> None:
        if event["type"] == "websocket.accept":
            self.subprotocol = event.get("subprotocol") or ""
            self._accepted.set()
        elif self._state in ("disconnected", "closed"):
            raise OSError("the client is gone")
        elif self.subprotocol is None:
            self.status = event.get("status", self.status)
            self._accepted.set()  # closed before it was accepted
        else:
            try:
                await self._sent.send(event)
            except anyio.BrokenResourceError:
                raise OSError("the client is gone") from None
            if event["type"] == "websocket.close":
                self._state = "closed"
