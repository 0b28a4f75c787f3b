"""Clients that leave it to the server which realm they join."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from serverwamp import Application, Realm, Session, WAMPError
from serverwamp.testing import connect

NO_SUCH_REALM = "wamp.error.no_such_realm"


def with_tenants(*, allow_default_realm: bool = False) -> Application:
    """Tickets are names of realms."""
    app = Application(allow_default_realm)

    async def assign(session: Session, ticket: str) -> str:
        session.realm = ticket
        return session.auth_id or "somebody"

    app.set_ticket_authenticator(assign)
    for name in ("com.one", "com.other"):
        realm = Realm(name)
        realm.set_ticket_authenticator(lambda session, ticket: None)
        realm.add_routes([])
        realm.topic("com.news")(news)
        realm.route("where")(where)
        realm.route("tell")(telling(realm))
        app.add_realm(realm)
    return app


async def news() -> AsyncIterator[None]:
    yield


async def where(session: Session) -> str:
    return session.realm


def telling(realm: Realm) -> Any:
    async def tell(text: str) -> None:
        await realm.publish("com.news", (text,))

    return tell


@pytest.mark.spec("SES-06")
async def test_an_assigned_realm() -> None:
    app = with_tenants()
    async with (
        connect(app, None) as one,
        connect(app, None) as other,
    ):
        for client, realm in ((one, "com.one"), (other, "com.other")):
            welcome = await client.join(None, authid="joe", ticket=realm)
            assert welcome["realm"] == realm
            assert welcome["authmethod"] == "ticket"
            assert (await client.call("where")).args == (realm,)
            await client.subscribe("com.news")
        await one.call("tell", ("hello",))
        assert (await one.expect_event()).args == ("hello",)
        await other.expect_nothing()


@pytest.mark.spec("SES-06")
@pytest.mark.parametrize("assigned", ["", "com.nowhere", "not valid"])
async def test_a_realm_that_is_not_there(assigned: str) -> None:
    app = with_tenants(allow_default_realm=assigned != "com.nowhere")
    async with connect(app, None) as client:
        with pytest.raises(WAMPError) as refused:
            await client.join(None, ticket=assigned)
        assert refused.value.uri == NO_SUCH_REALM
        assert await client.expect_close() == 1000


@pytest.mark.spec("SES-06")
async def test_nobody_assigns_a_realm() -> None:
    async with connect(Application(), None) as client:
        with pytest.raises(WAMPError) as refused:
            await client.join(None)
        assert refused.value.uri == NO_SUCH_REALM


@pytest.mark.spec("SES-06")
async def test_who_names_a_realm_is_authenticated_by_that() -> None:
    app = with_tenants(allow_default_realm=True)
    async with connect(app, None) as client:
        with pytest.raises(WAMPError, match="authentication_failed"):
            await client.join("com.one", ticket="com.one")
    async with connect(app, "com.else", ticket="com.other") as client:
        assert client.welcome["realm"] == "com.other"
        assert (await client.call("where")).args == ("com.other",)


async def test_a_refresh_has_to_assign_the_realm_again() -> None:
    app, tenants = Application(), ["com.one"]
    realm = Realm("com.one")
    app.add_realm(realm)

    def assign(session: Session, ticket: str) -> str:
        if tenants:
            session.realm = tenants.pop()
        return "identity"

    app.set_ticket_authenticator(assign)

    @realm.route("refresh")
    async def refresh(session: Session) -> None:
        await session.refresh("another")

    async with connect(app, None) as client:
        await client.join(None, authid="joe", ticket="one")
        with pytest.raises(WAMPError, match="authentication_failed"):
            await client.call("refresh")


async def test_an_assigned_realm_has_its_lifespan_handlers() -> None:
    app, happened = Application(), []

    def named(name: str) -> Any:
        async def handler(session: Session) -> AsyncIterator[None]:
            happened.append(f"{name} begins for {session.auth_role}")
            yield
            happened.append(f"{name} ends")

        return handler

    realm = Realm("com.one")
    realm.add_session_lifespan_handler(named("early"), authenticated_only=False)
    realm.add_session_lifespan_handler(named("late"))
    app.add_realm(realm)

    async def assign(session: Session) -> str:
        session.realm = "com.one"
        return "identity"

    app.add_transport_authenticator(assign)
    async with connect(app, None) as client:
        await client.join(None)
        await client.leave()
        await client.join(None)
    begin = ["early begins for user", "late begins for user"]
    assert happened == [*begin, "late ends", "early ends"] * 2


async def test_a_refresh_asks_who_has_assigned_the_realm() -> None:
    app = with_tenants()
    realm = app._realms["com.one"]

    @realm.route("refresh")
    async def refresh(session: Session, ticket: str) -> None:
        await session.refresh(ticket)

    async with connect(app, None) as client:
        await client.join(None, authid="joe", ticket="com.one")
        await client.call("refresh", ("com.one",))
        with pytest.raises(WAMPError, match="authentication_failed"):
            await client.call("refresh", ("com.other",))
        assert (await client.call("where")).args == ("com.one",)
