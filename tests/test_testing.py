"""The test client: that it fails where it should, and says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from serverwamp import Application, RPCProgressReport, RPCResult, Session, WAMPError
from serverwamp.testing import (
    CallResult,
    ExpectationFailed,
    HandshakeRefused,
    connect,
    running,
)


def echoing() -> Application:
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


@pytest.mark.parametrize("subprotocol", ["wamp.2.msgpack", "wamp.2.cbor"])
async def test_binary_formats_send_datetimes(subprotocol: str) -> None:
    app, now = Application(), datetime(2026, 1, 31, 12, tzinfo=timezone.utc)

    @app.route("procedure")
    async def procedure(when: datetime) -> bool:
        return when == now

    async with connect(app, subprotocol=subprotocol) as client:
        assert (await client.call("procedure", [now])).args == (True,)


async def test_what_json_cannot_express_is_named() -> None:
    async with connect(echoing()) as client:
        with pytest.raises(TypeError, match="JSON can't express objects of type Decimal"):
            await client.call("echo", [Decimal(1)])


async def failure(awaitable: Any) -> str:
    with pytest.raises(ExpectationFailed) as failed:
        await awaitable
    return str(failed.value)


async def test_every_wait_fails_with_a_transcript() -> None:
    async with connect(echoing(), timeout=0.05) as client:
        await client.subscribe("topic")
        for wait, text in (
            (lambda: client.receive(), "a message"),
            (lambda: client.receive(timeout=0), "waited 0 seconds"),
            (lambda: client.expect_event(timeout=0.01), "waited 0.01 seconds for an event"),
            (lambda: client.call("wait"), "the result of call 2"),
            (lambda: client.expect_close(), "to be closed"),
        ):
            text_of_failure = await failure(wait())
            assert text in text_of_failure
            assert "client: [32, 1, {}, 'topic']" in text_of_failure
            assert "server: [33, 1, 1]" in text_of_failure


async def test_what_was_not_expected_fails() -> None:
    app = echoing()
    async with connect(app) as client:
        await client.expect_nothing()
        await client.subscribe("topic")
        await app.publish("topic", ("surprise",))
        assert "surprise" in await failure(client.expect_nothing())


async def test_a_closed_connection_ends_every_wait_at_once() -> None:
    async with connect(echoing()) as client:
        await client.send(["nonsense"])
        text = await failure(client.call("echo"))
        assert "the connection was closed" in text
        assert "server: closes the connection (1002)" in text


async def test_payloads_of_every_kind() -> None:
    for subprotocol in ("wamp.2.json", "wamp.2.msgpack", "wamp.2.json.batched"):
        async with connect(echoing(), subprotocol=subprotocol) as client:
            args = (1, "ü", None, [b"\0\1", {"deep": b""}])
            assert await client.call("echo", args, {"a": b"x"}) == CallResult(args, {"a": b"x"})
            assert await client.call("echo", kwargs={"a": 1}) == CallResult((), {"a": 1})
            assert await client.call("echo") == CallResult()


async def test_progress_is_kept_apart_from_results() -> None:
    async with connect(echoing()) as client:
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
        (never_ends, ExpectationFailed, "didn't end"),
        (reads_on, RuntimeError, "after websocket.disconnect"),
    ):
        with pytest.raises(kind, match=match):
            async with connect(app, None, timeout=0.1):
                pass


async def test_what_the_test_raises_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with connect(echoing()):
            raise KeyError
    with pytest.raises(WAMPError):
        async with connect(echoing()) as client:
            await client.call("nowhere")


async def test_a_client_that_stops_reading_and_goes_on() -> None:
    app = echoing()
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
    async with connect(echoing()) as client:
        await client.disconnect()
        with pytest.raises(anyio.ClosedResourceError):
            await client.send([48, 1, {}, "echo"])


async def test_raw_requests_use_up_their_ids() -> None:
    async with connect(echoing()) as client:
        await client.send([48, 1, {}, "echo", [1]])
        await client.send([48, 3, {}, "echo"])  # not the next one
        assert (await client.receive())[:2] == [50, 1]
        assert client.next_request() == 2


async def test_taking_all_messages() -> None:
    async with connect(echoing()) as client:
        await client.send([48, 1, {}, "echo", [1]], [48, 2, {}, "nothing"], [48, 3, {}, "echo"])
        await client.expect(lambda m: m[0] == 8)
        await client.expect(lambda m: m[1] == 3)
        assert client.take_all() == [[50, 1, {}, [1]]]
        assert client.take_all() == []


async def test_nan_is_not_json() -> None:
    async with connect(echoing()) as client:
        with pytest.raises(ValueError, match="NaN"):
            client.feed({"type": "websocket.send", "text": "[36, NaN]"})


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


# ---- the lifespan of a site


def site_of(app: Application, told: list[str]) -> Starlette:
    @asynccontextmanager
    async def lifespan(site: Starlette) -> AsyncIterator[dict[str, Any]]:
        told.append("starts")
        async with anyio.create_task_group() as tasks, app.graceful_shutdown():
            tasks.start_soon(anyio.sleep_forever)
            site.state.database = "connected"
            yield {"greeting": "hello"}
            tasks.cancel_scope.cancel()
        told.append("stops")

    site = Starlette(routes=[Mount("/ws", app)], lifespan=lifespan)

    @app.route("database")
    async def database(session: Session) -> Any:
        return [site.state.database, session.connection.transport_info["http_path"]]

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield
        told.append("unsubscribed")

    return site


async def test_a_client_of_a_site_that_is_started() -> None:
    told: list[str] = []
    site = site_of(Application(), told)
    async with connect(site, path="/ws/", lifespan=True) as client:
        assert told == ["starts"]
        assert (await client.call("database")).args[0] == "connected"
        await client.subscribe("topic")
    assert told == ["starts", "unsubscribed", "stops"]


async def test_several_clients_of_a_site_that_is_started() -> None:
    told: list[str] = []
    async with (
        running(site_of(Application(), told)) as site,
        connect(site, path="/ws/") as first,
        connect(site, path="/ws/") as second,
    ):
        for client in (first, second):
            assert (await client.call("database")).args[0] == "connected"
    assert told == ["starts", "stops"]


async def test_connections_share_the_state_of_the_lifespan() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        if scope["type"] == "lifespan":
            assert event == {"type": "lifespan.startup"}
            scope["state"]["list"] = seen
            await send({"type": "lifespan.startup.complete"})
            assert await receive() == {"type": "lifespan.shutdown"}
            await send({"type": "lifespan.shutdown.complete"})
            seen.append("ended")
            return
        assert event == {"type": "websocket.connect"}
        scope["state"]["list"].append(sorted(scope["state"]))
        scope["state"]["own"] = True
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with running(app) as started:
        for _ in range(2):
            async with connect(started, None):
                pass
    assert seen == [["list"], ["list"], "ended"]


async def test_the_lifespan_of_an_application_itself() -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        told.append("starts")
        yield
        told.append("stops")

    async with connect(Application(lifespan=lifespan), lifespan=True):
        assert told == ["starts"]
    assert told == ["starts", "stops"]


async def test_what_goes_wrong_in_a_lifespan() -> None:
    def failing(at: str) -> Any:
        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            if at == "startup":
                raise ValueError("at startup")
            yield
            if at == "shutdown":
                raise ValueError("at shutdown")

        return lifespan

    for phase in ("startup", "shutdown"):
        with pytest.raises(ValueError, match=f"at {phase}"):
            async with connect(
                Starlette(routes=[Mount("/", Application())], lifespan=failing(phase)),
                lifespan=True,
            ):
                assert phase == "shutdown"
        with pytest.raises(ExpectationFailed, match=f"its {phase}: at {phase}"):
            async with connect(Application(lifespan=failing(phase)), lifespan=True):
                assert phase == "shutdown"

    told: list[str] = []
    with pytest.raises(KeyError, match="in the block"):
        async with connect(site_of(Application(), told), path="/ws/", lifespan=True):
            raise KeyError("in the block")
    assert told == ["starts", "stops"]

    app = Application(allow_default_realm=False)
    with pytest.raises(WAMPError, match="no_such_realm"):
        async with connect(site_of(app, told), "com.realm", path="/ws/", lifespan=True):
            pass
    assert told == ["starts", "stops"] * 2


async def test_an_application_that_does_not_take_part_in_a_lifespan() -> None:
    async def says_nothing(scope: Any, receive: Any, send: Any) -> None: ...

    async def never_answers(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    async def refuses(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    async def never_stops(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep_forever()

    for app, error, phase in (
        (says_nothing, ExpectationFailed, "startup"),
        (never_answers, ExpectationFailed, "startup"),
        (refuses, NotImplementedError, None),
        (never_stops, ExpectationFailed, "shutdown"),
    ):
        with pytest.raises(error, match=phase):
            async with running(app, timeout=0.05):
                assert app is never_stops  # the others fail before


# ---- fixtures

FIXTURES = """
import contextlib, sys

