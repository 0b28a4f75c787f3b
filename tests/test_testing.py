"""The test client: that it fails where it should, and says why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import Application, RPCProgressReport, RPCResult, WAMPError
from serverwamp.testing import (
    CallResult,
    Client,
    ExpectationFailed,
    HandshakeRefused,
    connect,
)


def serving() -> Application:
    app = Application()

    @app.route("echo")
    async def echo(*args: Any, **kwargs: Any) -> Any:
        return RPCResult(args, kwargs)

    @app.route("wait")
    async def wait() -> None:
        await anyio.sleep_forever()

    @app.route("progress")
    async def progress() -> AsyncIterator[Any]:
        yield RPCProgressReport((1,))
        yield RPCResult((2,))

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield

    return app


async def failure(awaitable: Any) -> str:
    with pytest.raises(ExpectationFailed) as failed:
        await awaitable
    return str(failed.value)


async def test_every_wait_fails_with_a_transcript() -> None:
    async with connect(serving(), timeout=0.05) as client:
        await client.subscribe("topic")
        for wait, text in (
            (lambda: client.receive(), "a message"),
            (lambda: client.receive(timeout=0), "waited 0 seconds"),
            (lambda: client.expect_event(timeout=0.01), "waited 0.01 seconds in vain for an event"),
            (lambda: client.call("wait"), "the result of call 2"),
            (lambda: client.expect_close(), "to be closed"),
        ):
            text_of_failure = await failure(wait())
            assert text in text_of_failure
            assert "client: [32, 1, {}, 'topic']" in text_of_failure
            assert "server: [33, 1, 1]" in text_of_failure


async def test_what_was_not_expected_fails() -> None:
    app = serving()
    async with connect(app) as client:
        await client.expect_nothing()
        await client.subscribe("topic")
        await app.publish("topic", ("surprise",))
        assert "surprise" in await failure(client.expect_nothing())


async def test_a_closed_connection_ends_every_wait_at_once() -> None:
    async with connect(serving()) as client:
        await client.send(["nonsense"])
        text = await failure(client.call("echo"))
        assert "the connection was closed" in text
        assert "server: closes the connection (1002)" in text


async def test_payloads_of_every_kind() -> None:
    for subprotocol in ("wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched"):
        async with connect(serving(), subprotocol=subprotocol) as client:
            args = (1, "ü", None, [b"\0\1", {"deep": b""}])
            assert await client.call("echo", args, {"a": b"x"}) == CallResult(args, {"a": b"x"})
            assert await client.call("echo", kwargs={"a": 1}) == CallResult((), {"a": 1})
            assert await client.call("echo") == CallResult()


async def test_progress_is_kept_apart_from_results() -> None:
    async with connect(serving()) as client:
        call = await client.start_call("progress", receive_progress=True)
        assert (await call.result()).args == (2,)
        assert (await call.progress()).args == (1,)


async def test_what_the_application_raises_is_raised() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "wamp.2.json"})
        await receive()
        raise ValueError("broken")

    async def broken_early(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken early")

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async def never_ends(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "wamp.2.json"})
        await anyio.sleep_forever()

    async def reads_on(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "wamp.2.json"})
        while True:
            await receive()

    for app, kind, match in (
        (broken, ValueError, "broken"),
        (broken_early, ValueError, "broken early"),
        (refuses, HandshakeRefused, "refused"),
        (never_ends, ExpectationFailed, "doesn't end"),
        (reads_on, RuntimeError, "after websocket.disconnect"),
    ):
        with pytest.raises(kind, match=match):
            async with connect(app, None, timeout=0.1):
                pass


async def test_what_the_test_raises_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with connect(serving()):
            raise KeyError
    with pytest.raises(WAMPError):
        async with connect(serving()) as client:
            await client.call("nowhere")


async def test_a_client_that_stops_reading_and_goes_on() -> None:
    app = serving()
    async with connect(app) as client:
        await client.subscribe("topic")
        client.pause()
        client.pause()
        for number in range(10):
            await app.publish("topic", (number,))
        await failure(client.expect_event(timeout=0.02))
        client.resume()
        for number in range(10):
            assert (await client.expect_event()).args == (number,)


async def test_sending_after_disconnecting() -> None:
    async with connect(serving()) as client:
        await client.disconnect()
        with pytest.raises(anyio.ClosedResourceError):
            await client.send([48, 1, {}, "echo"])


async def test_nan_is_not_json() -> None:
    client = Client.__new__(Client)
    client._is_text = True
    with pytest.raises(ValueError, match="NaN"):
        client._decode("[36, NaN]")


async def test_publishing_to_an_application_that_takes_it() -> None:
    import json

    async def takes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "wamp.2.json"})
        _, request, *_ = json.loads((await receive())["text"])
        await send({"type": "websocket.send", "text": json.dumps([17, request, 42])})
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(OSError, match="gone"):
            await send({"type": "websocket.send", "text": "too late"})

    async with connect(takes, None) as client:
        assert await client.publish("topic", ("text",), {"a": 1}, acknowledge=True) == 42


async def test_sending_to_a_client_that_has_just_left() -> None:
    left = anyio.Event()

    async def sends(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "wamp.2.json"})
        await left.wait()
        with pytest.raises(OSError, match="gone"):
            await send({"type": "websocket.send", "text": "[36]"})

    async with connect(sends, None) as client:
        await client.disconnect()
        left.set()


async def test_a_client_serves_procedures() -> None:
    app = Application()
    app.client_register("com.", match="prefix")
    async with connect(app) as callee, connect(app) as caller:
        one = await callee.register("com.one")
        two = await callee.register("com.two.", match="prefix")
        assert (one.procedure, two.procedure) == ("com.one", "com.two.")
        first = await caller.start_call("com.one", [1], {"a": 2}, receive_progress=True)
        second = await caller.start_call("com.two.x")
        third = await caller.start_call("com.one")
        invocation = await callee.expect_invocation(two)
        assert invocation.registration == two.id
        assert invocation.details == {"procedure": "com.two.x"}
        await invocation.error("com.example.no", ["why"], {"b": 3})
        with pytest.raises(WAMPError) as error:
            await second.result()
        assert (error.value.uri, error.value.args, error.value.kwargs) == (
            "com.example.no",
            ("why",),
            {"b": 3},
        )
        invocation = await callee.expect_invocation()
        assert (invocation.args, invocation.kwargs) == ((1,), {"a": 2})
        assert invocation.details == {"receive_progress": True}
        await invocation.progress(["half"])
        assert (await first.progress()).args == ("half",)
        await invocation.result((), {"c": 4})
        assert (await first.result()).kwargs == {"c": 4}
        invocation = await callee.expect_invocation(one)
        await third.cancel("kill")
        assert await invocation.expect_interrupt() == "kill"
        await callee.unregister(one)
        with pytest.raises(WAMPError, match="no_such_registration"):
            await callee.unregister(one)
        with pytest.raises(WAMPError, match="procedure_already_exists"):
            await callee.register("com.two.", match="prefix")
