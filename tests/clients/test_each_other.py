"""Clients in different languages that call one another: what ``javascript/peer.js`` serves."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.types import CallOptions, RegisterOptions

from .test_autobahn_python import Callee, Connector, fails, forms, soon

PEER = Path(__file__).parent / "javascript" / "peer.js"
PEERS = ("autobahn_js_json", "autobahn_js_msgpack", "wampy_js_json", "wampy_js_msgpack")
STOP_TIMEOUT = 10.0

pytestmark = pytest.mark.node


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def peers(node: str, server: str) -> Iterator[None]:
    """Both clients in JavaScript are there, with either serialization, in one process."""
    with subprocess.Popen(
        [node, str(PEER), server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            started = process.stdout.readline()
            if started == "ready\n":
                yield
            output, _ = process.communicate(timeout=STOP_TIMEOUT)  # which ends its input
        finally:
            process.kill()
    assert (started, process.returncode) == ("ready\n", 0), started + output


def reports_progress(name: str) -> bool:
    """Tell whether a client in JavaScript can be asked for progress; wampy.js can't."""
    return name.startswith("autobahn_js")


@pytest.fixture(params=["json", "msgpack"])
def connector(request: pytest.FixtureRequest, server: str, peers: None) -> Connector:
    return Connector(server, request.param)


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> str:
    """What the procedures of a client in JavaScript begin with."""
    return f"test.peer.{request.param}"


# ---- called from Python


async def test_python_calls(connector: Connector, peer: str) -> None:
    async with connector.join() as client:
        form = {"args": [1, "two", None], "kwargs": {"b": [{"c": 3.5}]}}
        told = {"procedure": f"{peer}.echo", "caller": None, "asked": False}
        call = client.call(f"{peer}.echo", *form["args"], **form["kwargs"])
        assert forms(await soon(call)) == ([form], told)
        name = peer.removeprefix("test.peer.")
        reports: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        options = CallOptions(on_progress=lambda *args, **kwargs: reports.append((args, kwargs)))
        empty = {"args": [], "kwargs": {}}
        called = forms(await soon(client.call(f"{peer}.echo", options=options)))
        assert called == ([empty], {**told, "asked": reports_progress(name)})
        assert reports == ([(("begun",), {"by": name})] if reports_progress(name) else [])
        failure = ("test.error.peer", ["told", name], {"reason": "because"})
        assert await fails(client.call(f"{peer}.fail")) == failure
        assert (await fails(client.call(f"{peer}.nothing")))[0] == "wamp.error.no_such_procedure"


async def test_python_gives_up(connector: Connector, peer: str) -> None:
    """The late answers harm nobody."""
    async with connector.join() as client:
        late = client.call(f"{peer}.wait", options=CallOptions(timeout=50))
        assert (await fails(late))[0] == "wamp.error.timeout"
        client.call(f"{peer}.wait").cancel()
        assert await soon(client.call("test.add", 1, 2)) == 3
        assert await soon(client.call(f"{peer}.release")) == 2
        assert forms(await soon(client.call(f"{peer}.echo", 1)))[0] == [{"args": [1], "kwargs": {}}]


async def test_the_application_calls(connector: Connector, peer: str) -> None:
    async with connector.join() as client:
        form = {"args": [1], "kwargs": {"b": 2}}
        told = {"procedure": f"{peer}.echo", "caller": None, "asked": False}
        payload = (form["args"], form["kwargs"])
        anyone = client.call("test.call_anyone", f"{peer}.echo", *payload)
        assert forms(await soon(anyone)) == ([form], told)
        own = client.call(f"{peer}.call", "test.call_me", [f"{peer}.echo", *payload], {})
        told["asked"] = reports_progress(peer.removeprefix("test.peer."))  # by iterating
        assert forms(await soon(own)) == ([], {"args": [form], "kwargs": told, "reports": []})
        mine = client.call("test.call_me", f"{peer}.echo", *payload)
        assert (await fails(mine))[0] == "wamp.error.no_such_procedure"


# ---- calling what is served in Python, and one another