import anyio, pytest
from serverwamp import Application, WAMPError
from serverwamp.testing import connect, running
from starlette.applications import Starlette
from starlette.routing import Mount

{imports}

told = []


def make_app():
    app = Application()

    @app.route("echo")
    async def echo(value):
        return value

    @app.topic("topic")
    async def topic():
        yield
        told.append("unsubscribed")

    return app


@{fixture}
async def client():
    async with connect(make_app()) as client:
        yield client
    told.append("disconnected")


@{fixture}
async def other(client):
    async with connect(make_app(), subprotocol="wamp.2.msgpack") as other:
        yield other


@{fixture}
async def of_site():
    app = make_app()

    @contextlib.asynccontextmanager
    async def lifespan(site):
        async with anyio.create_task_group() as tasks, app.graceful_shutdown():
            tasks.start_soon(anyio.sleep_forever)
            yield
            tasks.cancel_scope.cancel()
        told.append("stopped")

    site = Starlette(routes=[Mount("/ws", app)], lifespan=lifespan)
    async with connect(site, path="/ws/", lifespan=True) as client:
        yield client


@{fixture}
async def clients():
    async with running(make_app()) as app, connect(app) as one, connect(app) as two:
        yield one, two


@{mark}
async def test_one(client):
    await client.subscribe("topic")
    assert (await client.call("echo", [1])).args == (1,)


