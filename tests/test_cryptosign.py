"""Logins by cryptosign: the client has a private key, and the server knows the public one."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from serverwamp import (
    Application,
    ConfigurationError,
    CryptosignAuthRequirement,
    Session,
    WAMPError,
    cryptosign_credential,
)
from serverwamp.protocol.auth import cryptosign
from serverwamp.testing import Client, connect

EXAMPLES = json.loads((Path(__file__).parent / "data" / "worked_examples.json").read_text("utf-8"))
EXAMPLE = EXAMPLES["cryptosign"]
FAILED = "wamp.error.authentication_failed"
JOES = "4a" * 32
EVES = "ee" * 32
PUBLIC: dict[str, Any] = {key: cryptosign_credential(key)["public_key"] for key in (JOES, EVES)}


# ---- the mathematics


@pytest.mark.spec("CSG-03", "CSG-07")
def test_the_worked_example() -> None:
    private, public, challenge = (
        EXAMPLE[name] for name in ("private_key", "public_key", "challenge")
    )
    assert cryptosign.public_key_of(private) == public
    signature = EXAMPLE["signature"]
    assert cryptosign.signed_challenge(private, challenge) == signature
    assert cryptosign.is_signed_challenge(public, challenge, signature)
    assert cryptosign.is_signed_challenge(public, challenge, signature.upper())
    bound = EXAMPLE["signature_with_channel_binding"]
    channel = EXAMPLE["channel_id"]
    assert cryptosign.signed_challenge(private, challenge, channel) == bound
    assert cryptosign.is_signed_challenge(public, challenge, bound, channel)
    assert not cryptosign.is_signed_challenge(public, challenge, bound)


@pytest.mark.spec("CSG-03")
@pytest.mark.parametrize(
    "signature",
    [
        "",
        "guess",
        "zz" * 96,
        "00" * 96,
        EXAMPLE["signature"][:-2],
        EXAMPLE["signature"] + "00",
        EXAMPLE["signature"][:128],
        EXAMPLE["signature"] + "\n",
        "00" + EXAMPLE["signature"][2:],
        EXAMPLE["signature"][:-2] + "00",
        "\uff10" * 192,
    ],
    ids=range(11),
)
def test_what_is_no_signature(signature: str) -> None:
    public, challenge = EXAMPLE["public_key"], EXAMPLE["challenge"]
    assert not cryptosign.is_signed_challenge(public, challenge, signature)


@pytest.mark.spec("CSG-03")
@pytest.mark.parametrize("key", ["01" + "00" * 31, "00" * 32, "ec" + "ff" * 30 + "7f"])
def test_keys_that_would_sign_anything_sign_nothing(key: str) -> None:
    challenge = EXAMPLE["challenge"]
    forged = "01" + "00" * 63 + challenge
    assert not cryptosign.is_signed_challenge(key, challenge, forged)


def test_what_is_no_key() -> None:
    for key in ("", "4a", "zz" * 32, "4a" * 33):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            cryptosign_credential(key)


# ---- logging in


def with_cryptosign(private_key: str | None = None) -> Application:
    app = Application()

    def requirement(session: Session) -> CryptosignAuthRequirement | None:
        key = session.auth_extra.get("pubkey", PUBLIC[JOES]).lower()
        if session.auth_id not in (None, "joe", "joe-by-key"):
            return None
        if session.auth_id is None and key == PUBLIC[EVES]:
            return CryptosignAuthRequirement(key)  # by no name but its key
        if session.auth_id is None and key == PUBLIC[JOES]:
            session.auth_id = "joe-by-key"
        return CryptosignAuthRequirement(PUBLIC[JOES], "member", "database")

    app.set_cryptosign_handlers(
        requirement, lambda session: {"who": session.auth_id}, private_key=private_key
    )

    @app.route("whoami")
    async def whoami(session: Session) -> Any:
        return session.identity

    return app


async def challenged(client: Client, authid: str | None = "joe", **extra: Any) -> list[Any]:
    """Say HELLO, and return the answer."""
    details = {
        "roles": {"caller": {}},
        "authmethods": ["cryptosign"],
        "authid": authid,
        "authextra": {"pubkey": PUBLIC[JOES], **extra},
    }
    await client.send([1, "realm1", details])
    return await client.receive()


@pytest.mark.spec("CSG-01", "CSG-02", "CSG-03")
@pytest.mark.parametrize("subprotocol", ["wamp.2.json", "wamp.2.msgpack"])
async def test_login(subprotocol: str) -> None:
    login = {"authid": "joe", "private_key": JOES, "subprotocol": subprotocol}
    async with connect(with_cryptosign(), **login) as client:
        assert client.welcome["authmethod"] == "cryptosign"
        assert client.welcome["authid"] == "joe"
        assert client.welcome["authrole"] == "member"
        assert client.welcome["authprovider"] == "database"
        assert (await client.call("whoami")).kwargs == {"who": "joe"}


@pytest.mark.spec("CSG-04")
async def test_a_name_by_the_key() -> None:
    async with connect(with_cryptosign(), private_key=JOES) as client:
        assert client.welcome["authid"] == "joe-by-key"
    async with connect(with_cryptosign(), private_key=EVES) as client:
        assert client.welcome["authid"] == PUBLIC[EVES]


@pytest.mark.spec("CSG-01", "CSG-02", "CSG-06")
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"channel_binding": None, "challenge": None, "trustroot": None},
        {"channel_binding": "tls-unique"},
        {"challenge": "20" * 32, "certificates": [1]},
        {"pubkey": None},
        {"pubkey": PUBLIC[JOES].upper()},
    ],
    ids=str,
)
async def test_the_challenge(extra: dict[str, Any]) -> None:
    seen = set()
    for _ in range(2):
        async with connect(with_cryptosign(), None) as client:
            kind, method, told = await challenged(client, **extra)
            assert (kind, method, set(told)) == (4, "cryptosign", {"challenge"})
            assert cryptosign.is_key(told["challenge"])
            seen.add(told["challenge"])
            signed = cryptosign.signed_challenge(JOES, told["challenge"])
            await client.send([5, signed, {}])
            assert (await client.receive())[0] == 2
    assert len(seen) == 2


@pytest.mark.spec("CSG-05")
async def test_the_server_proves_who_it_is() -> None:
    servers, asked = "5e" * 32, "20" * 32
    app = with_cryptosign(private_key=servers)
    async with connect(app, None) as client:
        _, _, told = await challenged(client, challenge=asked)
        assert set(told) == {"challenge", "pubkey", "signature"}
        assert told["pubkey"] == cryptosign_credential(servers)["public_key"]
        assert cryptosign.is_signed_challenge(told["pubkey"], asked, told["signature"])
        await client.send([5, cryptosign.signed_challenge(JOES, told["challenge"]), {}])
        assert (await client.receive())[0] == 2
    for challenge in (None, "", "20", 5, "zz" * 32):
        async with connect(app, None) as client:
            _, _, told = await challenged(client, challenge=challenge)
            assert set(told) == {"challenge"}


def test_a_private_key_of_the_server_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="64 hexadecimal"):
        with_cryptosign(private_key="5e")


@pytest.mark.spec("CSG-01")
@pytest.mark.parametrize("pubkey", ["", "4a", 5, ["4a" * 32], "zz" * 32])
async def test_what_is_announced_and_is_no_key(pubkey: Any) -> None:
    async with connect(with_cryptosign(), None) as client:
        assert (await challenged(client, pubkey=pubkey))[::2] == [3, FAILED]


@pytest.mark.spec("CSG-03", "AUT-06")
async def test_wrong_keys_and_unknown_names_look_alike(caplog: pytest.LogCaptureFixture) -> None:
    app = with_cryptosign()
    seen = []
    with caplog.at_level(logging.DEBUG):
        for authid, announced in (
            ("joe", JOES),
            ("joe", EVES),
            ("nobody", JOES),
            ("nobody", EVES),
        ):
            caplog.clear()
            async with connect(app, None) as client:
                kind, method, told = await challenged(client, authid, pubkey=PUBLIC[announced])
                signed = cryptosign.signed_challenge(EVES, told["challenge"])
                await client.send([5, signed, {}])
                abort = await client.receive()
                assert await client.expect_close() == 1000
            logged = [(record.levelname, record.msg) for record in caplog.records]
            seen.append([kind, method, len(told["challenge"]), abort, logged])
    assert seen.count(seen[0]) == len(seen)
    assert seen[0][3][::2] == [3, FAILED]


@pytest.mark.spec("CSG-03")
async def test_the_key_that_was_announced_is_the_one() -> None:
    async with connect(with_cryptosign(), None) as client:
        _, _, told = await challenged(client, pubkey=PUBLIC[EVES])
        signed = cryptosign.signed_challenge(JOES, told["challenge"])
        await client.send([5, signed, {}])
        assert (await client.receive())[2] == FAILED


@pytest.mark.spec("CSG-03", "AUT-08")
async def test_a_signature_is_good_for_its_own_session_only() -> None:
    app = with_cryptosign()
    async with connect(app, None) as first, connect(app, None) as second:
        _, _, told = await challenged(first)
        await challenged(second)
        signed = cryptosign.signed_challenge(JOES, told["challenge"])
        await second.send([5, signed, {}])
        assert (await second.receive())[2] == FAILED
        await first.send([5, signed, {}])
        assert (await first.receive())[0] == 2
        async with connect(app, None) as again:
            await challenged(again)
            await again.send([5, signed, {}])
            assert (await again.receive())[2] == FAILED


async def test_who_has_no_key_and_whom_the_application_refuses() -> None:
    app = Application()
    app.set_cryptosign_handlers(
        lambda session: CryptosignAuthRequirement(PUBLIC[JOES] if session.auth_id else None),
        lambda session: None,
    )
    for authid in (None, "joe"):
        with pytest.raises(WAMPError, match=FAILED):
            async with connect(app, authid=authid, private_key=JOES):
                pass


@pytest.mark.spec("AUT-02", "AUT-03")
@pytest.mark.parametrize("offered", [["cryptosign", "ticket"], ["ticket", "cryptosign"]])
async def test_beside_other_methods(offered: list[str]) -> None:
    app = with_cryptosign()
    app.set_ticket_authenticator(lambda session, ticket: "joe" if ticket == "joes" else None)
    login = {"authid": "joe", "private_key": JOES, "ticket": "joes"}
    async with connect(app, authmethods=offered, **login) as client:
        assert client.welcome["authmethod"] == offered[0]


def test_without_pynacl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serverwamp.protocol.auth.cryptosign", None)
    monkeypatch.delattr("serverwamp.protocol.auth.cryptosign")
    app = Application()
    with pytest.raises(ConfigurationError, match=r"serverwamp\[crypto\]"):
        app.set_cryptosign_handlers(lambda session: None, lambda session: None)
    with pytest.raises(ConfigurationError, match=r"serverwamp\[crypto\]"):
        cryptosign_credential(JOES)


def test_one_kind_of_handlers() -> None:
    app = with_cryptosign()
    with pytest.raises(ConfigurationError, match="cryptosign"):
        app.set_cryptosign_handlers(lambda session: None, lambda session: None)
