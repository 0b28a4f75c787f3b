"""Autobahn|Python against every server, with every serializer that both sides speak."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

import pytest
import txaio
from autobahn.asyncio.wamp import ApplicationSession
from autobahn.asyncio.websocket import WampWebSocketClientFactory
from autobahn.wamp import auth
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import (
    CallDetails,
    CallOptions,
    CallResult,
    Challenge,
    CloseDetails,
    ComponentConfig,
    EventDetails,
    PublishOptions,
    RegisterOptions,
    SessionDetails,
    SubscribeOptions,
)

TIMEOUT = 15.0
OPEN = "clients.open"

SERIALIZERS: dict[str, Callable[[], Any]] = {
    "json": JsonSerializer,
    "msgpack": MsgPackSerializer,
    "msgpack.batched": lambda: MsgPackSerializer(batched=True),
    "cbor": CBORSerializer,
    "cbor.batched": lambda: CBORSerializer(batched=True),
}


@pytest.fixture
def anyio_backend() -> str:
    """The client runs on asyncio; on what the server runs is its own affair."""
    return "asyncio"


# ---- the client


class Client(ApplicationSession):
    """A session whose joining, leaving and closing can be awaited."""

    def __init__(
        self,
        realm: str | None,
        authmethods: list[str] | None,
        authid: str | None,
        answer: Callable[[Challenge], str] | None,
        authenticator: Any = None,
    ) -> None:
        super().__init__(ComponentConfig(realm))
        loop = asyncio.get_running_loop()
        self.welcome: asyncio.Future[SessionDetails] = loop.create_future()
        self.goodbye: asyncio.Future[CloseDetails] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.stays_connected = False
        self.mishaps: list[str] = []
        self._joining = {"authmethods": authmethods, "authid": authid}
        if authenticator is not None:
            self._joining["authextra"] = authenticator.authextra
        self._answer = answer
        self._authenticator = authenticator

    def onConnect(self) -> None:
        self.join(self.config.realm, **self._joining)

    def onChallenge(self, challenge: Challenge) -> Any:
        if self._answer is None:
            return self._authenticator.on_challenge(self, challenge)
        assert self._answer is not None
        return self._answer(challenge)

    def onWelcome(self, msg: Any) -> str | None:
        """Return why this client doesn't trust the server, or None."""
        if self._authenticator is None:
            return None
        distrust: str | None = self._authenticator.on_welcome(self, msg.authextra)
        return distrust

    def onJoin(self, details: SessionDetails) -> None:
        self.welcome.set_result(details)

    def onLeave(self, details: CloseDetails) -> None:
        if self.welcome.done():
            self.goodbye.set_result(details)
        else:
            self.welcome.set_exception(ApplicationError(details.reason, details.message))
        if not self.stays_connected:
            self.disconnect()

    def onDisconnect(self) -> None:
        self.closed.set_result(None)

    def onUserError(self, fail: Any, msg: str) -> None:
        # What a procedure answers with an error, or leaves when it is interrupted, is none.
        if not isinstance(fail.value, (ApplicationError, asyncio.CancelledError)):
            self.mishaps.append(f"{msg}: {fail}")

    def rejoin(self) -> asyncio.Future[SessionDetails]:
        """Begin another session over the same connection."""
        loop = asyncio.get_running_loop()
        self.welcome, self.goodbye = loop.create_future(), loop.create_future()
        self.stays_connected = False
        self.onConnect()
        return self.welcome


class Connector:
    """Opens sessions at one server with one serializer, and closes what is left open."""

    def __init__(self, url: str, serializer: str) -> None:
        self.url = url
        self.serializer = serializer

    @asynccontextmanager
    async def join(
        self,
        realm: str | None = OPEN,
        authmethods: list[str] | None = None,
        authid: str | None = None,
        answer: Callable[[Challenge], str] | None = None,
        authenticator: Any = None,
        headers: dict[str, str] | None = None,
    ) -> AsyncIterator[Client]:
        """Open a session; leaving the block ends it, and its connection, if that isn't done yet.

        Raises: ApplicationError when the server refuses it.
        """
        loop = asyncio.get_running_loop()
        txaio.config.loop = loop
        client = Client(realm, authmethods, authid, answer, authenticator)
        factory = WampWebSocketClientFactory(
            lambda: client,
            url=self.url,
            serializers=[SERIALIZERS[self.serializer]()],
            headers=headers,
            loop=loop,
        )
        async with asyncio.timeout(TIMEOUT):
            await loop.create_connection(factory, factory.host, factory.port)
            try:
                await client.welcome
            except ApplicationError:
                await client.closed
                raise
        try:
            assert client.transport.websocket_protocol_in_use == f"wamp.2.{self.serializer}"
            yield client
        finally:
            async with asyncio.timeout(TIMEOUT):
                if not client.goodbye.done():
                    client.leave()
                    await client.goodbye
                await client.closed
        assert client.mishaps == []

    async def refused(self, **joining: Any) -> str:
        """Return the reason for which the server doesn't let this client in."""
        with pytest.raises(ApplicationError) as refusal:
            async with self.join(**joining):
                pass
        return str(refusal.value.error)


