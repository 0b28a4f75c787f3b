"""Credentials that expire or are renewed, and sessions that the application ends."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from serverwamp import Application, Realm, Session, WAMPError
from serverwamp.testing import connect

FAILED = "wamp.error.authentication_failed"
KILLED = "wamp.close.killed"


def by_ticket(session: Session, ticket: str) -> Any:
    """Tickets read ``name role seconds``."""
    name, role, seconds = ticket.split()
    session.auth_id, session.auth_role = name, role
    session.expires_at = None if seconds == "never" else time.time() + float(seconds)
    return {"ticket": ticket}


def with_tickets() -> Application:
    app = Application()
    app.set_ticket_authenticator(by_ticket)

    @app.route("refresh")
    async def refresh(session: Session, ticket: str) -> None:
        await session.refresh(ticket)

    @app.route("refresh_in_a_thread")
    def refresh_in_a_thread(session: Session, seconds: float) -> None:
        session.expires_at = time.time() + seconds

    @app.route("whoami")
    async def whoami(session: Session) -> Any:
        at = session.expires_at
        return [session.identity["ticket"], at and min(at, 1e12)]

    @app.route("sleep")
    async def sleep() -> None:
        await anyio.sleep_forever()

    return app


@pytest.mark.spec("ERR-killed")
async def test_a_session_ends_when_its_credentials_expire() -> None:
    async with connect(with_tickets(), ticket="joe user 0.3") as client:
        assert (await client.call("whoami")).args[0] == "joe user 0.3"
        running = await client.start_call("sleep")
        goodbye = await client.expect(lambda m: m[0] == 6, "GOODBYE")
        assert goodbye[1:] == [{"message": "the credentials have expired"}, KILLED]
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        assert await client.expect_close() == 1000
        assert not [m for m in client.take_all() if m[1] == running.request]


async def test_credentials_that_have_expired_already() -> None:
    with pytest.raises(WAMPError) as refused:
        async with connect(with_tickets(), ticket="joe user -1"):
            pass
    assert refused.value.uri == FAILED
    assert refused.value.args == ("the credentials have expired",)


@pytest.mark.parametrize("renewed", ["never", "3600", "inf"])
async def test_a_session_is_refreshed(renewed: str) -> None:
    app = with_tickets()
    async with connect(app, ticket="joe user 0.4") as client:
        async with connect(app, ticket="ann user 0.4") as other:
            await client.call("refresh", (f"joe user {renewed}",))
            ticket, expires_at = (await client.call("whoami")).args
            assert ticket == f"joe user {renewed}"
            assert expires_at is None or expires_at > time.time() + 3000
            await other.expect(lambda m: m[0] == 6, "GOODBYE")
        await client.call("whoami")
        await client.expect_nothing()


@pytest.mark.parametrize("procedure", ["refresh", "refresh_in_a_thread"])
async def test_a_time_that_comes_earlier(procedure: str) -> None:
    async with connect(with_tickets(), ticket="joe user 3600") as client:
        args = ("joe user 0.1",) if procedure == "refresh" else (0.1,)
        await client.call(procedure, args)
        assert (await client.expect(lambda m: m[0] == 6, "GOODBYE"))[2] == KILLED


async def test_a_time_that_is_over() -> None:
    async with connect(with_tickets(), ticket="joe user never") as client:
        await client.start_call("refresh_in_a_thread", (-1,))
        assert (await client.expect(lambda m: m[0] == 6, "GOODBYE"))[2] == KILLED


@pytest.mark.parametrize("ticket", ["ann user 9", "joe admin 9", "rubbish"])
async def test_a_session_stays_the_same_principal(ticket: str) -> None:
    async with connect(with_tickets(), ticket="joe user 3600") as client:
        before = (await client.call("whoami")).args
        with pytest.raises(WAMPError, match=FAILED):
            await client.call("refresh", (ticket,))
        assert (await client.call("whoami")).args == before


async def test_what_the_authenticator_says_about_a_new_ticket() -> None:
    app, answers = Application(), iter(["joe", None, WAMPError("com.app.banned")])

    def authenticator(session: Session, ticket: str) -> Any:
        answer = next(answers)
        if isinstance(answer, WAMPError):
            raise answer
        return answer

    app.set_ticket_authenticator(authenticator)
    app.route("refresh")(lambda session: None)

    @app.route("again")
    async def again(session: Session) -> None:
        await session.refresh("another")

    async with connect(app, authid="joe", ticket="one") as client:
        for reason in (FAILED, "com.app.banned"):
            with pytest.raises(WAMPError, match=reason):
                await client.call("again")


async def test_a_realm_without_tickets() -> None:
    app = Application()

    @app.route("again")
    async def again(session: Session) -> None:
        await session.refresh("another")

    async with connect(app) as client:
        with pytest.raises(WAMPError, match="no_matching_auth_method"):
            await client.call("again")


async def test_a_refresh_of_a_session_that_ends_meanwhile() -> None:
    app, asked = Application(), anyio.Event()

    async def authenticator(session: Session, ticket: str) -> str:
        session.expires_at = time.time() + 3600
        if ticket == "slow":
            asked.set()
            await anyio.sleep_forever()
        return "joe"

    app.set_ticket_authenticator(authenticator)

    @app.route("again")
    async def again(session: Session) -> None:
        await session.refresh("slow")

    async with connect(app, authid="joe", ticket="quick") as client:
        await client.start_call("again")
        with anyio.fail_after(5):
            await asked.wait()
        await client.leave()
        assert not app.sessions


# ---- ended by the application


async def test_disconnect() -> None:
    app = with_tickets()
    staff = Realm("com.app.staff")
    staff.set_ticket_authenticator(by_ticket)
    app.add_realm(staff)
    async with (
        connect(app, ticket="joe user never") as joe,
        connect(app, ticket="joe user never") as joe_again,
        connect(app, ticket="joe admin never") as joe_the_admin,
        connect(app, "com.app.staff", ticket="joe user never") as joe_elsewhere,
        connect(app, ticket="ann user never") as ann,
    ):
        assert await app.disconnect(auth_id="nobody") == 0
        assert await app.disconnect(session=ann.session, auth_id="joe") == 0
        assert await app.disconnect(auth_id="joe", auth_role="user", realm="realm1") == 2
        for client in (joe, joe_again):
            goodbye = await client.expect(lambda m: m[0] == 6, "GOODBYE")
            assert goodbye == [6, {}, KILLED]
        assert await app.disconnect(auth_id="joe", auth_role="user", realm="realm1") == 0
        assert await app.disconnect(session=ann.session, reason="com.app.why", message="so") == 1
        assert (await ann.receive()) == [6, {"message": "so"}, "com.app.why"]
        assert await app.disconnect(realm="com.app.staff") == 1
        assert (await joe_elsewhere.receive())[2] == KILLED
        await joe_the_admin.call("whoami")
        assert await app.disconnect(auth_role="admin") == 1
        assert (await joe_the_admin.receive())[2] == KILLED


async def test_disconnect_from_a_call() -> None:
    app = with_tickets()

    @app.route("end")
    async def end(session: Session) -> None:
        await app.disconnect(auth_id=session.auth_id)
        await app.disconnect(session=session)

    async with connect(app, ticket="joe user never") as one:
        async with connect(app, ticket="joe user never") as other:
            await one.start_call("end")
            assert (await one.receive())[2] == KILLED
            assert (await other.receive())[2] == KILLED


async def test_disconnect_of_who_is_just_logging_in() -> None:
    app = with_tickets()
    async with connect(app, None) as client, connect(app, None) as silent:
        details = {"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"}
        await client.send([1, "realm1", details])
        assert (await client.receive())[0] == 4
        assert await app.disconnect(auth_id="joe", message="your account is gone") == 1
        assert (await client.receive()) == [3, {"message": "your account is gone"}, KILLED]
        assert await client.expect_close() == 1000
        assert await app.disconnect(auth_id="joe") == 0
        await silent.join(ticket="joe user never")


async def test_disconnect_needs_a_criterion() -> None:
    app = Application()
    with pytest.raises(TypeError, match="needs a session"):
        await app.disconnect()
    with pytest.raises(ValueError, match="valid URI"):
        await app.disconnect(auth_id="joe", reason="not valid")
