"""Handlers of every kind that raise, hang or block: the client is told, nobody else notices."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from serverwamp import (
    Application,
    CRAAuthRequirement,
    Limits,
    RPCProgressReport,
    Session,
    WAMPError,
)
from serverwamp.testing import Client, connect
from tests.helpers import broker_of, connections_of, raising

FAILED = "wamp.error.runtime_error"
REFUSED = "wamp.error.authentication_failed"


class Strange(BaseException):
    pass


async def cancelled_elsewhere() -> None:
    """Raise what comes out of awaiting something that was cancelled; on trio nothing does."""
    if trio.lowlevel.in_trio_run():
        raise Strange
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


FAULTS = {
    "exception": raising(ValueError("secret")),
    "base exception": raising(Strange("secret")),
    "group": raising(ExceptionGroup("several", [ValueError("secret")])),
    "base group": raising(BaseExceptionGroup("several", [Strange("secret")])),
    "generator exit": raising(GeneratorExit()),
    "stop": raising(StopAsyncIteration("secret")),
    "cancelled elsewhere": cancelled_elsewhere,
}
Fault = Callable[[], Awaitable[None]]
Provoke = Callable[[Client], Awaitable[None]]


# ---- where it happens: each adds a handler that fails, and returns what makes it do so


async def fails(awaitable: Awaitable[Any], uri: str = FAILED) -> None:
    with pytest.raises(WAMPError) as failure:
        await awaitable
    assert failure.value.uri == uri
    assert "secret" not in str(failure.value)


def procedure(app: Application, fault: Fault) -> Provoke:
    app.route("failing")(fault)
    return lambda client: fails(client.call("failing"))


def generator(app: Application, fault: Fault) -> Provoke:
    @app.route("failing")
    async def failing() -> AsyncIterator[Any]:
        yield RPCProgressReport([1])
        await fault()

    async def provoke(client: Client) -> None:
        call = await client.start_call("failing", receive_progress=True)
        assert (await call.progress()).args == (1,)
        await fails(call.result())

    return provoke


def rpc_handler(app: Application, fault: Fault) -> Provoke:
    async def handler(request: Any) -> Any:
        if request.uri == "failing":
            await fault()

    app.set_rpc_handler(handler)
    return lambda client: fails(client.call("failing"))


def error_handler(app: Application, fault: Fault) -> Provoke:
    async def handle(error: Exception) -> str:
        await fault()
        return "a.b"

    @app.route("failing")
    async def failing() -> None:
        raise KeyError

    app.add_error_handler(KeyError, handle)
    return lambda client: fails(client.call("failing"))


def opening_factory(app: Application, fault: Fault) -> Provoke:
    async def factory() -> AsyncIterator[int]:
        await fault()
        yield 1

    app.add_default_arg("value", factory=factory)
    app.route("failing")(lambda value: value)
    return lambda client: fails(client.call("failing"))


def closing_factory(app: Application, fault: Fault) -> Provoke:
    async def factory() -> AsyncIterator[int]:
        yield 1
        await fault()

    app.add_default_arg("value", factory=factory)
    app.route("failing")(lambda value: value)
    return lambda client: fails(client.call("failing"))


def opening_topic(app: Application, fault: Fault) -> Provoke:
    @app.topic("failing")
    async def failing() -> AsyncIterator[None]:
        await fault()
        yield

    return lambda client: fails(client.subscribe("failing"))


def closing_topic(app: Application, fault: Fault) -> Provoke:
    @app.topic("failing")
    async def failing() -> AsyncIterator[None]:
        yield
        await fault()

    async def provoke(client: Client) -> None:
        await client.unsubscribe(await client.subscribe("failing"))

    return provoke


def topic_of_a_session_that_ends(app: Application, fault: Fault) -> Provoke:
    closing_topic(app, fault)

    async def provoke(client: Client) -> None:
        await client.subscribe("failing")
        await client.leave()
        await client.join()

    return provoke


def subscription_handler(app: Application, fault: Fault) -> Provoke:
    async def handler(topic: str, session: Session) -> AsyncIterator[None]:
        await fault()
        yield

    app.set_subscription_handler(handler)
    return lambda client: fails(client.subscribe("failing"))


IN_A_SESSION = [
    procedure,
    generator,
    rpc_handler,
    error_handler,
    opening_factory,
    closing_factory,
    opening_topic,
    closing_topic,
    topic_of_a_session_that_ends,
    subscription_handler,
]


def only_for(client: str, fault: Fault, session: Session) -> Awaitable[None]:
    return fault() if session.auth_id == client else anyio.lowlevel.checkpoint()


def transport(app: Application, fault: Fault) -> dict[str, Any]:
    async def authenticator(session: Session) -> str:
        await only_for("victim", fault, session)
        return "identity"

    app.add_transport_authenticator(authenticator)
    return {"uri": REFUSED}


def ticket(app: Application, fault: Fault) -> dict[str, Any]:
    async def authenticator(session: Session, ticket: str) -> str:
        await only_for("victim", fault, session)
        return "identity"

    app.set_ticket_authenticator(authenticator)
    return {"uri": REFUSED, "ticket": "ticket"}


def requirement(app: Application, fault: Fault) -> dict[str, Any]:
    async def provide(session: Session) -> CRAAuthRequirement:
        await only_for("victim", fault, session)
        return CRAAuthRequirement("key")

    app.set_cra_handlers(provide, lambda session: "identity")
    return {"uri": REFUSED, "secret": "key"}


def identity(app: Application, fault: Fault) -> dict[str, Any]:
    async def provide(session: Session) -> str:
        await only_for("victim", fault, session)
        return "identity"

    app.set_cra_handlers(lambda session: CRAAuthRequirement("key"), provide)
    return {"uri": REFUSED, "secret": "key"}


def custom(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> str:
        await only_for("victim", fault, session)
        return "identity"

    app.set_authentication_handler(handler)
    return {"uri": REFUSED}


def opening_lifespan(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> AsyncIterator[None]:
        await only_for("victim", fault, session)
        yield

    app.add_session_lifespan_handler(handler, authenticated_only=False)
    return {"uri": FAILED}


def closing_lifespan(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> AsyncIterator[None]:
        is_victim = session.auth_id == "victim"
        yield
        if is_victim:
            await fault()

    app.add_session_lifespan_handler(handler, authenticated_only=False)
    return {"uri": None}


AROUND_A_SESSION = [
    transport,
    ticket,
    requirement,
    identity,
    custom,
    opening_lifespan,
    closing_lifespan,
]


# ---- what comes of it


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def check_released(app: Application, *clients: Client) -> None:
    assert sorted(app.sessions) == sorted(client.session or 0 for client in clients)
    assert len(connections_of(app)) == len(clients)
    assert not list(broker_of(app))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("place", IN_A_SESSION)
async def test_a_handler_that_raises(
    place: Callable[[Application, Fault], Provoke], fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    provoke = place(app, fault)
    if place is not rpc_handler:
        app.route("nothing")(anyio.lowlevel.checkpoint)
    async with connect(app) as other, connect(app) as client:
        await provoke(client)
        for each in (client, other):
            await each.call("nothing")
        check_released(app, client, other)
    check_released(app)
    # Where the handler of an error fails, that error is still to be told of, too.
    assert len(failures(caplog)) == (2 if place is error_handler else 1)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("place", AROUND_A_SESSION)
async def test_a_handler_around_a_session_that_raises(
    place: Callable[[Application, Fault], dict[str, Any]],
    fault: Fault,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application()
    app.route("nothing")(anyio.lowlevel.checkpoint)
    login = place(app, fault)
    uri = login.pop("uri")
    async with connect(app, authid="other", **login) as other:
        async with connect(app, None) as client:
            if uri is not None:
                await fails(client.join(authid="victim", **login), uri)
                assert await client.expect_close() == 1000
            else:
                await client.join(authid="victim", **login)
                await client.leave()
                await client.join(authid="other", **login)
        await other.call("nothing")
        check_released(app, other)
    check_released(app)
    assert len(failures(caplog)) == 1


# ---- handlers that don't end when they should


async def test_a_handler_that_ignores_its_cancellation_for_a_while() -> None:
    started, proceed = anyio.Event(), anyio.Event()
    ended: list[str] = []

    async def stubborn(name: str) -> str:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await proceed.wait()
            ended.append(name)
        return "too late"

    app = Application()
    app.route("stubborn")(stubborn)
    app.route("nothing")(anyio.lowlevel.checkpoint)
    async with connect(app) as other, connect(app) as client:
        for mode in ("killnowait", "skip"):
            call = await client.start_call("stubborn", [mode])
            await started.wait()
            await call.cancel(mode)
            with pytest.raises(WAMPError, match="canceled"):
                await call.result()
        killed = await client.start_call("stubborn", ["kill"])
        await killed.cancel("kill")
        await client.call("nothing")
        await client.send([6, {}, "wamp.close.close_realm"])
        assert (await client.receive())[0] == 6
        await other.call("nothing")
        assert list(app.sessions) == [other.session]
        assert not ended
        proceed.set()
        await client.join()  # when all of the session before has ended
        assert sorted(ended) == ["kill", "killnowait", "skip"]
        await client.call("nothing")
        await client.expect_nothing()


async def test_a_handler_that_blocks_its_thread() -> None:
    started, proceed = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        proceed.wait(20)

    app = Application()
    app.route("block")(block)
    app.route("nothing")(anyio.lowlevel.checkpoint)
    app.route("thread")(lambda: "another one")
    try:
        async with connect(app) as other:
            async with connect(app) as client:
                call = await client.start_call("block", options={"timeout": 50})
                await anyio.to_thread.run_sync(started.wait, 5)
                with pytest.raises(WAMPError, match="timeout"):
                    await call.result()
                await client.start_call("block")
                await client.call("nothing")
            check_released(app, other)  # nobody waits for the threads
            assert (await other.call("thread")).args == ("another one",)
    finally:
        proceed.set()


async def test_threads_are_counted_until_they_end() -> None:
    """Or else a client could have any number of them, by cancelling its calls."""
    begun: list[int] = []
    proceed = threading.Event()

    def block(number: int) -> None:
        begun.append(number)
        proceed.wait(20)

    app = Application()
    app.route("block")(block)
    app.route("thread")(lambda: "another one")
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 3
    try:
        async with connect(app) as client:
            for number in range(1, 6):
                call = await client.start_call("block", [number])
                await client.expect_nothing()
                with anyio.fail_after(5):
                    while len(begun) < min(number, 3):
                        await anyio.lowlevel.checkpoint()
                await call.cancel("killnowait")
                with pytest.raises(WAMPError, match="canceled"):
                    await call.result()
            waiting = await client.start_call("thread")
            await client.expect_nothing()
            assert begun == [1, 2, 3]
            assert limiter.borrowed_tokens == 3
            proceed.set()
            assert (await waiting.result()).args == ("another one",)
            with anyio.fail_after(5):
                while limiter.borrowed_tokens:
                    await anyio.lowlevel.checkpoint()
    finally:
        proceed.set()


async def test_a_handler_that_blocks_the_event_loop() -> None:
    """All wait for it, as long as it takes; nothing else comes of it."""
    app = Application(limits=Limits(hello_timeout=0.01, goodbye_timeout=0.01))

    @app.route("block")
    async def block() -> None:
        threading.Event().wait(0.1)

    app.route("nothing")(anyio.lowlevel.checkpoint)
    async with connect(app) as other, connect(app) as client:
        waiting = await other.start_call("nothing")
        await client.call("block")
        await waiting.result()
        check_released(app, client, other)


# ---- what ends the whole program


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", [procedure, opening_topic])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_ends_the_program(
    backend: str, place: Callable[[Application, Fault], Provoke], error: type[BaseException]
) -> None:
    """These are no failure of a handler: they are not answered, and not held back."""
    app = Application()
    place(app, raising(error()))

    async def main() -> None:
        async with connect(app) as client:
            kind = [48, 1, {}] if place is procedure else [32, 1, {}]
            await client.send([*kind, "failing"])
            await client.expect_close()

    def found(raised: BaseException) -> bool:
        if isinstance(raised, BaseExceptionGroup):
            return any(found(each) for each in raised.exceptions)
        return isinstance(raised, error)

    with pytest.raises((error, BaseExceptionGroup), check=found):
        anyio.run(main, backend=backend)