@{mark}
async def test_two(other, client):
    assert told[:2] == ["unsubscribed", "disconnected"]
    assert (await client.call("echo", [1])).args == (1,)
    assert (await other.call("echo", [2])).args == (2,)


@{mark}
async def test_site(of_site):
    assert (await of_site.call("echo", [1])).args == (1,)
    with anyio.fail_after(5):
        assert (await of_site.call("echo", [2])).args == (2,)


@{mark}
async def test_clients(clients):
    assert told[-1] == "stopped"
    for client in clients:
        assert (await client.call("echo", [1])).args == (1,)


@{fixture}
async def refused():
    app = Application(allow_default_realm=False)
    with pytest.raises(WAMPError, match="no_such_realm"):
        async with connect(app):
            raise AssertionError
    yield


@{mark}
async def test_refused(refused, client):
    await client.disconnect()


@{mark}
async def test_that_fails(client):
    raise ZeroDivisionError
"""
ASYNCIO = ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
PLUGINS = {
    "pytest-asyncio, strict": {
        "imports": "import pytest_asyncio",
        "fixture": "pytest_asyncio.fixture",
        "mark": "pytest.mark.asyncio",
        "options": ASYNCIO,
        "outcome": "1 failed, 5 passed",
    },
    "pytest-asyncio, auto": {
        "imports": "",
        "fixture": "pytest.fixture",
        "mark": "pytest.mark.filterwarnings('error')",
        "options": [*ASYNCIO, "--asyncio-mode=auto"],
        "outcome": "1 failed, 5 passed",
    },
    "anyio": {
        "imports": "",
        "fixture": "pytest.fixture",
        "mark": "pytest.mark.anyio",
        "options": ["-p", "anyio"],
        "outcome": "2 failed, 10 passed",  # on two backends
    },
}


@pytest.mark.parametrize("plugin", PLUGINS.values(), ids=PLUGINS)
def test_fixtures(plugin: dict[str, Any], tmp_path: Path) -> None:
    """Those of pytest-asyncio begin and end in different tasks."""
    backend = "@pytest.fixture(params=['asyncio', 'trio'])\ndef anyio_backend(request):\n"
    (tmp_path / "conftest.py").write_text(f"import pytest\n\n\n{backend}    return request.param\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_fixtures.py").write_text(FIXTURES.format(**plugin))
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin["options"]],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert plugin["outcome"] in outcome.stdout, outcome.stdout + outcome.stderr
    assert "ZeroDivisionError" in outcome.stdout
