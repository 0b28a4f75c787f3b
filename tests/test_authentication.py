"""How clients are admitted and refused."""

from __future__ import annotations

import json
import logging
import secrets
import string
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    CRAAuthRequirement,
    Limits,
    Session,
    WAMPError,
    cra_credential,
    derive_cra_secret,
)
from serverwamp.protocol.auth import cra
from serverwamp.testing import Client, connect
from tests.helpers import connections_of

FAILED = "wamp.error.authentication_failed"


async def accept_all(session: Session) -> str:
    return "identity"


async def refuse_all(session: Session) -> None:
    return None


async def accept_ticket(session: Session, ticket: str) -> Any:
    return {"who": session.auth_id} if ticket == f"ticket of {session.auth_id}" else None


def whoami(app: Application) -> Application:
    @app.route("whoami")
    async def whoami(session: Session) -> Any:
        return {
            "identity": session.identity,
            "auth_id": session.auth_id,
            "auth_method": session.auth_method,
            "auth_role": session.auth_role,
            "auth_provider": session.auth_provider,
        }

    return app


def with_ticket() -> Application:
    app = whoami(Application())
    app.set_ticket_authenticator(accept_ticket)
    return app


def with_cra(**requirement: Any) -> Application:
    app = whoami(Application())

    async def provide_requirement(session: Session) -> CRAAuthRequirement | None:
        if session.auth_id != "joe":
            return None
        return CRAAuthRequirement(auth_role="user", auth_provider="database", **requirement)

    async def provide_identity(session: Session) -> Any:
        return {"who": session.auth_id}

    app.set_cra_handlers(provide_requirement, provide_identity)
    return app


async def login_refusal(app: Application, **login: Any) -> str:
    """Return the reason of the ABORT that a login gets; a close frame follows it."""
    async with connect(app, None) as client:
        with pytest.raises(WAMPError) as refused:
            await client.join(**login)
        assert await client.expect_close() == 1000
        assert client.take_all() == []
        assert "who" not in "".join(client.transcript)
        return refused.value.uri


# ---- anonymous


@pytest.mark.spec("ANO-01", "SES-09", "SES-10", "AUT-02")
@pytest.mark.parametrize(
    ("authmethods", "authmethod"),
    [(None, "anonymous"), ([], "anonymous"), (["ticket", "anonymous"], "anonymous")],
)
async def test_anonymous(authmethods: Any, authmethod: str) -> None:
    app = whoami(Application())
    async with connect(app, authmethods=authmethods, authid="admin") as client:
        welcome = client.welcome
        assert welcome["authmethod"] == authmethod
        assert welcome["authrole"] == "anonymous"
        assert welcome["authprovider"] == "static"
        assert welcome["realm"] == "realm1"
        assert isinstance(welcome["agent"], str)
        assert welcome["authid"] not in ("admin", "", None)  # what it claims is not believed
        assert (await client.call("whoami")).kwargs == {
            "identity": None,
            "auth_id": welcome["authid"],
            "auth_method": authmethod,
            "auth_role": "anonymous",
            "auth_provider": "static",
        }
    async with connect(app) as other:
        assert other.welcome["authid"] != welcome["authid"]


@pytest.mark.spec("AUT-03")
async def test_no_method_is_claimed_that_was_not_offered() -> None:
    async with connect(Application(), authmethods=["ticket"]) as client:
        assert "authmethod" not in client.welcome


# ---- transport


@pytest.mark.spec("AUT-03", "SES-09")
@pytest.mark.parametrize(
    ("offered", "reported"),
    [
        (None, "anonymous"),
        (["cookie", "ticket"], "cookie"),
        (["ticket", "anonymous"], "anonymous"),
        (["ticket"], None),
    ],
)
async def test_transport_authenticators(offered: Any, reported: str | None) -> None:
    app = whoami(Application())

    async def by_cookie(session: Session) -> Any:
        cookies = session.connection.transport_info["http_cookies"]
        if cookies.get("key") == "opens":
            session.auth_role = "visitor"
            return {"name": "Jeff"}
        return None

    app.add_transport_authenticator(refuse_all)
    app.add_transport_authenticator(by_cookie)
    cookies = {"other": "1", "key": "opens"}
    async with connect(app, cookies=cookies, authmethods=offered, authid="jeff") as client:
        assert client.welcome.get("authmethod") == reported
        assert client.welcome["authid"] not in ("jeff", None)  # nobody has looked at that
        result = (await client.call("whoami")).kwargs
        assert result["identity"] == {"name": "Jeff"}
        assert result["auth_role"] == client.welcome["authrole"] == "visitor"
        assert result["auth_provider"] == client.welcome["authprovider"] == "dynamic"
    assert await login_refusal(app) == FAILED


