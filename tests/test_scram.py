"""Logins by SCRAM, in the dialect of the specification and in that of Autobahn."""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    SCRAMAuthRequirement,
    Session,
    WAMPError,
    scram_credential,
)
from serverwamp.protocol.auth import scram
from serverwamp.testing import Client, ExpectationFailed, connect

EXAMPLES = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text("utf-8"))
FAILED = "wamp.error.authentication_failed"
CHEAP: dict[str, dict[str, Any]] = {
    "argon2id13": {"kdf": "argon2id13", "iterations": 1, "memory": 64},
    "pbkdf2": {"kdf": "pbkdf2", "iterations": 50},
}
DIALECTS = ["wamp-scram", "scram"]


# ---- the mathematics


@pytest.mark.spec("SCR-06", "SCR-07", "SCR-08", "T-03")
@pytest.mark.parametrize("example", EXAMPLES["scram"].values(), ids=EXAMPLES["scram"])
def test_worked_examples(example: dict[str, Any]) -> None:
    salted = scram.salted_password(
        scram.saslprep(example["password"]),
        b64decode(example["salt"]),
        example["kdf"],
        example["iterations"],
        example.get("memory"),
    )
    assert salted.hex() == example["salted_password_hex"]
    assert scram.stored_key(salted).hex() == example["stored_key_hex"]
    assert scram.server_key(salted).hex() == example["server_key_hex"]
    message = scram.auth_message(
        example["user"],
        example["client_nonce"],
        example["nonce"],
        example["salt"],
        example["iterations"],
        channel_binding=example["channel_binding"],
        cbind_data=b64decode(example["cbind_data"] or ""),
    )
    assert message == example["auth_message"]
    proof = example["client_proof"]
    assert scram.client_proof(salted, message) == proof
    assert scram.is_client_proof(scram.stored_key(salted), message, proof)
    server_key = scram.server_key(salted)
    assert scram.server_signature(server_key, message) == example["server_signature"]


@pytest.mark.spec("T-03")
def test_the_worked_example_of_autobahn() -> None:
    example = EXAMPLES["scram_of_autobahn"]
    salt, iterations = example["salt"], example["iterations"]
    hashed = scram.salted_password(
        example["password"], b64decode(salt), "argon2id13", iterations, example["memory"]
    )
    salted = scram.autobahn_salted_password(hashed)
    message = scram.autobahn_auth_message(
        example["user"], example["client_nonce"], example["nonce"], salt, iterations
    )
    assert scram.client_proof(salted, message) == example["client_proof"]
    server_key = scram.server_key(salted)
    assert scram.server_signature(server_key, message) == example["server_signature"]


@pytest.mark.spec("SCR-06")
@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("user", "user"),
        ("USER", "USER"),
        ("I\u00adX", "IX"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("\U0001f600", "\U0001f600"),
        ("", ""),
    ],
)
def test_names_and_passwords_are_prepared(text: str, prepared: str) -> None:
    assert scram.saslprep(text) == prepared


@pytest.mark.spec("SCR-06")
@pytest.mark.parametrize("text", ["\u0007", "a\nb", "\u0627\u0031", "a\u0627", "\ufffd"])
def test_what_is_no_name_or_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it "):
        scram.saslprep(text)


@pytest.mark.parametrize("proof", ["", "guess", "====", "A" * 44, b64encode(b"x" * 33).decode()])
def test_what_is_no_proof(proof: str) -> None:
    assert not scram.is_client_proof(b"k" * 32, "message", proof)


def test_a_proof_has_nothing_behind_it() -> None:
    salted = scram.salted_password("pencil", b"salt", "pbkdf2", 5)
    stored, proof = scram.stored_key(salted), scram.client_proof(salted, "message")
    assert scram.is_client_proof(stored, "message", proof)
    longer = b64encode(b64decode(proof) + b"x").decode()
    assert not scram.is_client_proof(stored, "message", longer)


# ---- logging in


