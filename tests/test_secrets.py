"""Nothing of a ticket, a signature, a secret or a cookie gets into a log, a repr, or to others."""

from __future__ import annotations

import gc
import json
import logging
import types
from base64 import b64decode
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from serverwamp import (
    Application,
    CRAAuthRequirement,
    Realm,
    SCRAMAuthRequirement,
    Session,
    WAMPError,
    derive_cra_secret,
    scram_credential,
)
from serverwamp.protocol import messages
from serverwamp.protocol.auth import cra, scram
from serverwamp.protocol.serializers import SUBPROTOCOLS, serializer_for
from serverwamp.testing import Client, connect

SECRETS = {
    "ticket": "Txhsecretofaticket",
    "secret": "Sxhsecretofasignature",
    "derived": derive_cra_secret("Sxhsecretofasignature", "salt"),
    "cookie": "Cxhsecretofacookie",
    "header": "Hxhsecretofaheader",
    "extra": "Exhsecretofanextra",
    "query": "Qxhsecretofaquery",
}

STORED = scram_credential(SECRETS["secret"], kdf="pbkdf2", iterations=10)
SECRETS.update({f"scram {name}": STORED[name] for name in ("stored_key", "server_key")})
NONCE = "egVDf3DMJh0="


class Failure(Exception):
    """What an authenticator raises; its text is not ours to hide."""


def returns(session: Session) -> str:
    return "identity"


def refuses(session: Session) -> None:
    return None


def fails(session: Session) -> None:
    raise Failure("the database is down")


def bans(session: Session) -> None:
    raise WAMPError("com.app.banned", ["go away"])


OUTCOMES = {"returns": returns, "refuses": refuses, "fails": fails, "bans": bans}


def by_ticket(app: Application, outcome: Any) -> None:
    def authenticator(session: Session, ticket: str) -> Any:
        return outcome(session) if ticket == SECRETS["ticket"] else None

    app.set_ticket_authenticator(authenticator)


def by_cra(app: Application, outcome: Any) -> None:
    app.set_cra_handlers(lambda session: CRAAuthRequirement(SECRETS["secret"]), outcome)


def by_salted_cra(app: Application, outcome: Any) -> None:
    requirement = CRAAuthRequirement(SECRETS["derived"], salt="salt")
    app.set_cra_handlers(lambda session: requirement, outcome)


def by_cookie(app: Application, outcome: Any) -> None:
    def authenticator(session: Session) -> Any:
        cookies = session.connection.transport_info["http_cookies"]
        return outcome(session) if cookies["login"] == SECRETS["cookie"] else None

    app.add_transport_authenticator(authenticator)


def by_scram(app: Application, outcome: Any) -> None:
    requirement = SCRAMAuthRequirement(**STORED)
    app.set_scram_handlers(lambda session: requirement, outcome)


def by_handler(app: Application, outcome: Any) -> None:
    async def handler(session: Session) -> Any:
        ticket, extra = await session.challenge("ticket", {"hint": "the usual"})
        known = ticket == SECRETS["ticket"] and extra.get("second") == SECRETS["extra"]
        return outcome(session) if known else None

    app.set_authentication_handler(handler)


def found_in(text: str, signatures: Collection[str] = ()) -> list[str]:
    return [secret for secret in (*SECRETS.values(), *signatures) if secret in text]


def told(records: list[logging.LogRecord]) -> str:
    """Return everything that a formatter could make of log records."""
    formatter = logging.Formatter("%(name)s %(threadName)s %(message)s")
    return "\n".join(
        f"{formatter.format(record)} {record.args!r} {record.exc_info!r}" for record in records
    )


def scram_proof(challenge: dict[str, Any]) -> str:
    salt, iterations = challenge["salt"], challenge["iterations"]
    salted = scram.salted_password(SECRETS["secret"], b64decode(salt), "pbkdf2", iterations)
    message = scram.auth_message("joe", NONCE, challenge["nonce"], salt, iterations)
    return scram.client_proof(salted, message)


