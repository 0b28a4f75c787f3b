"""The ways to reach Redis: passwords, users, TLS and Sentinels."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
import trustme

from serverwamp import Application, ConfigurationError
from serverwamp.backplanes import RedisBackplane
from serverwamp.backplanes.redis_address import RedisAddress
from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable
from serverwamp.testing import connect
from tests.redis_servers import RedisServer, application, redis_server


async def check(url: str, **options: object) -> None:
    app = application(url, **options)
    async with app.running(), connect(app) as client:
        await client.subscribe("com.topic")
        await client.publish("com.topic", ["a"], exclude_me=False, acknowledge=True)
        assert (await client.expect_event()).args == ("a",)


async def check_refused(url: str, reason: str, **options: object) -> None:
    app = application(url, start_timeout=0.3, **options)
    with pytest.raises(BackplaneUnavailable, match=reason) as refused:
        async with app.running():
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "URL such as"),
        ("localhost:6379", "URL such as"),
        ("redis://", "URL such as"),
        ("redis://localhost:port", "URL such as"),
        ("redis+unix://localhost", "URL such as"),
        ("redis://one:1,two:2", r"redis\+sentinel"),
        ("redis+sentinel://one:1,two:2", "primary's name"),
    ],
)
def test_urls_that_are_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RedisBackplane(url)


def test_an_ssl_context_without_tls() -> None:
    with pytest.raises(ConfigurationError, match="rediss"):
        RedisBackplane("redis://localhost", ssl_context=ssl.create_default_context())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "Redis at localhost:6379"),
        ("rediss://user:secret@example.com:7000/", "Redis at example.com:7000"),
        ("redis://[::1]", "Redis at ::1:6379"),
        ("redis://:secret@[::1]:7000", "Redis at ::1:7000"),
        (
            "redis+sentinel://u:secret@one,two:7000/shop",
            "the Redis 'shop' of one:26379, two:7000",
        ),
    ],
)
def test_urls_are_shown_without_the_password(url: str, shown: str) -> None:
    address = RedisAddress(url, None, None, connect_timeout=1, reply_timeout=1)
    assert str(address) == shown


# ---- passwords and users


async def test_a_password() -> None:
    with redis_server("--requirepass", "secret:@/") as server:
        await check(server.url.replace("//", "//:secret%3A%40%2F@"))
        await check_refused(server.url.replace("//", "//:secret@"), "WRONGPASS|invalid username")


RULES = ["on", ">secret", "resetchannels", "&shop:*", "+publish", "+subscribe", "+unsubscribe"]


async def test_a_user_with_few_permissions() -> None:
    with redis_server() as server:
        server.cli("ACL", "SETUSER", "shop", *RULES)
        url = server.url.replace("//", "//shop:secret@")
        await check(url, prefix="shop")
        await check_refused(url, "channel", prefix="other")


async def test_a_user_who_loses_a_permission() -> None:
    with redis_server() as server:
        server.cli("ACL", "SETUSER", "shop", *RULES)
        app = application(server.url.replace("//", "//shop:secret@"), prefix="shop")
        async with app.running():
            await app.publish("com.topic")
            server.cli("ACL", "SETUSER", "shop", "-publish")
            with pytest.raises(BackplaneUnavailable, match=r"refuses|reached"):
                await app.publish("com.topic")


# ---- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(folder / "cert.pem")]
    options += ["--tls-key-file", str(folder / "key.pem")]
    options += ["--tls-ca-cert-file", str(folder / "ca.pem")]
    with redis_server(*options) as server:
        server.url = f"rediss://127.0.0.1:{port}"
        yield server


async def test_tls_with_an_authority_of_ones_own(
    tls_server: RedisServer, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    await check(tls_server.url, ssl_context=context)


async def test_tls_with_an_unknown_authority(tls_server: RedisServer) -> None:
    await check_refused(tls_server.url, "certificate")


async def test_tls_where_plain_text_is_spoken() -> None:
    with redis_server() as server:
        await check_refused(server.url.replace("redis:", "rediss:"), "reached")


# ---- Sentinels


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, str]]:
    """A primary, its replica, and the URL of their Sentinel."""
    with ExitStack() as stack:
        primary = stack.enter_context(redis_server())
        replica = stack.enter_context(
            redis_server(
                "--replicaof", f"127.0.0.1 {primary.port}", "--repl-diskless-sync-delay", "0"
            )
        )
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor shop 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 2000\n"
        )
        sentinel = RedisServer(str(configuration), "--sentinel")
        sentinel.start()
        stack.callback(sentinel.kill)
        give_up_at = time.monotonic() + 15
        while "num-slaves\n1" not in sentinel.cli("SENTINEL", "MASTER", "shop"):
            assert time.monotonic() < give_up_at, sentinel.cli("SENTINEL", "MASTER", "shop")
            time.sleep(0.05)
        dead = "127.0.0.1:1"  # the first Sentinel doesn't answer
        yield primary, replica, f"redis+sentinel://{dead},127.0.0.1:{sentinel.port}/shop"


async def publish_at_last(app: Application, text: str) -> None:
    while True:
        try:
            await app._realms["realm1"].publish("com.topic", [text])
        except (BackplaneUnavailable, BackplaneOutcomeUnknown):
            continue
        return


@pytest.mark.process
async def test_a_failover(replicated: tuple[RedisServer, RedisServer, str]) -> None:
    primary, _, url = replicated
    one, two = application(url), application(url)
    async with one.running(), two.running(), connect(one) as client:
        await client.subscribe("com.topic")
        await two._realms["realm1"].publish("com.topic", ["before"])
        assert (await client.expect_event()).args == ("before",)
        primary.kill()
        with anyio.fail_after(20):
            await publish_at_last(two, "after")
        assert (await client.expect_event(timeout=5)).args == ("after",)
        assert one.statistics().lost_windows >= 1


@pytest.mark.process
async def test_a_primary_that_is_demoted(
    replicated: tuple[RedisServer, RedisServer, str],
) -> None:
    """It accepts publications as before, but nobody else is connected to it."""
    primary, replica, url = replicated
    app = application(url)
    async with app.running(), connect(app) as client:
        await client.subscribe("com.topic")
        primary.cli("REPLICAOF", "127.0.0.1", str(replica.port))
        for _ in range(2):
            with pytest.raises((BackplaneUnavailable, BackplaneOutcomeUnknown)):
                await app._realms["realm1"].publish("com.topic", ["nobody hears it"])
        primary.cli("REPLICAOF", "NO", "ONE")
        with anyio.fail_after(20):
            await publish_at_last(app, "after")
            while (await client.expect_event()).args != ("after",):
                pass
        assert app.statistics().lost_windows


@pytest.mark.process
async def test_no_sentinel_knows_the_name(
    replicated: tuple[RedisServer, RedisServer, str],
) -> None:
    await check_refused(replicated[2].replace("/shop", "/other"), "no Sentinel knows")