def with_scram(password: str = "pencil", *, authid: str = "joe", **kdf: Any) -> Application:
    app = Application()
    stored = json.loads(json.dumps(scram_credential(password, **(kdf or CHEAP["argon2id13"]))))
    requirement = SCRAMAuthRequirement(**stored, auth_role="member", auth_provider="database")
    app.set_scram_handlers(
        lambda session: requirement if session.auth_id == authid else None,
        lambda session: {"who": session.auth_id},
    )

    @app.route("whoami")
    async def whoami(session: Session) -> Any:
        return session.identity

    return app


async def challenged(
    client: Client, method: str, authid: str | None = "joe", **extra: Any
) -> list[Any]:
    """Say HELLO, and return the answer."""
    details = {
        "roles": {"caller": {}},
        "authmethods": [method],
        "authid": authid,
        "authextra": {"nonce": "egVDf3DMJh0=", **extra},
    }
    await client.send([1, "realm1", details])
    return await client.receive()


@pytest.mark.spec("SCR-01", "SCR-02", "SCR-03", "SCR-04", "T-03")
@pytest.mark.parametrize("method", DIALECTS)
async def test_login(method: str) -> None:
    async with connect(with_scram(), authid="joe", password="pencil", authmethods=[method]) as c:
        assert c.welcome["authmethod"] == method
        assert c.welcome["authrole"] == "member"
        assert c.welcome["authprovider"] == "database"
        assert (await c.call("whoami")).kwargs == {"who": "joe"}


@pytest.mark.spec("SCR-02", "SCR-07")
async def test_pbkdf2_is_for_the_specified_dialect_alone() -> None:
    app = with_scram(**CHEAP["pbkdf2"])
    async with connect(app, authid="joe", password="pencil") as client:
        assert client.welcome["authmethod"] == "wamp-scram"
    with pytest.raises(WAMPError, match=FAILED):
        async with connect(app, authid="joe", password="pencil", authmethods=["scram"]):
            pass


@pytest.mark.spec("SCR-06")
@pytest.mark.parametrize("authid", ["us=er,x", "zo\u00eb", "I\u00adX"])
async def test_names_that_have_to_be_escaped(authid: str) -> None:
    app = with_scram("p\u00aassw\u00f6rd", authid=authid)
    async with connect(app, authid=authid, password="passw\u00f6rd") as client:
        assert client.welcome["authid"] == authid


@pytest.mark.spec("SCR-06", "T-03")
@pytest.mark.parametrize("method", DIALECTS)
async def test_a_password_that_is_prepared_in_one_dialect_only(method: str) -> None:
    app = with_scram("p\u00ad\u2168")
    login = {"authid": "joe", "password": "p\u00ad\u2168", "authmethods": [method]}
    async with connect(app, **login) as client:
        assert client.welcome["authmethod"] == method


@pytest.mark.spec("SCR-02", "SCR-03", "SCR-04")
async def test_the_exchange() -> None:
    stored = scram_credential("pencil", **CHEAP["argon2id13"])
    app = Application()
    app.set_scram_handlers(lambda session: SCRAMAuthRequirement(**stored), lambda session: "joe")
    async with connect(app, None) as client:
        kind, method, extra = await challenged(client, "wamp-scram", channel_binding=None)
        assert (kind, method) == (4, "wamp-scram")
        nonce = extra.pop("nonce")
        assert nonce.startswith("egVDf3DMJh0=")
        assert len(b64decode(nonce.removeprefix("egVDf3DMJh0="), validate=True)) == 16
        assert extra == {name: stored[name] for name in ("salt", "kdf", "iterations", "memory")}
        salt = stored["salt"]
        salted = scram.salted_password("pencil", b64decode(salt), "argon2id13", 1, 64)
        message = scram.auth_message("joe", "egVDf3DMJh0=", nonce, salt, 1)
        answer = {"nonce": nonce, "channel_binding": None, "cbind_data": None}
        await client.send([5, scram.client_proof(salted, message), answer])
        kind, _, welcome = await client.receive()
        signature = scram.server_signature(scram.server_key(salted), message)
        assert (kind, welcome["authextra"]) == (2, {"verifier": f"v={signature}"})