@pytest.fixture(params=SERIALIZERS)
def connector(request: pytest.FixtureRequest, server: str) -> Connector:
    return Connector(server, request.param)


async def soon(awaited: Any) -> Any:
    """Await what may take a while, but not for ever."""
    async with asyncio.timeout(TIMEOUT):
        return await awaited


def forms(result: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return args and kwargs of a result; the client hands out a lone value as it is."""
    if isinstance(result, CallResult):
        return list(result.results or ()), result.kwresults or {}
    return [result], {}


async def fails(call: Any) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the error with which a request is answered."""
    with pytest.raises(ApplicationError) as failure:
        await soon(call)
    return failure.value.error, list(failure.value.args), failure.value.kwargs


# ---- sessions


async def test_join_and_leave(connector: Connector) -> None:
    async with connector.join() as client:
        welcome = client.welcome.result()
        assert 1 <= welcome.session <= 2**53
        assert welcome.realm == OPEN
        assert (welcome.authrole, welcome.authmethod) == ("anonymous", "anonymous")
        client.leave()
        assert (await soon(client.goodbye)).reason == "wamp.close.goodbye_and_out"


async def test_join_again_over_the_same_connection(connector: Connector) -> None:
    async with connector.join() as client:
        first = client.welcome.result().session
        assert await soon(client.call("test.add", 1, 2)) == 3
        client.stays_connected = True
        client.leave()
        await soon(client.goodbye)
        second = (await soon(client.rejoin())).session
        assert second != first
        assert await soon(client.call("test.add", 3, 4)) == 7


async def test_unknown_realm(connector: Connector) -> None:
    assert await connector.refused(realm="clients.nowhere") == "wamp.error.no_such_realm"


async def test_fifty_sessions_at_once(connector: Connector) -> None:
    count = 50
    heard: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    everybody_is_here = asyncio.Barrier(count + 1)
    everybody_has_heard = asyncio.Event()

    async def take_part(number: int) -> int:
        async with connector.join() as client:
            await soon(
                client.subscribe(lambda text: heard.put_nowait((number, text)), "test.crowd")
            )
            assert await soon(client.call("test.add", number, number)) == 2 * number
            await soon(everybody_is_here.wait())
            await soon(everybody_has_heard.wait())
            return int(client.welcome.result().session)

    async with asyncio.TaskGroup() as crowd, connector.join() as publisher:
        parts = [crowd.create_task(take_part(number)) for number in range(count)]
        await soon(everybody_is_here.wait())
        await soon(publisher.call("test.publish", "test.crowd", "hello"))
        listeners = [await soon(heard.get()) for _ in range(count)]
        everybody_has_heard.set()
    assert sorted(listeners) == [(number, "hello") for number in range(count)]
    assert len({part.result() for part in parts}) == count


# ---- calls


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, "two", 3.5, None, True, [4, [5]], {"six": 6}), {}),
        ((), {"name": "Anna", "list": [1, 2], "nested": {"deep": {"deeper": False}}}),
        ((1, 2), {"three": 3}),
        ((2**53, -(2**53), 2**31, -1, 0), {}),
    ],
    ids=["none", "positional", "by name", "both", "large numbers"],
)
async def test_arguments(connector: Connector, args: Any, kwargs: Any) -> None:
    async with connector.join() as client:
        result = await soon(client.call("test.arguments", *args, **kwargs))
        assert forms(result) == ([list(args), kwargs], {})


async def test_arguments_of_a_signature(connector: Connector) -> None:
    async with connector.join() as client:
        assert await soon(client.call("test.add", 1, 2)) == 3
        assert await soon(client.call("test.add", 1)) == 11
        assert await soon(client.call("test.add", a=1, b=2)) == 3
        assert await soon(client.call("test.add", 1, b=2)) == 3
        assert await soon(client.call("test.add", "1", "2")) == 3
        assert await soon(client.call("test.blocking_add", 1, 2)) == 3


