"""A name that a client only claims gets replaced unless something vouches for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverwamp import (
    Application,
    CRAAuthRequirement,
    CryptosignAuthRequirement,
    Realm,
    SCRAMAuthRequirement,
    Session,
    WAMPError,
    cryptosign_credential,
    scram_credential,
)
from serverwamp.testing import Client, connect

FORMATS = ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"]
FAILED = "wamp.error.authentication_failed"


async def admit(session: Session) -> str:
    return "identity"


async def decline(session: Session) -> None:
    return None


async def confirm(session: Session) -> str:
    session.auth_id = session.auth_id  # the same name, but now it is the authenticator's
    return "identity"


async def name_grace(session: Session) -> str:
    session.auth_id = "grace"
    return "identity"


async def name_nobody(session: Session) -> str:
    session.auth_id = None
    return "identity"


async def take_over_and_decline(session: Session) -> None:
    session.auth_id = "ada"


def confirm_in_thread(session: Session) -> str:
    session.auth_id = session.auth_id
    return "identity"


async def mark(session: Session) -> None:
    await session.mark_authenticated("identity")


async def mark_and_name(session: Session) -> None:
    await session.mark_authenticated("identity")
    session.auth_id = "grace"


RANDOM = "a random one"


def named(app: Application, *authenticators: Callable[..., Any]) -> Application:
    """Let an application say in every way that it has how a session is called."""
    for authenticator in authenticators:
        app.add_transport_authenticator(authenticator)
    app.client_register("com.callee", disclose_caller=True)
    app.set_meta_api(lambda session: True, testaments=lambda session: True)

    @app.route("name")
    async def name(session: Session) -> Any:
        return session.auth_id

    @app.topic("com.topic", client_publish=True)
    async def topic() -> AsyncIterator[None]:
        yield

    return app


async def names_of(app: Application, client: Client) -> set[Any]:
    """Return every name under which a client is known, to itself and to others."""
    names = {client.welcome["authid"], (await client.call("name")).args[0]}
    async with connect(app, subprotocol=client.subprotocol) as other:
        registration = await other.register("com.callee")
        call = await client.start_call("com.callee", disclose_me=True)
        invocation = await other.expect_invocation(registration)
        names.add(invocation.details["caller_authid"])
        await invocation.result()
        await call.result()

        subscription = await other.subscribe("com.topic")
        await client.publish("com.topic", disclose_me=True, acknowledge=True)
        event = await other.expect_event(subscription)
        names.add(event.details["publisher_authid"])

        details = (await other.call("wamp.session.get", [client.session])).args[0]
        names.add(details["authid"])

        left = await other.subscribe("wamp.session.on_leave")
        testament = ["com.topic", ["a testament"], {}]
        options = {"publish_options": {"disclose_me": True}}
        await client.call("wamp.session.add_testament", testament, options)
        (name,) = names
        wrong = "grace" if name == "ada" else "ada"
        assert await app.disconnect(session=client.session, auth_id=wrong) == 0
        assert await app.disconnect(session=client.session, auth_id=name) == 1
        assert await client.expect(lambda m: m[0] == 6)
        await client.send([6, {}, "wamp.close.goodbye_and_out"])
        event = await other.expect_event(subscription)
        assert event.args == ("a testament",)
        names.add(event.details["publisher_authid"])
        names.add((await other.expect_event(left)).args[1])
    return names


@pytest.mark.spec("AUT-10", "SES-09")
@pytest.mark.parametrize("subprotocol", FORMATS)
@pytest.mark.parametrize(
    ("authenticators", "expected"),
    [
        ([], RANDOM),
        ([admit], RANDOM),
        ([decline, admit], RANDOM),
        ([name_nobody], RANDOM),
        ([confirm], "ada"),
        ([confirm_in_thread], "ada"),
        ([decline, confirm], "ada"),
        ([name_grace], "grace"),
        ([take_over_and_decline, admit], RANDOM),
    ],
)
async def test_the_name_of_whom_a_transport_authenticator_admits(
    authenticators: list[Any], expected: str, subprotocol: str
) -> None:
    app = named(Application(), *authenticators)
    async with connect(app, authid="ada", subprotocol=subprotocol) as client:
        (name,) = await names_of(app, client)
    if expected is RANDOM:
        assert isinstance(name, str)
        assert len(name) >= 12
        assert name not in ("ada", "grace")
    else:
        assert name == expected


async def test_random_names_differ() -> None:
    app = named(Application(), admit)
    names = []
    for _ in range(2):
        async with connect(app, authid="ada") as client:
            names.append(client.welcome["authid"])
    assert names[0] != names[1]


async def test_while_authenticators_run_the_name_is_the_claim() -> None:
    seen = []

    async def look(session: Session) -> None:
        seen.append(session.auth_id)

    app = named(Application(), look, take_over_and_decline, look, name_grace)
    async with connect(app, authid="eve") as client:
        assert client.welcome["authid"] == "grace"
    async with connect(app) as client:
        assert client.welcome["authid"] == "grace"
    assert seen == ["eve", "eve", None, None]


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (admit, RANDOM),
        (mark, RANDOM),
        (name_nobody, RANDOM),
        (confirm, "ada"),
        (name_grace, "grace"),
        (mark_and_name, "grace"),
    ],
)
async def test_the_name_of_whom_a_custom_handler_admits(handler: Any, expected: str) -> None:
    app = named(Application())
    app.set_authentication_handler(handler)
    async with connect(app, authid="ada") as client:
        (name,) = await names_of(app, client)
    assert (name == expected) if expected is not RANDOM else name not in ("ada", "grace", None)


async def test_a_custom_handler_that_lets_guests_in_after_a_wrong_ticket() -> None:
    app = Application()

    async def authenticate(session: Session) -> str:
        ticket, _ = await session.challenge("ticket")
        if ticket != f"ticket of {session.auth_id}":
            return "guest"
        session.auth_id = session.auth_id
        return "member"

    app.set_authentication_handler(authenticate)
    async with connect(app, authid="ada", ticket="ticket of ada") as client:
        assert client.welcome["authid"] == "ada"
    async with connect(app, authid="ada", ticket="a guess") as client:
        assert client.welcome["authid"] != "ada"


# ---- what is proven counts


def with_ticket() -> Application:
    app = Application()
    app.set_ticket_authenticator(lambda session, ticket: ticket == "right")
    return app


def with_cra() -> Application:
    app = Application()
    app.set_cra_handlers(lambda session: CRAAuthRequirement("right"), admit)
    return app


def with_scram() -> Application:
    app = Application()
    stored = scram_credential("right", kdf="pbkdf2", iterations=5)
    app.set_scram_handlers(lambda session: SCRAMAuthRequirement(**stored), admit)
    return app


KEY = "7" * 64


def with_cryptosign() -> Application:
    app = Application()
    stored = cryptosign_credential(KEY)
    app.set_cryptosign_handlers(lambda session: CryptosignAuthRequirement(**stored), admit)
    return app


PROVEN = [
    (with_ticket, {"ticket": "right"}),
    (with_cra, {"secret": "right"}),
    (with_scram, {"password": "right"}),
    (with_cryptosign, {"private_key": KEY}),
]


@pytest.mark.parametrize("declining", [[], [decline], [take_over_and_decline]])
@pytest.mark.parametrize(("make", "login"), PROVEN)
async def test_a_name_that_was_challenged_for_stays(
    make: Callable[[], Application], login: dict[str, str], declining: list[Any]
) -> None:
    app = named(make(), *declining)
    async with connect(app, authid="joe", **login) as client:
        assert client.welcome["authid"] == "joe"
        assert (await client.call("name")).args == ("joe",)
    async with connect(app, **login) as client:
        assert client.welcome["authid"] not in (None, "", "ada", "joe")


# ---- around the authentication


@pytest.mark.parametrize("authenticators", [[], [admit]])
async def test_what_lifespan_handlers_see(authenticators: list[Any]) -> None:
    seen: dict[str, Any] = {}
    app = named(Application(), *authenticators)

    async def early(session: Session) -> AsyncIterator[None]:
        seen["early"] = session.auth_id
        session.auth_id = session.auth_id  # no authenticator vouches for that
        yield
        seen["end"] = session.auth_id

    async def late(session: Session) -> AsyncIterator[None]:
        seen["late"] = session.auth_id
        yield

    app.add_session_lifespan_handler(early, authenticated_only=False)
    app.add_session_lifespan_handler(late)
    async with connect(app, authid="ada") as client:
        name = client.welcome["authid"]
    assert seen == {"early": "ada", "late": name, "end": name}
    assert name != "ada"


async def test_a_realm_that_an_authenticator_chooses() -> None:
    app = Application(allow_default_realm=False)
    app.add_realm(Realm("com.realm"))

    async def choose(session: Session) -> str:
        session.realm = "com.realm"
        return "identity"

    app.add_transport_authenticator(choose)
    async with connect(app, None) as client:
        welcome = await client.join(None, authid="ada")
        assert welcome["realm"] == "com.realm"
        assert welcome["authid"] != "ada"


async def test_a_role_cannot_be_claimed() -> None:
    app = named(Application(), admit)
    async with connect(app, None) as client:
        details = {"roles": {"caller": {}}, "authid": "ada", "authrole": "admin"}
        await client.send([1, "realm1", {**details, "authprovider": "me"}])
        welcome = (await client.receive())[2]
        assert (welcome["authrole"], welcome["authprovider"]) == ("user", "dynamic")


async def test_a_guest_cannot_become_a_member_by_a_refresh() -> None:
    app = with_ticket()
    named(app, admit)

    @app.route("refresh")
    async def refresh(session: Session, ticket: str) -> Any:
        before = session.auth_id
        await session.refresh(ticket)
        return before == session.auth_id

    async with connect(app, authid="ada") as client:
        assert client.welcome["authid"] != "ada"
        assert (await client.call("refresh", ["right"])).args == (True,)


async def test_disconnecting_somebody_spares_those_who_only_claim_the_name() -> None:
    app = named(Application(), admit)
    async with connect(app, authid="ada") as client:
        assert await app.disconnect(auth_id="ada") == 0
        assert (await client.call("name")).args == (client.welcome["authid"],)


async def test_who_is_logging_in_is_refused_by_the_claim() -> None:
    asked = anyio.Event()

    async def take_time(session: Session) -> None:
        asked.set()
        await anyio.sleep_forever()

    app = named(Application(), take_time)
    async with connect(app, None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, "authid": "ada"}])
        with anyio.fail_after(5):
            await asked.wait()
        assert await app.disconnect(auth_id="ada") == 1
        assert (await client.receive())[2] == "wamp.close.killed"


@pytest.mark.parametrize("authid", [5, 1.5, True, ["ada"], {"ada": 1}, b"ada", "\0YWRh"])
@pytest.mark.parametrize("subprotocol", FORMATS)
async def test_a_name_is_text(
    authid: Any, subprotocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Text that starts with NUL stands for binary in JSON, and couldn't be sent to clients there.
    for authenticator in (admit, confirm):
        app = named(Application(), authenticator)
        async with connect(app, None, subprotocol=subprotocol) as client:
            await client.send([1, "realm1", {"roles": {"caller": {}}, "authid": authid}])
            assert (await client.receive())[::2] == [3, "wamp.error.protocol_violation"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("auth_id", [5, b"ada", ("ada",), UUID(int=1)])
async def test_an_assigned_name_is_text(auth_id: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def assign(session: Session) -> str:
        session.auth_id = auth_id
        return "identity"

    with pytest.raises(WAMPError) as failure:
        async with connect(named(Application(), assign), authid="ada"):
            pass
    assert failure.value.uri == FAILED
    assert "auth_id must be a string" in caplog.text


ODD_NAMES = ["", " ", "a\0", "a" * 5000]


@settings(max_examples=25, deadline=None)
@given(claim=st.none() | st.text(max_size=40) | st.sampled_from(ODD_NAMES))
def test_no_claim_is_believed(claim: str | None) -> None:
    claim = claim and claim.lstrip("\0")

    async def join() -> None:
        app = named(Application(), admit)
        async with connect(app, authid=claim, subprotocol="wamp.2.msgpack") as client:
            assert client.welcome["authid"] != (claim or "")
            assert (await client.call("name")).args == (client.welcome["authid"],)

    anyio.run(join)
