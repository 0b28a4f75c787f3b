"""What clients want to be published when their session is over."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import Application, ConfigurationError, Limits, Session, WAMPError
from serverwamp.testing import Client, Subscription, connect
from tests.helpers import error_uri_of

ADD = "wamp.session.add_testament"
FLUSH = "wamp.session.flush_testaments"


async def accept_ticket(session: Session, ticket: str) -> str:
    session.auth_role = "admin" if ticket == "admin" else "user"
    return ticket


def application(**limits: Any) -> Application:
    app = Application(limits=Limits(**limits))
    app.set_ticket_authenticator(accept_ticket)
    app.set_meta_api(kill="admin")

    @app.topic("open", client_publish=True)
    @app.topic("closed")
    async def topic() -> AsyncIterator[None]:
        yield

    @app.topic("checked")
    async def checked() -> AsyncIterator[None]:
        yield

    @app.publication("checked")
    async def check(number: int, session: Session) -> tuple[Any, ...]:
        if number < 0:
            raise WAMPError("com.example.negative")
        if number == 0:
            raise RuntimeError("this belongs to the test")
        return number, session.auth_id

    return app


def connected(app: Application, name: str = "user") -> Any:
    return connect(app, ticket=name, authid=name)


async def heard(client: Client, subscription: Subscription) -> tuple[tuple[Any, ...], Any]:
    event = await client.expect_event(subscription)
    return event.args, event.kwargs


@pytest.mark.spec("TES-01", "TES-02")
@pytest.mark.parametrize("how", ["leaves", "disconnects", "is killed", "violates the protocol"])
async def test_testaments_are_published_when_the_session_ends(how: str) -> None:
    app = application()
    async with connected(app, "admin") as listener, connected(app) as client:
        assert client.welcome["roles"]["dealer"]["features"]["testament_meta_api"] is True
        subscription = await listener.subscribe("open")
        leaves = await listener.subscribe("wamp.session.on_leave")
        for args, kwargs in (
            (("open",), {}),
            (("open", ["first"], {"a": 1}), {}),
            (("open", ["detached"]), {"scope": "detached"}),
            (("open", [], {"b": 2}), {"scope": "destroyed"}),
            (("open", None, None), {"publish_options": None}),
        ):
            result = await client.call(ADD, args, kwargs)
            assert (result.args, result.kwargs) == ((), {})
        await listener.expect_nothing()
        if how == "leaves":
            await client.leave()
        elif how == "disconnects":
            await client.disconnect()
        elif how == "is killed":
            await listener.call("wamp.session.kill", (client.session,))
        else:
            await client.send([2, 1, {}])
        assert await heard(listener, subscription) == (("detached",), {})
        assert await heard(listener, subscription) == ((), {})
        assert await heard(listener, subscription) == (("first",), {"a": 1})
        assert await heard(listener, subscription) == ((), {"b": 2})
        assert await heard(listener, subscription) == ((), {})
        await listener.expect_event(leaves)
        await listener.expect_nothing()


@pytest.mark.spec("TES-01")
async def test_testaments_are_flushed_by_their_scope() -> None:
    app = application()
    async with connected(app) as listener, connected(app) as client:
        subscription = await listener.subscribe("open")
        for kept, flushed in (("detached", None), ("destroyed", "detached"), ("", "destroyed")):
            for scope in ("detached", "destroyed"):
                await client.call(ADD, ("open", [scope]), {"scope": scope})
            result = await client.call(FLUSH, (), {"scope": flushed} if flushed else {})
            assert (result.args, result.kwargs) == ((), {})
            if not kept:
                await client.call(FLUSH, (), {"scope": "detached"})
            await client.leave()
            if kept:
                assert await heard(listener, subscription) == ((kept,), {})
            await listener.expect_nothing()
            await client.join(ticket="user", authid="user")
        await client.leave()  # the testaments of the sessions before aren't those of this one
        await listener.expect_nothing()


@pytest.mark.spec("TES-02")
async def test_publish_options_of_testaments() -> None:
    app = application()
    async with connected(app) as first, connected(app) as second, connected(app) as client:
        subscriptions = [await each.subscribe("open") for each in (first, second)]
        options = {"exclude": [first.session], "disclose_me": True, "acknowledge": True}
        await client.call(ADD, ("open", [1]), {"publish_options": options})
        await client.call(ADD, ("open", [2]), {"publish_options": {"eligible": [first.session]}})
        session = client.session
        await client.leave()
        event = await second.expect_event(subscriptions[1])
        assert event.args == (1,)
        assert event.details["publisher"] == session
        assert (await first.expect_event(subscriptions[0])).args == (2,)
        await first.expect_nothing()
        await second.expect_nothing()


async def test_the_application_decides_about_testaments(caplog: pytest.LogCaptureFixture) -> None:
    app = application()
    async with connected(app) as listener, connected(app) as client:
        subscription = await listener.subscribe("checked")
        for number in (1, -1, 0, "not a number", 2):
            await client.call(ADD, ("checked", [number]))
        await client.leave()
        assert await heard(listener, subscription) == ((1, "user"), {})
        assert await heard(listener, subscription) == ((2, "user"), {})
        await listener.expect_nothing()
        levels = [(record.levelname, "testament" in record.message) for record in caplog.records]
        assert levels == [("WARNING", True), ("ERROR", True)], "refusals are logged once"


async def test_the_authorizer_is_asked_about_testaments(caplog: pytest.LogCaptureFixture) -> None:
    app = application()
    is_allowed = True

    def authorize(action: str) -> bool:
        return action != "publish" or is_allowed

    app.set_authorizer(authorize)

    async with connected(app) as listener, connected(app) as client:
        subscription = await listener.subscribe("open")
        await client.call(ADD, ("open", [1]))
        await client.leave()
        assert await heard(listener, subscription) == ((1,), {})
        await client.join(ticket="user", authid="user")
        await client.call(ADD, ("open", [2]))
        is_allowed = False
        await client.leave()
        await listener.expect_nothing()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not_authorized" in caplog.text


@pytest.mark.spec("TES-01")
async def test_testaments_that_can_not_be_made() -> None:
    app = application()
    async with connected(app) as listener, connected(app) as client:
        for topic, error in (
            ("closed", "not_authorized"),
            ("unknown", "not_authorized"),
            ("not valid", "invalid_uri"),
            ("wamp.session.on_leave", "invalid_uri"),
        ):
            assert await error_uri_of(client.call(ADD, (topic,))) == f"wamp.error.{error}"
        for args, kwargs in (
            ((), {}),
            (("open", "text"), {}),
            (("open", [], []), {}),
            (("open",), {"scope": "other"}),
            (("open",), {"publish_options": {"exclude": "me"}}),
            (("open",), {"surplus": 1}),
        ):
            assert (
                await error_uri_of(client.call(ADD, args, kwargs)) == "wamp.error.invalid_argument"
            )
        for kwargs in ({"scope": "other"}, {"scope": None}):
            assert (
                await error_uri_of(client.call(FLUSH, (), kwargs)) == "wamp.error.invalid_argument"
            )
        subscription = await listener.subscribe("open")
        await client.leave()
        await listener.expect_nothing()
        await listener.unsubscribe(subscription)


async def test_killing_all_publishes_no_testaments() -> None:
    app = application()
    async with connected(app, "admin") as listener, connected(app) as client:
        await listener.subscribe("open")
        await client.call(ADD, ("open",))
        assert (await listener.call("wamp.session.kill_all")).args == (1,)
        assert (await client.receive())[0] == 6
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        await client.expect_close()
        await listener.expect_nothing()


async def test_no_more_testaments_than_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    app = application(testaments=3)
    async with connected(app) as listener, connected(app) as client:
        subscription = await listener.subscribe("open")
        for number, scope in enumerate(("detached", "destroyed", "detached")):
            await client.call(ADD, ("open", [number]), {"scope": scope})
        for _ in range(2):
            assert await error_uri_of(client.call(ADD, ("open", [3]))) == "wamp.error.unavailable"
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.records[0].message.startswith("Limits.testaments: ")
        assert app.statistics().violations["testaments"] == 2
        await client.call(FLUSH, (), {"scope": "destroyed"})
        await client.call(ADD, ("open", [4]))
        await client.leave()
        received = [(await heard(listener, subscription))[0] for _ in range(3)]
        assert received == [(0,), (2,), (4,)]


async def test_a_testament_that_takes_too_long(caplog: pytest.LogCaptureFixture) -> None:
    app = application(goodbye_timeout=0.05)

    @app.publication("stuck")
    async def stuck() -> None:
        await anyio.sleep_forever()

    async with connected(app) as listener:
        await listener.subscribe("open")
        async with connected(app) as client:
            await client.call(ADD, ("stuck",))
            await client.call(ADD, ("open",))
        await listener.expect_nothing()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "testaments" in caplog.text


# ---- who may make any


@pytest.mark.parametrize("custom", [False, True])
async def test_none_where_clients_can_not_publish(custom: bool) -> None:
    app = Application()
    app.set_meta_api(testaments="anonymous")

    @app.topic("open", client_publish=custom)
    async def topic() -> AsyncIterator[None]:
        yield

    if custom:

        async def listen(topic: str, session: Session) -> AsyncIterator[None]:
            yield

        app.set_subscription_handler(listen)
    async with connect(app) as client:
        assert "testament_meta_api" not in client.welcome["roles"]["dealer"]["features"]
        assert await error_uri_of(client.call(ADD, ("open",))) == "wamp.error.no_such_procedure"


async def test_none_of_anonymous_clients_unless_they_may() -> None:
    for testaments in (None, "anonymous", lambda session: False):
        app = Application()
        app.set_meta_api(testaments=testaments)

        @app.topic("open", client_publish=True)
        async def topic() -> AsyncIterator[None]:
            yield

        async with connect(app) as listener, connect(app) as client:
            subscription = await listener.subscribe("open")
            features = client.welcome["roles"]["dealer"]["features"]
            assert ("testament_meta_api" in features) is (testaments == "anonymous")
            if testaments == "anonymous":
                await client.call(ADD, ("open", [1]))
                await client.call(FLUSH, (), {"scope": "detached"})
                await client.leave()
                assert await heard(listener, subscription) == ((1,), {})
            elif testaments is None:
                assert (
                    await error_uri_of(client.call(ADD, ("open",)))
                    == "wamp.error.no_such_procedure"
                )
            else:
                for procedure, args in ((ADD, ("open",)), (FLUSH, ())):
                    refused = await error_uri_of(client.call(procedure, args))
                    assert refused == "wamp.error.not_authorized"


def test_it_is_said_before_the_application_serves() -> None:
    app = Application()
    app.freeze()
    with pytest.raises(ConfigurationError):
        app.set_meta_api(testaments="anonymous")