@pytest.mark.parametrize(
    ("form", "args", "kwargs"),
    [
        ("none", [None], {}),
        ("scalar", [23], {}),
        ("list", [1, "two", [3]], {}),
        ("mapping", [], {"name": "Anna", "nested": {"deep": True}}),
        ("result", [1, 2], {"three": 3}),
        ("empty", [None], {}),  # this client makes None of a result without any arguments
    ],
)
async def test_results(connector: Connector, form: str, args: Any, kwargs: Any) -> None:
    async with connector.join() as client:
        assert forms(await soon(client.call("test.returned", form))) == (args, kwargs)


async def test_errors(connector: Connector) -> None:
    async with connector.join() as client:
        assert await fails(client.call("test.raise_error")) == (
            "test.error.raised",
            ["told", 1],
            {"reason": "because"},
        )
        assert await fails(client.call("test.return_error")) == (
            "test.error.returned",
            ["told", 2],
            {"reason": "why not"},
        )
        uri, args, _ = await fails(client.call("test.fail"))
        assert uri == "wamp.error.runtime_error"
        assert "a part of the test" not in str(args)
        for wrong in (("one", 2), (1, 2, 3), ()):
            uri, *_ = await fails(client.call("test.add", *wrong))
            assert uri == "wamp.error.invalid_argument"
        assert await soon(client.call("test.add", 1, 2)) == 3


async def test_unknown_procedure(connector: Connector) -> None:
    async with connector.join() as client:
        uri, *_ = await fails(client.call("test.nothing.here", 1))
        assert uri == "wamp.error.no_such_procedure"
        assert await soon(client.call("test.add", 1, 2)) == 3


async def test_progress(connector: Connector) -> None:
    reports: list[Any] = []

    def report(number: int, of: int) -> None:
        reports.append((number, of))

    async with connector.join() as client:
        call = client.call("test.count", 20, options=CallOptions(on_progress=report))
        assert await soon(call) == 20
        assert reports == [(number, 20) for number in range(1, 20)]


async def test_progress_that_nobody_asked_for(connector: Connector) -> None:
    """The client would close the connection if it got any."""
    async with connector.join() as client:
        assert await soon(client.call("test.count", 20)) == 20
        assert await soon(client.call("test.add", 1, 2)) == 3


async def test_cancel(connector: Connector) -> None:
    begun = asyncio.Event()

    def report(text: str) -> None:
        assert text == "begun"
        begun.set()

    async with connector.join() as client:
        call = client.call("test.wait", options=CallOptions(on_progress=report))
        await soon(begun.wait())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await soon(client.call("test.wait_has_ended")) is True


async def test_timeout(connector: Connector) -> None:
    async with connector.join() as client:
        uri, *_ = await fails(client.call("test.wait", options=CallOptions(timeout=50)))
        assert uri == "wamp.error.timeout"
        assert await soon(client.call("test.wait_has_ended")) is True


# ---- being called