@pytest.mark.spec("T-03")
async def test_the_exchange_with_autobahn() -> None:
    """What Autobahn|Python doesn't know in a challenge, it refuses."""
    async with connect(with_scram(), None) as client:
        kind, method, extra = await challenged(client, "scram")
        assert (kind, method) == (4, "scram")
        assert set(extra) == {"nonce", "salt", "kdf", "iterations", "memory"}
        assert extra["kdf"] == "argon2id-13"
    async with connect(
        with_scram(), authid="joe", password="pencil", authmethods=["scram"]
    ) as client:
        assert set(client.welcome["authextra"]) == {"scram_server_signature"}


@pytest.mark.spec("SCR-03")
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"nonce": "egVDf3DMJh0=SBmkFIh7sSo="},
        {"channel_binding": "tls-unique"},
        {"cbind_data": "AAECAwQFBgcICQoL"},
    ],
    ids=str,
)
async def test_a_right_proof_with_something_else(answer: dict[str, Any]) -> None:
    app = with_scram()
    async with connect(app, None) as client:
        _, _, extra = await challenged(client, "wamp-scram")
        salt = extra["salt"]
        salted = scram.salted_password("pencil", b64decode(salt), "argon2id13", 1, 64)
        message = scram.auth_message("joe", "egVDf3DMJh0=", extra["nonce"], salt, 1)
        told = {"nonce": extra["nonce"], **answer} if answer else {}
        await client.send([5, scram.client_proof(salted, message), told])
        assert (await client.receive())[2] == FAILED


@pytest.mark.spec("SCR-05")
@pytest.mark.parametrize(
    "extra",
    [
        {"channel_binding": "tls-unique"},
        {"nonce": None},
        {"nonce": ""},
        {"nonce": "a,b"},
        {"nonce": 5},
        {"nonce": "n\u00f6nce"},
        {"nonce": "x" * 1000},
    ],
    ids=lambda extra: str(extra)[:40],
)
async def test_what_isnt_challenged(extra: dict[str, Any]) -> None:
    for method in DIALECTS:
        async with connect(with_scram(), None) as client:
            abort = await challenged(client, method, **extra)
            assert abort[::2] == [3, FAILED]
    async with connect(with_scram(), None) as client:
        assert (await challenged(client, "wamp-scram", authid="a\nb"))[2] == FAILED