@pytest.mark.parametrize("identity", [0, "", {}, [], True, 5])
async def test_any_identity_is_one(identity: Any) -> None:
    async def authenticator(session: Session) -> Any:
        return identity

    app = whoami(Application())
    app.add_transport_authenticator(authenticator)
    async with connect(app) as client:
        assert (await client.call("whoami")).kwargs["identity"] == identity


async def test_false_is_no_identity() -> None:
    app = Application()
    app.add_transport_authenticator(lambda session: False)
    assert await login_refusal(app) == FAILED


async def test_transport_authenticators_come_first_and_in_order() -> None:
    asked: list[int] = []
    app = with_ticket()

    def named(number: int, answer: Any) -> Any:
        async def authenticator(session: Session) -> Any:
            asked.append(number)
            return answer

        return authenticator

    for number, answer in enumerate((None, "second", "third")):
        app.add_transport_authenticator(named(number, answer))
    async with connect(app, authid="joe", ticket="wrong") as client:
        assert (await client.call("whoami")).kwargs["identity"] == "second"
        assert "authmethod" not in client.welcome
    assert asked == [0, 1]


async def test_a_challenge_follows_when_no_transport_authenticator_knows() -> None:
    app = with_ticket()
    app.add_transport_authenticator(refuse_all)
    async with connect(app, authid="joe", ticket="ticket of joe") as client:
        assert (await client.call("whoami")).kwargs["identity"] == {"who": "joe"}


# ---- ticket


