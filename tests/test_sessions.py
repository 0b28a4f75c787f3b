"""Sessions and realms: joining, leaving, lifespans, shutdown; through the public API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from serverwamp import Application, ConfigurationError, Limits, Realm, Session, WAMPError
from serverwamp.protocol.ids import MAX_ID
from serverwamp.testing import ExpectationFailed, connect
from tests.helpers import connections_of, happened

HELLO = [1, "realm1", {"roles": {"caller": {}}}]


def remembering(app: Application) -> list[Session]:
    """Let `app` remember the sessions that call a procedure."""
    sessions: list[Session] = []

    @app.route("remember")
    async def remember(session: Session) -> None:
        sessions.append(session)

    return sessions


# ---- joining and leaving


@pytest.mark.spec("SES-02", "SES-07", "SES-08", "FEA-01", "FEA-02", "FEA-03", "FEA-04", "IDS-02")
async def test_welcome() -> None:
    async with connect(Application(), None) as client:
        await client.send(HELLO)
        kind, session, details = await client.receive()
        assert kind == 2
        assert 1 <= session <= MAX_ID
        assert details["roles"] == {
            "broker": {
                "features": {
                    "event_retention": True,
                    "pattern_based_subscription": True,
                    "publisher_exclusion": True,
                    "publisher_identification": True,
                    "subscriber_blackwhite_listing": True,
                }
            },
            "dealer": {
                "features": {
                    "progressive_call_results": True,
                    "progressive_call_invocations": True,
                    "call_canceling": True,
                    "call_timeout": True,
                }
            },
        }
        await client.expect_nothing()


@pytest.mark.spec("ABT-06", "ABT-07", "ABT-11", "WS-09", "SES-01", "ERR-goodbye_and_out")
async def test_sessions_one_after_the_other() -> None:
    app = Application()
    sessions = remembering(app)
    async with connect(app) as client:
        first = client.session
        await client.call("remember")
        sessions[0]["key"] = "value"
        for reason in ("wamp.close.normal", "com.app.own_reason"):
            assert await client.leave(reason) == "wamp.close.goodbye_and_out"
            await client.join()
        assert client.session != first
        await client.call("remember")
        assert "key" not in sessions[1]
        assert sessions[0] != sessions[1]
        assert not sessions[0].is_open
        assert sessions[1].is_open
        await client.expect_nothing()


async def test_another_realm_for_the_next_session() -> None:
    app = Application(allow_default_realm=False)
    for uri in ("one", "two"):
        realm = Realm(uri)

        @realm.route("which")
        async def which(session: Session, uri: str = uri) -> list[str]:
            return [uri, session.realm]

        app.add_realm(realm)
    async with connect(app, "one") as client:
        assert (await client.call("which")).args == ("one", "one")
        await client.leave()
        await client.join("two")
        assert (await client.call("which")).args == ("two", "two")


async def test_the_application_knows_its_open_sessions() -> None:
    app = Application()
    members = Realm("members")
    members.set_ticket_authenticator(lambda session, ticket: ticket == "engine")
    app.add_realm(members)
    handled = remembering(app)
    async with connect(app) as client, connect(app, "members", ticket="engine") as member:
        assert {id_: session.realm for id_, session in app.sessions.items()} == {
            client.session: "realm1",
            member.session: "members",
        }
        await client.call("remember")
        assert app.sessions[client.session] == handled[0]
        with pytest.raises(WAMPError):
            async with connect(app, "members", ticket="loom"):
                pass
        assert len(app.sessions) == app.statistics().sessions == 2
        await client.leave()
        await client.join()
        assert set(app.sessions) == {client.session, member.session}
        view: Any = app.sessions
        with pytest.raises(TypeError):
            view[1] = handled[0]
    assert not app.sessions
    assert len(view) == 0  # it is a view


async def test_the_next_session_has_a_deadline_too() -> None:
    async with connect(Application(limits=Limits(hello_timeout=0.05)), None) as client:
        await client.join()
        await client.leave()
        assert await client.expect_close() == 1002


# ---- realms


async def test_unreachable_routes_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(allow_default_realm=False)
    app.route("add")(lambda a, b: a + b)
    app.add_realm(Realm("one"))
    for _ in range(3):
        async with connect(app, "one"):
            pass
    assert caplog.text.count("nobody can reach the routes of the default realm") == 1


async def test_a_realm_with_a_mistake_is_refused_each_time() -> None:
    app, realm = Application(), Realm("one")
    app.add_realm(realm)

    @realm.add_session_lifespan_handler
    async def lifespan(session: Session, database: str) -> AsyncIterator[None]:
        yield

    for _ in range(2):
        with pytest.raises(ConfigurationError, match="database"):
            async with connect(app, "one"):
                pass


@pytest.mark.spec("SES-05", "SES-06", "ERR-no_such_realm", "ABT-02", "ABT-03")
async def test_realms() -> None:
    realm = Realm("com.app")
    app = Application(allow_default_realm=False)
    app.add_realm(realm)
    async with connect(app, "com.app") as client:
        assert client.welcome["realm"] == "com.app"
    for uri in ("com.other", "com.app.sub"):
        with pytest.raises(WAMPError) as refused:
            async with connect(app, uri):
                pass
        assert refused.value.uri == "wamp.error.no_such_realm"
    for application in (app, Application()):
        async with connect(application, None) as client:
            await client.send([1, None, {"roles": {"caller": {}}}])
            abort = await client.receive()
            assert abort[0::2] == [3, "wamp.error.no_such_realm"]
            assert isinstance(abort[1]["message"], str)
            assert await client.expect_close() == 1000


async def test_the_default_realm_takes_every_other_uri() -> None:
    app = Application()
    app.route("which")(lambda: "default")
    named = Realm("named")
    named.route("which")(lambda: "named")
    app.add_realm(named)
    for uri, which in (("named", "named"), ("any.other", "default"), ("realm1", "default")):
        async with connect(app, uri) as client:
            assert (await client.call("which")).args == (which,)
            assert client.welcome["realm"] == uri


@pytest.mark.spec("SES-13")
async def test_realms_have_their_own_authentication() -> None:
    app = Application()
    members = Realm("members")
    members.set_ticket_authenticator(lambda session, ticket: ticket == "ticket")
    app.add_realm(members)
    async with connect(app):
        pass
    async with connect(app, "members", ticket="ticket") as client:
        assert client.welcome["authmethod"] == "ticket"
    with pytest.raises(WAMPError):
        async with connect(app, "members"):
            pass


def test_realms_that_are_refused() -> None:
    app = Application()
    app.add_realm(Realm("one"))
    for realm in (Realm("one"), Realm(None)):
        with pytest.raises(ConfigurationError):
            app.add_realm(realm)
    with pytest.raises(ConfigurationError):
        Realm("no realm")


async def test_routes_that_nobody_can_reach(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(allow_default_realm=False)
    app.route("a")(lambda: None)
    app.freeze()
    assert "nobody can reach" in caplog.text


# ---- the handle


async def test_the_session_handle() -> None:
    app = Application()
    sessions = remembering(app)
    login = {"authid": "joe", "authmethods": ["anonymous"], "authextra": {"a": 1}}
    async with connect(app, "com.realm", **login) as client:
        await client.call("remember")
        session = sessions[0]
        assert session.id == client.session
        assert session.realm == "com.realm"
        assert session.is_open
        assert session.auth_methods == ("anonymous",)
        assert session.auth_extra == {"a": 1}
        assert session.identity is None
        assert not session.is_authenticated
        assert session
        assert repr(session).startswith(f"<Session {client.session} in 'com.realm'")
        session["a"] = 1
        assert ("a" in session, "b" in session) == (True, False)
        assert (session["a"], session.get("b"), session.get("b", 5)) == (1, None, 5)
        del session["a"]
        with pytest.raises(KeyError):
            session["a"]
    assert not session.is_open
    await session.close()
    await session.abort()


@pytest.mark.spec("ABT-04", "ABT-08", "ABT-10", "ABT-12", "ERR-close_realm")
async def test_the_server_says_goodbye() -> None:
    app = Application(limits=Limits(goodbye_timeout=0.05))
    sessions = remembering(app)
    async with connect(app) as client:
        await client.call("remember")
        await sessions[0].close("com.app.enough", "for today")
        await sessions[0].close("com.app.twice")
        assert await client.receive() == [6, {"message": "for today"}, "com.app.enough"]
        await client.send([48, 5, {}, "remember"])  # ignored, as is what makes no sense now
        await client.send([1, "realm1", {"roles": {"caller": {}}}])
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1000
        assert client.take_all() == []
    assert len(sessions) == 1
    async with connect(app) as client:  # one that doesn't answer
        await client.call("remember")
        await sessions[1].close()
        assert await client.receive() == [6, {}, "wamp.close.close_realm"]
        assert await client.expect_close() == 1000


@pytest.mark.spec("ABT-04")
async def test_nothing_follows_abort() -> None:
    app = Application()
    sessions = remembering(app)

    @app.topic("news")
    async def news() -> AsyncIterator[None]:
        yield

    async with connect(app) as client:
        await client.call("remember")
        await client.subscribe("news")
        await sessions[0].abort("com.app.banned")
        sessions[0].send_event("news", ("for it alone",))
        await app.publish("news", ("for all",))
        assert await client.expect_close() == 1000
        assert client.transcript[-2].startswith("server: [3, ")


async def test_the_server_aborts_a_session() -> None:
    app = Application()
    sessions = remembering(app)
    async with connect(app) as client:
        await client.call("remember")
        await sessions[0].abort("com.app.banned", "go away")
        assert await client.receive() == [3, {"message": "go away"}, "com.app.banned"]
        assert await client.expect_close() == 1000


# ---- lifespan handlers


async def test_lifespan_handlers() -> None:
    log: list[str] = []
    ended = anyio.Event()
    app = Application()

    def named(name: str) -> Any:
        async def handler(session: Session, db: Any) -> AsyncIterator[None]:
            assert db == "db"
            log.append(f"{name} opens, open: {session.is_open}, id: {session.identity}")
            async with anyio.create_task_group():
                yield
            log.append(f"{name} closes")
            if name == "first":
                ended.set()

        return handler

    app.add_default_arg("db", "db")
    app.add_transport_authenticator(lambda session: "me")
    app.add_session_lifespan_handler(named("second"))
    app.add_session_lifespan_handler(named("third"), authenticated_only=True)
    app.add_session_lifespan_handler(named("first"), authenticated_only=False)
    for how in ("leaves", "vanishes"):
        log.clear()
        async with connect(app) as client:
            assert log == [
                "first opens, open: False, id: None",
                "second opens, open: False, id: me",
                "third opens, open: False, id: me",
            ]
            if how == "leaves":
                await client.leave()
                await happened(ended)
        assert log[3:] == ["third closes", "second closes", "first closes"]


async def test_lifespan_handlers_close_after_calls_and_subscriptions() -> None:
    log: list[str] = []
    app = Application()

    async def lifespan() -> AsyncIterator[None]:
        yield
        log.append("session")

    app.add_session_lifespan_handler(lifespan)

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield
        await anyio.lowlevel.checkpoint()
        log.append("subscription")

    @app.route("procedure")
    async def procedure() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("call")

    async with connect(app) as client:
        await client.subscribe("topic")
        await client.start_call("procedure")
    assert log[-1] == "session"
    assert sorted(log) == ["call", "session", "subscription"]


@pytest.mark.parametrize("authenticated_only", [True, False])
async def test_lifespan_handlers_that_refuse(
    authenticated_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[Exception] = []
    closed: list[str] = []
    app = Application()

    async def opens() -> AsyncIterator[None]:
        yield
        closed.append("closed")

    async def refuses() -> AsyncIterator[None]:
        raise raised.pop()
        yield

    app.add_session_lifespan_handler(opens, authenticated_only=False)
    app.add_session_lifespan_handler(refuses, authenticated_only=authenticated_only)
    for error, uri in (
        (WAMPError("com.app.full"), "com.app.full"),
        (ValueError("secret"), "wamp.error.runtime_error"),
    ):
        raised.append(error)
        with pytest.raises(WAMPError) as refused:
            async with connect(app):
                pass
        assert refused.value.uri == uri
        assert "secret" not in str(refused.value)
    assert closed == ["closed"] * 2
    assert "secret" in caplog.text


async def test_a_lifespan_handler_that_fails_to_close(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()

    async def fails() -> AsyncIterator[None]:
        yield
        raise ValueError("secret")

    app.add_session_lifespan_handler(fails)
    async with connect(app) as client:
        await client.leave()
        await client.join()
        assert "secret" not in "".join(client.transcript)
    assert "secret" in caplog.text


def test_lifespan_handlers_are_async_generators() -> None:
    async def handler(session: Session) -> None: ...

    with pytest.raises(ConfigurationError, match="async generator"):
        Application().add_session_lifespan_handler(handler)


# ---- shutdown


@pytest.mark.spec("ABT-07", "ERR-system_shutdown")
async def test_closing_all_sessions() -> None:
    app = Application()
    sessions = remembering(app)
    proceed, started = anyio.Event(), anyio.Event()

    @app.route("procedure")
    async def procedure() -> str:
        started.set()
        await proceed.wait()
        return "finished"

    async with connect(app) as one, connect(app) as two, connect(app, None) as three:
        call = await one.start_call("procedure")
        await two.call("remember")
        await happened(started)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.close_sessions)
            assert await two.receive() == [6, {}, "wamp.close.system_shutdown"]
            await two.send([6, {}, "wamp.close.goodbye_and_out"])
            assert await two.expect_close() == 1001
            assert await three.expect_close() == 1001
            proceed.set()
            assert (await call.result()).args == ("finished",)
            assert await one.receive() == [6, {}, "wamp.close.system_shutdown"]
            await one.send([6, {}, "wamp.close.goodbye_and_out"])
            assert await one.expect_close() == 1001
        assert not connections_of(app)
        assert not app.sessions
    assert not sessions[0].is_open


async def test_closing_sessions_that_dont_cooperate() -> None:
    app = Application(limits=Limits(goodbye_timeout=0.05))
    started, cancelled = anyio.Event(), anyio.Event()

    @app.route("procedure")
    async def procedure() -> None:
        try:
            started.set()
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with connect(app) as client:
        await client.start_call("procedure")
        await happened(started)
        await app.close_sessions(grace=0.05)
        assert cancelled.is_set()
        assert not connections_of(app)
        assert (await client.receive())[4] == "wamp.error.canceled"
        assert await client.receive() == [6, {}, "wamp.close.system_shutdown"]
        assert await client.expect_close() == 1001


# ---- a client that doesn't read


async def test_a_client_that_reads_nothing_is_given_up() -> None:
    limits = Limits(outbound_messages=80, send_timeout=0.1, goodbye_timeout=0.1)
    app = Application(limits=limits)

    @app.route("procedure")
    async def procedure() -> str:
        return "x" * 1000

    ended = anyio.Event()

    async def lifespan() -> AsyncIterator[None]:
        yield
        ended.set()

    app.add_session_lifespan_handler(lifespan)
    async with connect(app, timeout=0.5) as client:

        async def call_for_ever() -> None:
            while True:
                await client.start_call("procedure")

        client.pause()
        with pytest.raises(ExpectationFailed, match="doesn't read"):
            await call_for_ever()
        await happened(ended)


async def test_many_sessions_at_once() -> None:
    app = Application()
    sessions = remembering(app)

    async def one_client() -> None:
        async with connect(app) as client:
            for _ in range(3):
                await client.call("remember")
            await client.leave()

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(one_client)
    assert len(sessions) == 150
    assert len({session.id for session in sessions}) == 50
    assert not app.sessions