async def test_javascript_calls(connector: Connector, peer: str) -> None:
    async with connector.join() as client:
        callee = Callee("test.peer.python")
        await callee.serve(client)

        async def call(name: str, *args: Any, b: Any = None, **how: Any) -> dict[str, Any]:
            """Have it called in JavaScript: the outcome of that."""
            kwargs = {} if b is None else {"b": b}
            uri = f"test.peer.python.{name}"
            _, outcome = forms(await soon(client.call(f"{peer}.call", uri, args, kwargs, **how)))
            return outcome

        outcome = await call("echo", 1, "two", b=[{"c": 3.5}])
        assert outcome["args"] == [{"args": [1, "two"], "kwargs": {"b": [{"c": 3.5}]}}]
        assert outcome["kwargs"] == {"procedure": "test.peer.python.echo", "caller": None}
        assert (await call("echo", discloseMe=True))["kwargs"]["caller"] is not None

        assert (await call("count", 5))["args"] == ["not asked"]
        outcome = await call("count", 5, progress=True)
        assert outcome["args"] == ["asked"]
        assert outcome["reports"] == [[[number], {"of": 5}] for number in range(1, 5)]

        outcome = await call("fail")
        assert (outcome["error"], outcome["args"], outcome["kwargs"]) == (
            "test.error.peer",
            ["told", "test.peer.python"],
            {"reason": "because"},
        )
        assert (await call("nothing"))["error"] == "wamp.error.no_such_procedure"

        outcome = await call("wait", timeout=50)
        assert outcome["error"] == "wamp.error.timeout"
        await soon(callee.interrupted.wait())
        callee.interrupted.clear()
        outcome = await call("wait", cancel=True)
        assert outcome["error"] == "wamp.error.canceled"
        await soon(callee.interrupted.wait())


async def test_javascript_calls_javascript(server: str, peers: None, peer: str) -> None:
    form = {"args": [1, "two"], "kwargs": {"b": 3.5}}
    async with Connector(server, "json").join() as client:

        async def call(uri: str, *args: Any, **how: Any) -> dict[str, Any]:
            _, outcome = forms(await soon(client.call(f"{peer}.call", uri, *args, **how)))
            return outcome

        for callee in PEERS:
            uri = f"test.peer.{callee}"
            outcome = await call(f"{uri}.echo", form["args"], form["kwargs"], progress=True)
            asked = reports_progress(callee)
            told = {"procedure": f"{uri}.echo", "caller": None, "asked": asked}
            reports = [[["begun"], {"by": callee}]] if asked else []
            assert outcome == {"args": [form], "kwargs": told, "reports": reports}
            outcome = await call(f"{uri}.fail")
            assert outcome["error"] == "test.error.peer"
            assert outcome["args"] == ["told", callee]
            assert outcome["kwargs"] == {"reason": "because"}
            assert (await call(f"{uri}.wait", timeout=50))["error"] == "wamp.error.timeout"
            assert await soon(client.call(f"{uri}.release")) == 1


# ---- registrations


async def test_sharing_work(connector: Connector) -> None:
    uri = "test.peer.work"
    turns = {"roundrobin": (*PEERS, "python"), "first": PEERS[:1] * 2, "last": ("python",) * 2}
    async with connector.join() as client:
        for invoke, turn in turns.items():
            shared = {"invoke": invoke}
            for name in PEERS:
                assert await soon(client.call(f"test.peer.{name}.join", uri, shared)) is True
            otherwise = client.register(lambda: None, uri, RegisterOptions(invoke="random"))
            assert (await fails(otherwise))[0] == "wamp.error.procedure_already_exists"
            registration = await soon(
                client.register(lambda: "python", uri, RegisterOptions(invoke=invoke))
            )
            for name in turn + turn:
                assert forms(await soon(client.call(uri)))[0][0] == name
            for name in PEERS:
                assert await soon(client.call(f"test.peer.{name}.part", uri)) is True
            assert await soon(client.call(uri)) == "python"
            await soon(registration.unregister())
            assert (await fails(client.call(uri)))[0] == "wamp.error.no_such_procedure"


async def test_patterns_and_refusals(connector: Connector, peer: str) -> None:
    name = peer.removeprefix("test.peer.")
    # Wampy.js can't unregister a wildcard: this one stays.
    own = f"{name}_{connector.serializer}"
    patterns = {"prefix": f"test.peer.any.{own}", "wildcard": f"test.peer..{own}"}
    async with connector.join() as client:
        for match, pattern in patterns.items():
            assert await soon(client.call(f"{peer}.join", pattern, {"match": match})) is True
        for procedure in (f"test.peer.any.{own}.thing", f"test.peer.kind.{own}"):
            assert forms(await soon(client.call(procedure))) == ([name, procedure], {})
        exact = f"test.peer.any.{own}.exact"
        await soon(client.register(lambda: "python", exact))
        assert await soon(client.call(exact)) == "python"
        for taken in (exact, "test.add"):
            refused = await fails(client.call(f"{peer}.join", taken))
            assert refused[0] == "wamp.error.procedure_already_exists"
        assert await soon(client.call(f"{peer}.part", patterns["prefix"])) is True
        gone = await fails(client.call(f"test.peer.any.{own}.thing"))
        assert gone[0] == "wamp.error.no_such_procedure"