class Callee:
    """What a client serves below a prefix, and what became of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting = asyncio.Event()
        self.interrupted = asyncio.Event()

    async def serve(self, client: Client) -> None:
        """Register the procedures; their names are those of the methods."""
        asked = RegisterOptions(details=True)
        for method in (self.echo, self.count, self.fail, self.wait):
            await soon(client.register(method, f"{self.name}.{method.__name__}", asked))

    def echo(self, *args: Any, details: CallDetails, **kwargs: Any) -> CallResult:
        form = {"args": list(args), "kwargs": kwargs}
        return CallResult(form, procedure=details.procedure, caller=details.caller)

    async def count(self, to: int, details: CallDetails) -> str:
        if details.progress:
            for number in range(1, to):
                details.progress(number, of=to)
        return "asked" if details.progress else "not asked"

    async def fail(self, details: CallDetails) -> None:
        raise ApplicationError("test.error.peer", "told", self.name, reason="because")

    async def wait(self, details: CallDetails) -> None:
        self.waiting.set()
        if details.progress:
            details.progress("begun")
        try:
            await asyncio.Event().wait()
        finally:
            self.interrupted.set()


async def test_called_by_the_application(connector: Connector) -> None:
    reports: list[Any] = []

    def report(number: int, of: int) -> None:
        reports.append((number, of))

    async with connector.join() as client:
        callee = Callee("own")  # nobody else may call this
        await callee.serve(client)

        def call(name: str, *args: Any, options: Any = None, **kwargs: Any) -> Any:
            return client.call("test.call_me", f"own.{name}", args, kwargs, options=options)

        result = forms(await soon(call("echo", 1, "two", b=b"binary")))
        form = {"args": [1, "two"], "kwargs": {"b": b"binary"}}
        assert result == ([form], {"procedure": "own.echo", "caller": None})
        assert await soon(call("count", 5, options=CallOptions(on_progress=report))) == "asked"
        assert reports == [(number, 5) for number in range(1, 5)]
        error = await fails(call("fail"))
        assert error == ("test.error.peer", ["told", "own"], {"reason": "because"})
        assert (await fails(call("nothing")))[0] == "wamp.error.no_such_procedure"

        late = client.call("test.call_me", "own.wait", [], {}, 0.05)
        assert (await fails(late))[0] == "wamp.error.timeout"
        await soon(callee.interrupted.wait())
        callee.interrupted.clear()
        callee.waiting.clear()
        cancelled = call("wait")
        await soon(callee.waiting.wait())
        cancelled.cancel()
        await soon(callee.interrupted.wait())
        assert await soon(client.call("test.add", 1, 2)) == 3


async def test_called_by_another_client(connector: Connector) -> None:
    reports: list[Any] = []

    def report(number: int, of: int) -> None:
        reports.append((number, of))

    async with connector.join() as client, connector.join() as caller:
        callee = Callee("test.peer.python")
        await callee.serve(client)
        result = forms(await soon(caller.call("test.peer.python.echo", 1, "two", b=b"binary")))
        form = {"args": [1, "two"], "kwargs": {"b": b"binary"}}
        assert result == ([form], {"procedure": "test.peer.python.echo", "caller": None})
        count = "test.peer.python.count"
        assert await soon(caller.call(count, 5)) == "not asked"
        on_progress = CallOptions(on_progress=report)
        assert await soon(caller.call(count, 5, options=on_progress)) == "asked"
        assert reports == [(number, 5) for number in range(1, 5)]
        assert await soon(caller.call("test.call_anyone", count, [5], {})) == "not asked"
        error = ("test.error.peer", ["told", "test.peer.python"], {"reason": "because"})
        assert await fails(caller.call("test.peer.python.fail")) == error

        wait = "test.peer.python.wait"
        cancelled = caller.call(wait)
        await soon(callee.waiting.wait())
        cancelled.cancel()
        await soon(callee.interrupted.wait())
        callee.interrupted.clear()
        late = caller.call(wait, options=CallOptions(timeout=50))
        assert (await fails(late))[0] == "wamp.error.timeout"
        await soon(callee.interrupted.wait())
        callee.waiting.clear()
        abandoned = caller.call(wait)
        await soon(callee.waiting.wait())
        client.leave()
        assert (await fails(abandoned))[0] == "wamp.error.canceled"


async def test_telling_the_callee_who_calls(connector: Connector) -> None:
    async with connector.join() as client, connector.join() as caller:
        await Callee("test.told").serve(client)
        _, kwargs = forms(await soon(caller.call("test.told.echo")))
        assert kwargs["caller"] == caller.welcome.result().session


async def test_registrations(connector: Connector) -> None:
    async with connector.join() as one, connector.join() as two:
        uri = "test.peer.several"

        async def refused(client: Client, uri: str = uri, options: Any = None) -> str:
            return (await fails(client.register(lambda: None, uri, options)))[0]

        alone = await soon(one.register(lambda: "one", uri))
        assert await refused(two) == "wamp.error.procedure_already_exists"
        await soon(alone.unregister())
        assert (await fails(two.call(uri)))[0] == "wamp.error.no_such_procedure"

        for invoke, answers in (
            ("roundrobin", ["one", "two", "one"]),
            ("first", ["one", "one", "one"]),
            ("last", ["two", "two", "two"]),
        ):
            shared = RegisterOptions(invoke=invoke)
            registrations = [
                await soon(client.register(lambda name=name: name, uri, shared))
                for client, name in ((one, "one"), (two, "two"))
            ]
            assert registrations[0].id == registrations[1].id
            assert [await soon(two.call(uri)) for _ in answers] == answers
            for registration in registrations:
                await soon(registration.unregister())

        assert await refused(two, "test.add") == "wamp.error.procedure_already_exists"
        assert await refused(two, "wamp.mine") == "wamp.error.invalid_uri"

        def which(details: CallDetails) -> str:
            return str(details.procedure)

        for match, pattern in (("prefix", "test.peer.any."), ("wildcard", "test.peer..of")):
            asked = RegisterOptions(match=match, details=True)
            await soon(one.register(which, pattern, asked))
        for procedure in ("test.peer.any.thing", "test.peer.kind.of"):
            assert await soon(two.call(procedure)) == procedure


# ---- values


@pytest.mark.parametrize("data", [b"", bytes(range(256)), b"\0" * 1000], ids=["empty", "all", "0"])
async def test_binary(connector: Connector, data: bytes) -> None:
    async with connector.join() as client:
        args, kwargs = forms(await soon(client.call("test.binary", data)))
        assert args == [data]
        assert kwargs == {"length": len(data), "sha256": sha256(data).hexdigest()}


async def test_unicode(connector: Connector) -> None:
    value = 'Grüße, 世界 \N{PARTY POPPER} e\u0301 \u202eright\u202c \u2028 "quoted" \\ \x01 \x7f'
    async with connector.join() as client:
        args, kwargs = forms(await soon(client.call("test.text", value)))
        assert args == [value]
        assert kwargs == {"length": len(value), "sha256": sha256(value.encode()).hexdigest()}
        named = await soon(client.call("test.arguments", **{"größe": value}))
        assert forms(named) == ([[], {"größe": value}], {})


async def test_one_mebibyte(connector: Connector) -> None:
    value = "".join(chr(ord("a") + number % 26) for number in range(2**20))
    async with connector.join() as client:
        args, kwargs = forms(await soon(client.call("test.text", value)))
        assert args == [value]
        assert kwargs == {"length": 2**20, "sha256": sha256(value.encode()).hexdigest()}


# ---- events


async def test_a_thousand_events_in_order(connector: Connector) -> None:
    received: list[int] = []
    async with connector.join() as client:
        await soon(client.subscribe(received.append, "test.news"))
        await soon(client.call("test.publish_numbers", "test.news", 1000))
        # The events left before the reply, so that all of them are here.
        assert received == list(range(1000))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "two"), {}), ((), {"name": "Anna"}), ((1,), {"name": "Anna"})],
    ids=["nothing", "positional", "by name", "both"],
)
async def test_arguments_of_events(connector: Connector, args: Any, kwargs: Any) -> None:
    received: list[Any] = []

    def receive(*args: Any, details: EventDetails, **kwargs: Any) -> None:
        received.append((args, kwargs, details.topic))
        assert 1 <= details.publication <= 2**53

    async with connector.join() as client:
        options = SubscribeOptions(details=True)
        await soon(client.subscribe(receive, "test.news", options))
        await soon(client.call("test.publish", "test.news", *args, **kwargs))
        assert received == [(args, kwargs, "test.news")]


async def test_event_of_the_subscription_handler(connector: Connector) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()
    async with connector.join() as client:
        await soon(
            client.subscribe(lambda *args, **kw: received.put_nowait((args, kw)), "test.greeting")
        )
        assert await soon(received.get()) == (("first",), {"topic": "test.greeting"})


async def test_unsubscribe_and_subscribe_again(connector: Connector) -> None:
    received: list[str] = []
    async with connector.join() as client:
        for time in ("first", "second"):
            subscription = await soon(client.subscribe(received.append, "test.news"))
            await soon(client.call("test.publish", "test.news", f"{time} time"))
            await soon(subscription.unsubscribe())
            await soon(client.call("test.publish", "test.news", "to nobody"))
        assert received == ["first time", "second time"]


async def test_publishing(connector: Connector) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()

    def receive(*args: Any, details: EventDetails, **kwargs: Any) -> None:
        received.put_nowait((args, kwargs, details))

    async with connector.join() as publisher, connector.join() as subscriber:
        me = publisher._session_id
        asked = SubscribeOptions(details=True)
        for topic in ("test.board.a", "test.measured"):
            await soon(subscriber.subscribe(receive, topic, asked))
            await soon(publisher.subscribe(receive, topic, asked))
        acknowledged = PublishOptions(acknowledge=True)  # it has no disclose_me
        publication = await soon(publisher.publish("test.board.a", 1, a=2, options=acknowledged))
        args, kwargs, details = await soon(received.get())
        assert (args, kwargs, details.publication) == ((1,), {"a": 2}, publication.id)
        publisher.publish("test.measured", -300.0)
        publisher.publish("test.measured", 21.5)
        args, kwargs, details = await soon(received.get())
        assert (args, kwargs) == ((), {"celsius": 21.5, "by": me})
        too_cold = publisher.publish("test.measured", -300.0, options=acknowledged)
        assert (await fails(too_cold))[:2] == ("test.error.too_cold", [-300.0])
        only_me = PublishOptions(acknowledge=True, exclude_me=False, eligible=[me])
        await soon(publisher.publish("test.board.a", "me", options=only_me))
        nobody = PublishOptions(acknowledge=True, exclude_me=False, exclude_authrole="anonymous")
        await soon(publisher.publish("test.board.a", "nobody", options=nobody))
        assert (await soon(received.get()))[0] == ("me",)
        refused = publisher.publish("test.news", options=acknowledged)
        assert (await fails(refused))[0] == "wamp.error.not_authorized"
        assert await soon(subscriber.call("test.add", 1, 2)) == 3
        assert received.empty()


async def test_patterns(connector: Connector) -> None:
    received: list[Any] = []
    async with connector.join() as client:
        for match, topic in (("prefix", "test.board."), ("wildcard", "test.board..b")):

            def receive(text: str, details: EventDetails, match: str = match) -> None:
                received.append((match, details.topic, text))

            options = SubscribeOptions(match=match, details=True)
            await soon(client.subscribe(receive, topic, options))
        for topic in ("test.board.a", "test.board.a.b"):
            await soon(client.call("test.publish", topic, "text"))
        assert sorted(received) == [
            ("prefix", "test.board.a", "text"),
            ("prefix", "test.board.a.b", "text"),
            ("wildcard", "test.board.a.b", "text"),
        ]
        too_much = client.subscribe(lambda: None, "test.", SubscribeOptions(match="prefix"))
        assert (await fails(too_much))[0] == "wamp.error.not_authorized"


async def test_refused_subscriptions(connector: Connector) -> None:
    async with connector.join() as client:
        refused = await fails(client.subscribe(lambda: None, "test.closed_club"))
        assert refused == ("test.error.members_only", ["sorry"], {})
        uri, *_ = await fails(client.subscribe(lambda: None, "test.no_such_topic"))
        assert uri == "wamp.error.not_authorized"
        assert await soon(client.call("test.add", 1, 2)) == 3


# ---- authentication


def ticket(text: str) -> Callable[[Challenge], str]:
    return lambda challenge: text


def signature(secret: str) -> Callable[[Challenge], str]:
    """Answer a challenge of WAMP-CRA, salted or not, as the client's documentation does it."""

    def sign(challenge: Challenge) -> str:
        extra = challenge.extra
        key = secret.encode()
        if "salt" in extra:
            key = auth.derive_key(key, extra["salt"], extra["iterations"], extra["keylen"])
        return str(auth.compute_wcs(key, extra["challenge"]).decode())

    return sign