@pytest.mark.spec("SCR-04", "SCR-05", "AUT-06")
@pytest.mark.parametrize("method", DIALECTS)
@pytest.mark.parametrize("kdf", CHEAP)
async def test_wrong_passwords_and_unknown_names_look_alike(
    kdf: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = with_scram(**CHEAP[kdf])

    async def attempt(authid: str | None) -> tuple[Any, ...]:
        caplog.clear()
        async with connect(app, None) as client:
            kind, name, extra = await challenged(client, method, authid)
            nonce, salt = extra.pop("nonce"), extra.pop("salt")
            await client.send([5, b64encode(b"x" * 32).decode(), {"nonce": nonce}])
            abort = await client.receive()
            assert await client.expect_close() == 1000
        salts.append(salt)
        logged = [(record.levelname, record.msg) for record in caplog.records]
        return kind, name, extra, len(nonce), len(b64decode(salt)), abort, logged

    salts: list[str] = []
    with caplog.at_level(logging.DEBUG):
        expected = await attempt("joe")
        for authid in ("nobody", "somebody", None, "nobody", "joe"):
            assert await attempt(authid) == expected
    joe, nobody, somebody, nameless, again, joe_again = salts
    assert (joe, nobody) == (joe_again, again)
    assert len({joe, nobody, somebody, nameless}) == 4


@pytest.mark.spec("SCR-05")
async def test_nobody_before_anybody_is_challenged_as_by_default() -> None:
    app = Application()
    app.set_scram_handlers(lambda session: None, lambda session: "identity")
    salts = []
    for method in (*DIALECTS, "wamp-scram"):
        async with connect(app, None) as client:
            _, _, extra = await challenged(client, method)
            assert (extra["iterations"], extra["memory"]) == (3, 65536)
            salts.append(extra["salt"])
            await client.send([5, b64encode(bytes(32)).decode(), {"nonce": extra["nonce"]}])
            assert (await client.receive())[2] == FAILED
    assert len(set(salts)) == 1
    assert len(b64decode(salts[0])) == 16


async def test_an_identity_provider_may_still_say_no() -> None:
    app = Application()
    requirement = SCRAMAuthRequirement(**scram_credential("pencil", **CHEAP["pbkdf2"]))
    app.set_scram_handlers(lambda session: requirement, lambda session: None)
    with pytest.raises(WAMPError, match=FAILED):
        async with connect(app, authid="joe", password="pencil"):
            pass


@pytest.mark.spec("AUT-08")
async def test_a_proof_is_good_for_its_own_challenge_only() -> None:
    app = with_scram()
    async with connect(app, None) as first, connect(app, None) as second:
        answers = []
        for client in (first, second):
            _, _, extra = await challenged(client, "wamp-scram")
            salt, nonce = extra["salt"], extra["nonce"]
            salted = scram.salted_password("pencil", b64decode(salt), "argon2id13", 1, 64)
            message = scram.auth_message("joe", "egVDf3DMJh0=", nonce, salt, 1)
            answers.append([5, scram.client_proof(salted, message), {"nonce": nonce}])
        await second.send([5, answers[0][1], answers[1][2]])
        assert (await second.receive())[2] == FAILED
        await first.send(answers[0])
        assert (await first.receive())[0] == 2


async def test_the_client_for_tests_wants_the_server_to_prove_itself() -> None:
    stored = scram_credential("pencil", **CHEAP["pbkdf2"])
    wrong = {**stored, "server_key": b64encode(b"k" * 32).decode()}
    app = Application()
    app.set_scram_handlers(lambda session: SCRAMAuthRequirement(**wrong), lambda session: "joe")
    with pytest.raises(ExpectationFailed, match="proved"):
        async with connect(app, authid="joe", password="pencil"):
            pass


def test_what_is_stored() -> None:
    stored = scram_credential("pencil", **CHEAP["argon2id13"])
    again = scram_credential("pencil", **CHEAP["argon2id13"])
    assert not {stored["salt"], stored["stored_key"], stored["server_key"]} & set(again.values())
    assert "pencil" not in json.dumps(stored)
    assert json.loads(json.dumps(stored)) == stored
    requirement = SCRAMAuthRequirement(**stored)
    for name in ("stored_key", "server_key", "autobahn_stored_key", "autobahn_server_key"):
        assert stored[name] not in repr(requirement)
    with pytest.raises(ValueError, match="characters"):
        scram_credential("a\nb", **CHEAP["pbkdf2"])
    salt, prepared = b64decode(scram_credential("p", **CHEAP["pbkdf2"])["salt"]), "pencil"
    assert len(salt) == 16
    hashed = scram.salted_password(prepared, b64decode(stored["salt"]), "argon2id13", 1, 64)
    assert stored["stored_key"] == b64encode(scram.stored_key(hashed)).decode()


def test_argon2_without_pynacl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nacl", None)
    with pytest.raises(ConfigurationError, match=r"serverwamp\[crypto\]"):
        scram_credential("pencil", **CHEAP["argon2id13"])
    assert scram_credential("pencil", **CHEAP["pbkdf2"])["kdf"] == "pbkdf2"


def test_one_kind_of_handlers() -> None:
    app = with_scram()
    with pytest.raises(ConfigurationError, match="SCRAM"):
        app.set_scram_handlers(lambda session: None, lambda session: None)