@pytest.mark.spec("AUT-01", "TKT-01", "TKT-02", "TKT-03", "TKT-04", "SES-09")
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack"])
async def test_ticket(subprotocol: str) -> None:
    async with connect(with_ticket(), None, subprotocol=subprotocol) as client:
        details = {"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "joe"}
        await client.send([1, "realm1", details])
        assert await client.receive() == [4, "ticket", {}]
        await client.send([5, "ticket of joe", {}])
        kind, session, welcome = await client.receive()
        assert (kind, welcome["authid"], welcome["authmethod"]) == (2, "joe", "ticket")
        assert welcome["authrole"] == "user"
        assert welcome["authprovider"] == "dynamic"
        assert session > 0
        assert (await client.call("whoami")).kwargs["identity"] == {"who": "joe"}


@pytest.mark.spec("TKT-04")
async def test_a_wrong_ticket() -> None:
    app = with_ticket()
    assert await login_refusal(app, authid="joe", ticket="guess") == FAILED
    assert await login_refusal(app, authid="nobody", ticket="guess") == FAILED
    assert await login_refusal(app, ticket="") == FAILED


# ---- CRA


@pytest.mark.spec("CRA-01", "CRA-02", "CRA-03", "CRA-05", "CRA-06", "SES-09")
async def test_cra() -> None:
    async with connect(with_cra(secret="secret123"), None) as client:
        details = {"roles": {"caller": {}}, "authmethods": ["wampcra"], "authid": "joe"}
        await client.send([1, "realm1", details])
        kind, method, extra = await client.receive()
        assert (kind, method, set(extra)) == (4, "wampcra", {"challenge"})
        challenge = json.loads(extra["challenge"])
        assert set(challenge) == {
            "authid", "authrole", "authmethod", "authprovider", "nonce", "timestamp", "session",
        }  # fmt: skip
        assert challenge["authid"] == "joe"
        assert challenge["authrole"] == "user"
        assert challenge["authmethod"] == "wampcra"
        assert challenge["authprovider"] == "database"
        now = datetime.now(timezone.utc)
        assert abs(datetime.fromisoformat(challenge["timestamp"]) - now) < timedelta(minutes=1)
        await client.send([5, cra.cra_signature("secret123", extra["challenge"]), {}])
        kind, session, welcome = await client.receive()
        assert kind == 2
        assert session == challenge["session"]
        assert welcome["authmethod"] == "wampcra"
        assert welcome["authid"] == "joe"
        assert welcome["authrole"] == "user"
        assert welcome["authprovider"] == "database"
        assert (await client.call("whoami")).kwargs["identity"] == {"who": "joe"}


@pytest.mark.spec("CRA-04", "CRA-07")
@pytest.mark.parametrize("keylen", [16, 32])
async def test_salted_cra(keylen: int) -> None:
    salted = {"salt": "pepper4joe", "iterations": 2000, "keylen": keylen}
    app = with_cra(secret=derive_cra_secret("secret123", **salted), **salted)
    async with connect(app, None) as client:
        details = {"roles": {"caller": {}}, "authmethods": ["wampcra"], "authid": "joe"}
        await client.send([1, "realm1", details])
        _, _, extra = await client.receive()
        assert {key: extra[key] for key in salted} == salted
    async with connect(app, authid="joe", secret="secret123") as client:
        assert client.welcome["authmethod"] == "wampcra"
    assert await login_refusal(app, authid="joe", secret="secret124") == FAILED


@pytest.mark.spec("CRA-04")
async def test_what_is_stored_of_a_secret() -> None:
    stored, again = (cra_credential("secret123", iterations=50) for _ in range(2))
    assert not {stored["salt"], stored["secret"]} & set(again.values())
    assert json.loads(json.dumps(stored)) == stored
    async with connect(with_cra(**stored), authid="joe", secret="secret123") as client:
        assert client.welcome["authmethod"] == "wampcra"
    assert await login_refusal(with_cra(**stored), authid="joe", secret=stored["secret"]) == FAILED


async def challenged(client: Client, authid: str) -> dict[str, Any]:
    """Say HELLO and return the Extra of the CHALLENGE."""
    details = {"roles": {"caller": {}}, "authmethods": ["wampcra"], "authid": authid}
    await client.send([1, "realm1", details])
    kind, method, extra = await client.receive()
    assert (kind, method) == (4, "wampcra")
    return dict(extra)


SALTS = {
    "none": None,
    "hexadecimal": secrets.token_hex(8),
    "url-safe": secrets.token_urlsafe(16),
    "padded": b64encode(secrets.token_bytes(16)).decode(),
    "text": "pepper-4-joe!",
}


@pytest.mark.spec("CRA-06", "AUT-06")
@pytest.mark.parametrize("salt", SALTS.values(), ids=SALTS)
async def test_wrong_signatures_and_unknown_names_look_alike(
    salt: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent, what is logged, and which steps are taken in which order."""
    app, is_signature_of = Application(), cra.is_signature_of
    steps: list[str] = []

    async def provide_requirement(session: Session) -> CRAAuthRequirement | None:
        steps.append("requirement")
        if session.auth_id != "joe":
            return None
        return CRAAuthRequirement("key", "member", "database", salt, iterations=7, keylen=16)

    async def provide_identity(session: Session) -> None:
        steps.append("identity")

    def compare(secret: str | bytes, challenge: str, signature: str) -> bool:
        steps.append(f"compares with {signature}")
        assert len(secret) > 2
        return is_signature_of(secret, challenge, signature)

    async def attempt(authid: str) -> list[Any]:
        steps.clear()
        caplog.clear()
        async with connect(app, None) as client:
            extra = await challenged(client, authid)
            await client.send([5, "guess", {}])
            abort = await client.receive()
            assert abort[2] == FAILED
            assert await client.expect_close() == 1000
        challenge = json.loads(extra.pop("challenge"))
        told = {name: challenge[name] for name in ("authrole", "authprovider", "authmethod")}
        logged = [(record.levelname, record.msg) for record in caplog.records]
        salts.append(extra.pop("salt", None))
        return [abort, told, extra, steps.copy(), logged]

    salts: list[str | None] = []
    monkeypatch.setattr(cra, "is_signature_of", compare)
    app.set_cra_handlers(provide_requirement, provide_identity)
    with caplog.at_level(logging.DEBUG):
        for authid in ("joe", "nobody", "somebody", "", "nobody", "jos\u00e9"):
            assert await attempt(authid) == await attempt("joe"), authid
    assert salts[0] == salts[1] == salts[3] == salt
    _, nobody, somebody, nameless, again, _ = salts[::2]
    if salt is None:
        assert set(salts) == {None}
        return
    assert nobody == again
    assert len({salt, nobody, somebody, nameless}) == 4
    for other in (nobody, somebody, nameless):
        assert other is not None
        assert len(other) == len(salt)
        assert origin_of(other) == origin_of(salt)
    async with connect(app, None) as client:
        assert (await challenged(client, "nobody"))["salt"] == nobody


def origin_of(salt: str) -> str:
    """Return what could have made a salt."""
    if set(salt) <= set(string.hexdigits):
        return "hexadecimal"
    if salt.endswith("="):
        assert b64encode(b64decode(salt)).decode() == salt
        return "base64"
    if len(salt) == 22:
        assert urlsafe_b64encode(urlsafe_b64decode(f"{salt}==")).decode() == f"{salt}=="
    return "text"


@pytest.mark.spec("AUT-06")
async def test_an_application_that_says_how_nobody_is_challenged() -> None:
    app = Application()
    salted = {"salt": "of nobody", "iterations": 5}

    async def provide_requirement(session: Session) -> CRAAuthRequirement:
        return CRAAuthRequirement(None, "member", "database", **salted)

    app.set_cra_handlers(provide_requirement, accept_all)
    for secret in ("", "None", derive_cra_secret("", "of nobody", 5), "0" * 32):
        async with connect(app, None) as client:
            extra = await challenged(client, "nobody")
            assert {name: extra[name] for name in salted} == salted
            assert json.loads(extra["challenge"])["authrole"] == "member"
            await client.send([5, cra.cra_signature(secret, extra["challenge"]), {}])
            assert (await client.receive())[2] == FAILED


@pytest.mark.spec("AUT-06")
async def test_nobody_before_anybody() -> None:
    app = with_cra(secret="secret123")
    async with connect(app, None) as client:
        assert set(await challenged(client, "nobody")) == {"challenge"}
    assert await login_refusal(app, authid="nobody", secret="secret123") == FAILED


@pytest.mark.spec("AUT-08")
async def test_a_signature_is_good_for_its_own_challenge_only() -> None:
    app = with_cra(secret="secret123")
    details = {"roles": {"caller": {}}, "authmethods": ["wampcra"], "authid": "joe"}
    async with connect(app, None) as first, connect(app, None) as second:
        challenges = []
        for client in (first, second):
            await client.send([1, "realm1", details])
            challenges.append((await client.receive())[2]["challenge"])
        assert challenges[0] != challenges[1]
        await second.send([5, cra.cra_signature("secret123", challenges[0]), {}])
        assert (await second.receive())[2] == FAILED
        good = cra.cra_signature("secret123", challenges[0])
        await first.send([5, good, {}])
        assert (await first.receive())[0] == 2
        async with connect(app, None) as client:  # once more, for another challenge
            await challenged(client, "joe")
            await client.send([5, good, {}])
            assert (await client.receive())[2] == FAILED
        for signature in ("", "ü", "x" * 10_000):
            async with connect(app, None) as client:
                await client.send([1, "realm1", details])
                await client.receive()
                await client.send([5, signature, {}])
                assert (await client.receive())[2] == FAILED


@pytest.mark.spec("AUT-07", "AUT-08")
@pytest.mark.parametrize("first", ["right", "wrong"])
async def test_a_challenge_is_answered_once(first: str) -> None:
    app = with_cra(secret="secret123")
    async with connect(app, None, subprotocol="wamp.2.json.batched") as client:
        right = cra.cra_signature("secret123", (await challenged(client, "joe"))["challenge"])
        answer = {"right": right, "wrong": "guess"}[first]
        await client.send([5, answer, {}], [5, right, {}], [48, 1, {}, "whoami"])
        replies = [await client.receive()]
        if first == "right":
            assert replies[0][0] == 2
            replies = [await client.receive()]
        reason = "wamp.error.protocol_violation" if first == "right" else FAILED
        assert replies[0][::2] == [3, reason]
        assert await client.expect_close() in (1000, 1002)
        assert client.take_all() == []


async def test_an_identity_provider_may_still_say_no() -> None:
    app = Application()
    requirement = CRAAuthRequirement("secret", "role", "provider")
    app.set_cra_handlers(lambda session: requirement, refuse_all)
    assert await login_refusal(app, authid="joe", secret="secret") == FAILED


# ---- which method


def with_both() -> Application:
    app = with_cra(secret="secret123")
    app.set_ticket_authenticator(accept_ticket)
    return app


@pytest.mark.spec("AUT-02", "AUT-03")
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["ticket", "wampcra"], "ticket"),
        (["wampcra", "ticket"], "wampcra"),
        (["scram", "unheard-of", "wampcra"], "wampcra"),
        (["anonymous", "ticket"], "ticket"),
    ],
)
async def test_the_order_of_the_client_decides(offered: list[str], chosen: str) -> None:
    login = {"authid": "joe", "ticket": "ticket of joe", "secret": "secret123"}
    async with connect(with_both(), authmethods=offered, **login) as client:
        assert client.welcome["authmethod"] == chosen


@pytest.mark.spec("AUT-04", "ERR-no_matching_auth_method", "ERR-authentication_required")
async def test_no_common_method() -> None:
    app = with_both()
    for offered in (None, [], ["anonymous"]):
        assert await login_refusal(app, authmethods=offered) == "wamp.error.authentication_required"
    assert await login_refusal(app, authmethods=["scram"]) == "wamp.error.no_matching_auth_method"


def test_one_authenticator_of_a_kind() -> None:
    app = with_both()
    with pytest.raises(ConfigurationError, match="ticket"):
        app.set_ticket_authenticator(accept_ticket)
    with pytest.raises(ConfigurationError, match="CRA"):
        app.set_cra_handlers(accept_all, accept_all)
    app.set_authentication_handler(accept_all)
    with pytest.raises(ConfigurationError, match="handler"):
        app.set_authentication_handler(accept_all)


# ---- authenticators that fail


@pytest.mark.spec("ERR-authentication_failed")
@pytest.mark.parametrize("kind", ["transport", "ticket", "requirement", "identity", "handler"])
@pytest.mark.parametrize("error", [KeyError("secret"), WAMPError("com.app.banned", ("go away",))])
async def test_what_an_authenticator_raises(
    kind: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(session: Session, ticket: str = "") -> Any:
        raise error

    app = Application()
    requirement = CRAAuthRequirement("secret123", "role", "provider")
    if kind == "transport":
        app.add_transport_authenticator(fails)
        app.add_transport_authenticator(accept_all)
    elif kind == "ticket":
        app.set_ticket_authenticator(fails)
    elif kind == "requirement":
        app.set_cra_handlers(fails, accept_all)
    elif kind == "identity":
        app.set_cra_handlers(lambda session: requirement, fails)
    else:
        app.set_authentication_handler(fails)
    login = {"ticket": "secret"} if kind == "ticket" else {"secret": "secret123"}
    reason = await login_refusal(app, authid="joe", **login)
    if isinstance(error, WAMPError):
        assert reason == "com.app.banned"
    else:
        assert reason == FAILED
        assert "an authenticator failed" in caplog.text


# ---- the exchange itself


@pytest.mark.spec("AUT-07", "SES-12", "VIO-05")
@pytest.mark.parametrize(
    "message",
    [
        [1, "realm1", {"roles": {"caller": {}}}],
        [48, 1, {}, "procedure"],
        [6, {}, "wamp.close.normal"],
        [5, "signature"],
        [5, 5, {}],
    ],
)
async def test_anything_else_instead_of_authenticate(message: list[Any]) -> None:
    async with connect(with_ticket(), None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}])
        assert (await client.receive())[0] == 4
        await client.send(message)
        abort = await client.receive()
        assert abort[0] == 3
        assert abort[2] == "wamp.error.protocol_violation"
        assert await client.expect_close() == 1002


@pytest.mark.spec("AUT-07")
async def test_authenticate_without_a_challenge() -> None:
    async with connect(with_ticket(), None) as client:
        await client.send([5, "ticket of joe", {}])
        assert (await client.receive())[2] == "wamp.error.protocol_violation"
    async with connect(Application()) as client:
        await client.send([5, "ticket of joe", {}])
        assert (await client.receive())[2] == "wamp.error.protocol_violation"


@pytest.mark.spec("AUT-09")
async def test_the_client_gives_up() -> None:
    async with connect(with_ticket(), None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}])
        await client.receive()
        await client.send([3, {}, "wamp.error.cannot_authenticate"])
        assert await client.expect_close() == 1000
        assert client.take_all() == []


async def test_the_client_vanishes_while_it_is_challenged() -> None:
    app = with_ticket()
    async with connect(app, None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}])
        await client.receive()
    assert not connections_of(app)


@pytest.mark.spec("SES-14")
async def test_deadlines() -> None:
    limits = Limits(hello_timeout=0.05, authentication_timeout=0.05)
    async with connect(Application(limits=limits), None) as client:
        assert (await client.receive())[2] == "wamp.error.protocol_violation"
        assert await client.expect_close() == 1002

    app = Application(limits=limits)
    app.set_ticket_authenticator(accept_ticket)
    async with connect(app, None) as client:
        await client.send([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}])
        assert (await client.receive())[0] == 4
        assert (await client.receive())[2] == FAILED
        assert await client.expect_close() == 1000

    async def takes_for_ever(session: Session) -> None:
        await anyio.sleep_forever()

    app = Application(limits=limits)
    app.add_transport_authenticator(takes_for_ever)
    assert await login_refusal(app) == FAILED


# ---- custom authentication


@asynccontextmanager
async def custom(handler: Any, **login: Any) -> AsyncIterator[Client]:
    app = whoami(Application())
    app.set_authentication_handler(handler)
    app.add_default_arg("db", {"joe": "the ticket"})
    async with connect(app, **login) as client:
        yield client


async def test_a_custom_handler() -> None:
    async def returns(session: Session, db: dict[str, str]) -> Any:
        session.auth_id, session.auth_role = "joe", "friend"
        session.auth_provider = "custom"
        return db

    async def marks(session: Session) -> None:
        await session.mark_authenticated("marked")

    async def marks_nobody(session: Session) -> None:
        await session.mark_authenticated()

    async def challenges(session: Session, db: dict[str, str]) -> Any:
        signature, extra = await session.challenge("ticket")
        assert extra == {}
        session.auth_method = "ticket"
        return signature if signature == db[session.auth_id or ""] else None

    async with custom(returns) as client:
        assert (await client.call("whoami")).kwargs == {
            "identity": {"joe": "the ticket"},
            "auth_id": "joe",
            "auth_method": "anonymous",
            "auth_role": "friend",
            "auth_provider": "custom",
        }
    async with custom(marks) as client:
        assert (await client.call("whoami")).kwargs["identity"] == "marked"
    async with custom(marks_nobody) as client:
        assert (await client.call("whoami")).kwargs["identity"] is None
    async with custom(challenges, authid="joe", ticket="the ticket") as client:
        assert client.welcome["authmethod"] == "ticket"


async def test_a_custom_handler_that_refuses() -> None:
    async def aborts(session: Session) -> None:
        await session.abort("com.app.closed", "come back later")

    async def aborts_shortly(session: Session) -> None:
        await session.abort()

    for handler, reason, message in (
        (aborts, "com.app.closed", "come back later"),
        (aborts_shortly, "wamp.error.not_authorized", "wamp.error.not_authorized"),
        (refuse_all, FAILED, "authentication failed"),
    ):
        with pytest.raises(WAMPError) as refused:
            async with custom(handler):
                pass
        assert (refused.value.uri, refused.value.args) == (reason, (message,))