TICKET = {"realm": "clients.ticket", "authmethods": ["ticket"]}
CRA = {"realm": "clients.cra", "authmethods": ["wampcra"]}
COOKIE = {"realm": "clients.cookie"}
SCRAM = {"realm": "clients.scram", "authmethods": ["scram"]}
KEY = {"realm": "clients.key", "authmethods": ["cryptosign"]}
SEVERAL = {"realm": "clients.several", "authid": "anna"}
ANNAS_KEY, EVES_KEY = "a1" * 32, "ee" * 32


def need(*modules: str) -> None:
    """Skip the test where an extra of the client isn't installed; in CI it has to be."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"autobahn[encryption,scram] is missing: {missing}")


def has_key(key: str) -> Any:
    need("nacl", "base58", "ecdsa", "qrcode")
    return auth.create_authenticator("cryptosign", privkey=key)


def knows_password(authid: str, password: str) -> Any:
    need("argon2", "passlib")
    return auth.create_authenticator("scram", authid=authid, password=password)


DETAILS = ("authid", "authrole", "authmethod", "authprovider")
ANNA = ["anna", "admin", "wampcra", "test"]
BERT = ["bert", "member", "wampcra", "test"]


@pytest.mark.parametrize(
    ("joining", "identity", "details"),
    [
        (
            {**TICKET, "authid": "anna", "answer": ticket("anna's ticket")},
            "Anna by ticket",
            ["anna", "user", "ticket", "dynamic"],
        ),
        ({**CRA, "authid": "anna", "answer": signature("anna's secret")}, "anna by secret", ANNA),
        ({**CRA, "authid": "bert", "answer": signature("bert's password")}, "bert by secret", BERT),
        (
            {**COOKIE, "headers": {"Cookie": "other=1; login=annas-cookie"}},
            "Anna by cookie",
            ["anna", "user", "anonymous", "dynamic"],
        ),
        (
            {
                **COOKIE,
                "authmethods": ["cookie"],
                "headers": {"Cookie": "login=annas-cookie"},
            },
            "Anna by cookie",
            ["anna", "user", "cookie", "dynamic"],
        ),
    ],
    ids=["ticket", "cra", "salted cra", "cookie", "cookie as a method"],
)
async def test_login(
    connector: Connector, joining: dict[str, Any], identity: str, details: list[str]
) -> None:
    expected = dict(zip(DETAILS, details, strict=True))
    async with connector.join(**joining) as client:
        welcome = client.welcome.result()
        assert {name: getattr(welcome, name) for name in DETAILS} == expected
        who = forms(await soon(client.call("test.who_am_i")))
        assert who == ([], {"identity": identity, **expected})


@pytest.mark.parametrize(
    ("joining", "reason"),
    [
        ({**TICKET, "authid": "anna", "answer": ticket("a forged one")}, "authentication_failed"),
        ({**TICKET, "authid": "eve", "answer": ticket("anna's ticket")}, "authentication_failed"),
        ({**CRA, "authid": "anna", "answer": signature("a guess")}, "authentication_failed"),
        ({**CRA, "authid": "bert", "answer": signature("a guess")}, "authentication_failed"),
        ({**CRA, "authid": "eve", "answer": signature("a guess")}, "authentication_failed"),
        ({**COOKIE, "headers": {"Cookie": "login=forged"}}, "authentication_failed"),
        (COOKIE, "authentication_failed"),
        ({"realm": "clients.ticket"}, "authentication_required"),
        ({"realm": "clients.cra", "authid": "anna"}, "authentication_required"),
        ({**CRA, "authid": "anna", "authmethods": ["ticket"]}, "no_matching_auth_method"),
    ],
    ids=[
        "ticket",
        "ticket of somebody else",
        "cra",
        "salted cra",
        "cra of nobody",
        "forged cookie",
        "no cookie",
        "no method for a ticket",
        "no method for cra",
        "another method",
    ],
)
async def test_refused_login(connector: Connector, joining: dict[str, Any], reason: str) -> None:
    assert await connector.refused(**joining) == f"wamp.error.{reason}"


@pytest.mark.parametrize(
    ("joining", "details"),
    [
        ({**KEY, "authid": "anna"}, ["anna", "admin", "cryptosign", "test"]),
        (KEY, ["anna", "admin", "cryptosign", "test"]),
    ],
    ids=["by name", "by the key alone"],
)
async def test_login_by_key(
    connector: Connector, joining: dict[str, Any], details: list[str]
) -> None:
    async with connector.join(**joining, authenticator=has_key(ANNAS_KEY)) as client:
        welcome = client.welcome.result()
        assert [getattr(welcome, name) for name in DETAILS] == details
        _, who = forms(await soon(client.call("test.who_am_i")))
        assert who["identity"] == "anna by key"
    refused = await connector.refused(**joining, authenticator=has_key(EVES_KEY))
    assert refused == "wamp.error.authentication_failed"


@pytest.mark.spec("T-03")
async def test_login_by_password(connector: Connector) -> None:
    """The server proves that it knows the password, too, or this client would leave."""
    anna = knows_password("anna", "anna's password")
    async with connector.join(**SCRAM, authid="anna", authenticator=anna) as client:
        assert client.welcome.result().authmethod == "scram"
        _, who = forms(await soon(client.call("test.who_am_i")))
        assert who["identity"] == "anna by password"
    for authid in ("anna", "eve"):
        authenticator = knows_password(authid, "a guess")
        refused = await connector.refused(**SCRAM, authid=authid, authenticator=authenticator)
        assert refused == "wamp.error.authentication_failed"


@pytest.mark.parametrize("authmethods", [["wampcra", "ticket"], ["ticket", "wampcra"]])
async def test_the_first_of_several_methods(connector: Connector, authmethods: list[str]) -> None:
    def answer(challenge: Challenge) -> str:
        if challenge.method == "ticket":
            return "anna's ticket"
        return signature("anna's secret")(challenge)

    async with connector.join(**SEVERAL, authmethods=authmethods, answer=answer) as client:
        assert client.welcome.result().authmethod == authmethods[0]


async def test_a_realm_that_the_server_assigns(connector: Connector) -> None:
    login = {**TICKET, "realm": None, "authid": "anna"}
    async with connector.join(**login, answer=ticket("anna's ticket")) as client:
        assert client.welcome.result().realm == "clients.ticket"
        _, who = forms(await soon(client.call("test.who_am_i")))
        assert who["identity"] == "Anna by ticket"


# ---- others who are there

ANNA = {**CRA, "authid": "anna", "answer": signature("anna's secret")}
BERT = {**CRA, "authid": "bert", "answer": signature("bert's password")}


async def test_who_is_there(connector: Connector) -> None:
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def next_event(session: int) -> tuple[str, Any]:
        """Return what happens to a session; there may be others."""
        while True:
            name, args = await soon(events.get())
            if args[0] == session or (name == "on_join" and args[0]["session"] == session):
                return name, args

    async with connector.join(**ANNA) as anna:
        for name in ("session.on_join", "session.on_leave", "subscription.on_subscribe"):

            def note(*args: Any, name: str = name.partition(".")[2]) -> None:
                events.put_nowait((name, args))

            await soon(anna.subscribe(note, f"wamp.{name}"))
        async with connector.join(**BERT) as bert:
            welcome = bert.welcome.result()
            id_ = welcome.session
            described = await soon(anna.call("wamp.session.get", id_))
            assert described == {
                "session": id_,
                "authid": "bert",
                "authrole": "member",
                "authmethod": "wampcra",
                "authprovider": "test",
            }
            assert await next_event(id_) == ("on_join", (described,))
            assert id_ in await soon(bert.call("wamp.session.list", ["member"]))
            assert id_ not in await soon(bert.call("wamp.session.list", ["admin"]))
            assert await soon(bert.call("wamp.session.count")) >= 2

            subscription = await soon(bert.subscribe(lambda: None, "test.news"))
            assert await next_event(id_) == ("on_subscribe", (id_, subscription.id))
            subscribers = await soon(
                anna.call("wamp.subscription.list_subscribers", subscription.id)
            )
            assert id_ in subscribers

            uri, *_ = await fails(bert.call("wamp.session.kill", id_))
            assert uri == "wamp.error.not_authorized"
            assert await soon(anna.call("wamp.session.kill", id_, message="it is late")) is None
            goodbye = await soon(bert.goodbye)
            assert (goodbye.reason, goodbye.message) == ("wamp.close.killed", "it is late")
        assert await next_event(id_) == ("on_leave", (id_, "bert", "member"))
        uri, *_ = await fails(anna.call("wamp.session.get", id_))
        assert uri == "wamp.error.no_such_session"


async def test_receivers(connector: Connector) -> None:
    received: set[tuple[str, str]] = set()
    topic = "test.board.news"
    async with (
        connector.join(**ANNA) as anna,
        connector.join(**BERT) as bert,
        connector.join(**BERT) as publisher,
    ):
        for name, client in (("anna", anna), ("bert", bert)):

            def note(text: str, name: str = name) -> None:
                received.add((name, text))

            await soon(client.subscribe(note, topic))
        id_ = anna.welcome.result().session
        only_for: dict[str, tuple[str, Any]] = {
            "exclude": ("bert", id_),
            "exclude_authid": ("bert", "anna"),
            "exclude_authrole": ("bert", "admin"),
            "eligible": ("anna", id_),
            "eligible_authid": ("anna", "anna"),
            "eligible_authrole": ("anna", "admin"),
        }
        for option, (_, who) in only_for.items():
            options = PublishOptions(acknowledge=True, **{option: who})
            await soon(publisher.publish(topic, option, options=options))
        for client in (anna, bert):  # each session's next reply comes after its events
            await soon(client.call("test.who_am_i"))
        assert received == {(name, option) for option, (name, _) in only_for.items()}


async def test_retained(connector: Connector) -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()

    def receive(text: str, details: EventDetails) -> None:
        received.put_nowait((text, details.retained))

    async with connector.join() as client, connector.join() as other:
        topic = f"test.board.retained.s{client.welcome.result().session}"
        last = PublishOptions(acknowledge=True, retain=True)
        await soon(other.publish(topic, "old", options=last))
        await soon(other.publish(topic, "passing", options=PublishOptions(acknowledge=True)))
        asked = SubscribeOptions(details=True, get_retained=True)
        await soon(client.subscribe(receive, topic, asked))
        assert await soon(received.get()) == ("old", True)
        assert await soon(client.call("test.add", 1, 2)) == 3
        assert received.empty()


async def test_a_testament(connector: Connector) -> None:
    received: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()

    def note(*args: Any, **kwargs: Any) -> None:
        received.put_nowait((list(args), kwargs))

    async with connector.join(**ANNA) as anna:
        await soon(anna.subscribe(note, "test.presence"))
        async with connector.join(**BERT) as bert:
            id_ = bert.welcome.result().session
            add = "wamp.session.add_testament"
            for args in (["forgotten"], [id_, "is gone"]):
                await soon(bert.call("wamp.session.flush_testaments"))
                result = await soon(bert.call(add, "test.presence", args, {"name": "bert"}))
                assert result is None
        while True:
            args, kwargs = await soon(received.get())
            assert args != ["forgotten"]
            if args[0] == id_:  # other sessions may have come and gone meanwhile
                break
        assert (args, kwargs) == ([id_, "is gone"], {"name": "bert"})
