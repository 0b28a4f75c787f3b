"""Every name that users of the published serverwamp 2.0 know works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import serverwamp
from serverwamp import Application, Realm, RPCRouteSet, TopicRouteSet, WAMPError
from serverwamp.testing import connect


@pytest.fixture(params=["application", "realm"])
def configured(request: pytest.FixtureRequest) -> tuple[Application, Realm]:
    """Return an application, and what is configured: it, or a realm of it that clients get."""
    app = Application()
    if request.param == "application":
        return app, app
    realm = Realm("realm1")
    app.add_realm(realm)
    return app, realm


Configured = tuple[Application, Realm]


async def test_add_rpc_routes_and_set_default_arg(configured: Configured) -> None:
    app, realm = configured
    routes = RPCRouteSet()

    @routes.route("exact")
    async def exact(value: Any, made: Any) -> Any:
        return value, made

    @routes.prefix_route("prefix.")
    async def prefix(request: Any) -> Any:
        return request.uri

    @routes.regex_route(r"re\.[a-z]+")
    async def regex(request: Any) -> Any:
        return request.uri

    realm.add_rpc_routes(routes)
    realm.set_default_arg("value", 5)
    realm.set_default_arg("made", factory=lambda: 6)
    async with connect(app) as client:
        assert (await client.call("exact")).args == (5, 6)
        assert (await client.call("prefix.x.y")).args == ("prefix.x.y",)
        assert (await client.call("re.x")).args == ("re.x",)


async def test_add_topic_routes(configured: Configured) -> None:
    app, realm = configured
    topics = TopicRouteSet()
    taken: list[str] = []

    @topics.route("exact")
    async def exact(topic_uri: str) -> AsyncIterator[None]:
        taken.append(topic_uri)
        yield

    topics.prefix_route("prefix.")(exact)
    topics.regex_route(r"re\.[a-z]+")(exact)
    realm.add_topic_routes(topics)
    async with connect(app) as client:
        for topic in ("exact", "prefix.x", "re.x"):
            await client.subscribe(topic)
        assert taken == ["exact", "prefix.x", "re.x"]


async def test_session_handlers(configured: Configured) -> None:
    app, realm = configured
    log: list[str] = []

    async def lifespan(session: Any) -> AsyncIterator[None]:
        log.append("opens")
        yield
        log.append("closes")

    realm.add_session_state_handler(lifespan)
    realm.add_session_state_handler(lifespan, authenticated_only=False)
    realm.add_session_lifespan_handler(lifespan)
    async with connect(app):
        assert log == ["opens"] * 3
    assert log == ["opens"] * 3 + ["closes"] * 3


async def test_set_authentication_handler(configured: Configured) -> None:
    app, realm = configured

    async def handler(session: Any) -> None:
        if session.auth_id == "joe":
            await session.mark_authenticated("identity")
        else:
            await session.abort("com.app.no", "nobody else")

    realm.set_authentication_handler(handler)
    async with connect(app, authid="joe"):
        pass
    with pytest.raises(WAMPError) as refused:
        async with connect(app, authid="jim"):
            pass
    assert refused.value.uri == "com.app.no"


async def test_set_rpc_handler(configured: Configured) -> None:
    app, realm = configured

    async def handler(rpc_request: Any) -> Any:
        return serverwamp.RPCResult(args=rpc_request.args)

    realm.set_rpc_handler(handler)
    async with connect(app) as client:
        assert (await client.call("any.uri", (1, 2))).args == (1, 2)


async def test_set_subscription_handler(configured: Configured) -> None:
    app, realm = configured
    log: list[str] = []

    async def handler(topic_uri: str, session: Any) -> AsyncIterator[None]:
        log.append(topic_uri)
        yield

    realm.set_subscription_handler(handler)
    async with connect(app) as client:
        await client.subscribe("any.topic")
    assert log == ["any.topic"]


async def test_options_of_the_application() -> None:
    app = Application(
        allow_default_realm=False, synchronize_requests=True, camel_snake_conversion=True
    )
    for strict in (app, Application(False)):
        with pytest.raises(WAMPError) as refused:
            async with connect(strict):
                pass
        assert refused.value.uri == "wamp.error.no_such_realm"
    app = Application(synchronize_requests=True, camel_snake_conversion=True)
    running: list[int] = []

    @app.route("procedure")
    async def procedure(the_number: int) -> int:
        running.append(the_number)
        assert len(running) == 1
        await anyio.lowlevel.checkpoint()
        return running.pop()

    async with connect(app) as client:
        calls = [await client.start_call("procedure", (), {"theNumber": n}) for n in range(5)]
        assert [(await call.result()).args for call in calls] == [(n,) for n in range(5)]


def test_call_forms() -> None:
    from serverwamp.application import CRAAuthRequirement

    assert CRAAuthRequirement is serverwamp.CRAAuthRequirement
    assert CRAAuthRequirement(b"secret", "role", "provider").auth_role == "role"
    assert Realm().uri is None
    session: Any = object()
    request = serverwamp.RPCRequest(1, session, "uri", [2], {"a": 3})
    assert (request.id, request.uri, request.args, request.kwargs) == (1, "uri", [2], {"a": 3})
    assert not isinstance(serverwamp.RPCErrorResult(), serverwamp.RPCResult)


async def test_close_sessions() -> None:
    app = Application()
    async with connect(app) as client:
        await client.send([6, {}, "wamp.close.close_realm"])
        assert (await client.receive())[0] == 6
        await app.close_sessions()
        assert await client.expect_close() == 1001