async def log_in(client: Client, *, is_right: bool) -> str | None:
    """Join with every secret there is; return what was signed."""
    extra = {"second": SECRETS["extra"], "nonce": NONCE}
    details = {
        "roles": {"caller": {}},
        "authid": "joe",
        "authmethods": ["ticket", "wampcra", "wamp-scram"],
        "authextra": extra,
    }
    await client.send([1, "realm1", details])
    message = await client.receive()
    signature = None
    if message[0] == 4:
        if message[1] == "wampcra":
            secret = SECRETS["derived" if "salt" in message[2] else "secret"]
            signature = cra.cra_signature(secret, message[2]["challenge"])
        elif message[1] == "wamp-scram":
            signature = scram_proof(message[2])
            extra["nonce"] = message[2]["nonce"]
        else:
            signature = SECRETS["ticket"]
        wrong = f"{signature[:-2]}--"  # all of it but the end
        await client.send([5, signature if is_right else wrong, extra])
        message = await client.receive()
    assert message[0] in (2, 3)
    if message[0] == 2:
        await client.call("com.app.whoami")
        await client.send([5, signature or "", extra])  # which is out of place
        assert (await client.receive())[0] == 3
    return signature


@pytest.mark.spec("AUT-08")
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize(
    "method", [by_ticket, by_cra, by_salted_cra, by_cookie, by_handler, by_scram]
)
async def test_secrets_of_logins(
    method: Any, outcome: Any, is_right: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(debug=True)
    method(app, outcome)
    app.route("com.app.whoami")(lambda session: repr(session))
    cookies = {"login": SECRETS["cookie"] if is_right else "none"}
    with caplog.at_level(logging.DEBUG, logger=""):
        async with connect(
            app,
            None,
            cookies=cookies,
            headers={"authorization": f"Bearer {SECRETS['header']}"},
            query_string=f"token={SECRETS['query']}",
        ) as client:
            signature = await log_in(client, is_right=is_right)
    signed = {signature[:-2]} if signature else set()
    received = "".join(line for line in client.transcript if line.startswith("server:"))
    assert not found_in(received, signed)
    assert not found_in(told(caplog.records), signed)
    if outcome is fails and is_right:
        assert "the database is down" in told(caplog.records)
        assert "the database" not in received


MALFORMED = [
    [5, "{}"],
    [5, "{}", "{}"],
    [5, "{}", {"a": 1}, "{}"],
    [5, {"{}": "{}"}, {}],
    [5, ["{}"], {}],
    ["{}", {}],
    [5.5, "{}", {}],
    [99, "{}", {}],
    {"5": "{}"},
    "{}",
    [1, "realm1", {"roles": {"caller": {}}, "authextra": "{}"}],
    [1, "realm1", {"roles": {"caller": {}}, "authextra": {"{}": "{}"}}],
    [1, "realm1", {"roles": {"{}": "{}"}, "authextra": {"{}": "{}"}}],
    [4, "ticket", {"{}": "{}"}],
    [48, 1, {}, "procedure", ["{}"], {"{}": "{}"}],
]


def filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {filled(key): filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    return value.replace("{}", SECRETS["ticket"]) if isinstance(value, str) else value


@pytest.mark.parametrize("frame", MALFORMED, ids=str)
@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
async def test_secrets_in_malformed_messages(
    subprotocol: str, frame: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application(debug=True)
    by_ticket(app, returns)
    with caplog.at_level(logging.DEBUG, logger=""):
        async with connect(app, None, subprotocol=subprotocol) as client:
            await client.send([1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}])
            assert (await client.receive())[0] == 4
            await client.send(filled(frame))
            abort = await client.receive()
            assert abort[::2] == [3, "wamp.error.protocol_violation"]
    assert not found_in(str(abort))
    assert not found_in(told(caplog.records))


async def test_what_clients_send_is_cut_short_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(allow_default_realm=False)
    realm = Realm("com.app.realm")
    realm.set_ticket_authenticator(lambda session, ticket: None)
    app.add_realm(realm)
    details = {"roles": {"caller": {}}, "authmethods": ["ticket"], "authid": "x" * 10_000}
    with caplog.at_level(logging.DEBUG):
        async with connect(app, None) as client:
            await client.send([1, "com.app.realm", details])
            await client.receive()
            await client.send([5, "guess", {}])
            assert (await client.receive())[0] == 3
        async with connect(app, None) as client:
            await client.send([1, f"com.app.{'x' * 10_000}", details])
            assert (await client.receive())[0] == 3
        async with connect(app, None) as client:
            await client.send([1, "com.app.realm", {"roles": {"caller": {}}, "x" * 10_000: 1}])
            await client.send([32, 1, {"match": "x" * 10_000}, "topic"])
            assert (await client.receive())[0] == 3
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) >= 3
    assert max(map(len, messages)) < 500


@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_secrets_in_truncated_frames(cut: int, caplog: pytest.LogCaptureFixture) -> None:
    app = Application()
    by_ticket(app, returns)
    whole = json.dumps([5, SECRETS["ticket"], {}])
    with caplog.at_level(logging.DEBUG, logger=""):
        for subprotocol in ("wamp.2.json", "wamp.2.json.batched"):
            async with connect(app, None, subprotocol=subprotocol) as client:
                hello = [1, "realm1", {"roles": {"caller": {}}, "authmethods": ["ticket"]}]
                await client.send(hello)
                await client.receive()
                await client.send_frame(whole[:-cut] if cut < len(whole) else whole[cut:])
                assert not found_in(str(await client.receive()))
    assert not found_in(told(caplog.records))


def objects_from(*roots: Any) -> Iterator[Any]:
    """Give what can be reached from `roots`, but for modules, classes and plain data."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, (types.ModuleType, type)):
            continue
        seen.add(id(item))
        if type(item).__module__.partition(".")[0] == "serverwamp":
            yield item
        if isinstance(item, types.FunctionType):  # its globals lead to everything that is imported
            waiting += [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
        elif not isinstance(item, (str, bytes, types.CodeType)):
            waiting.extend(gc.get_referents(item))


async def test_secrets_in_what_a_session_holds() -> None:
    seen: dict[type, str] = {}
    app = Application()

    def authenticator(session: Session) -> CRAAuthRequirement:
        requirement = CRAAuthRequirement(SECRETS["secret"])
        session["requirement"] = requirement
        session["another"] = SCRAMAuthRequirement(**STORED)
        return requirement

    app.set_cra_handlers(authenticator, returns)

    @app.route("com.app.whoami")
    async def whoami(session: Session, value: Any = None) -> None:
        for item in objects_from(session, app):
            text = repr(item)
            assert not found_in(text), type(item)
            seen[type(item)] = text

    async with connect(
        app, None, cookies={"login": SECRETS["cookie"]}, query_string=SECRETS["query"]
    ) as client:
        await log_in(client, is_right=True)
    names = {kind.__name__ for kind in seen}
    assert {"Session", "Connection", "Application", "SessionEngine", "CRAAuthRequirement"} <= names
    assert "SCRAMAuthRequirement" in names


def test_secrets_in_messages() -> None:
    serializer = serializer_for("wamp.2.json")
    for wire in (
        [1, "r", {"roles": {"caller": {}}, "authid": "joe", "authextra": {"a": SECRETS["extra"]}}],
        [5, SECRETS["ticket"], {"a": SECRETS["extra"]}],
    ):
        message = serializer.decode(json.dumps(wire))
        assert not found_in(f"{message!r} {message}")
    assert "joe" in repr(messages.Hello("r", messages.HelloDetails(authid="joe")))
