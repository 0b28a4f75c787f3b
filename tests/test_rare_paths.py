"""What rarely happens in an application, and has to be right all the same."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest
import typing_extensions

from serverwamp import Application, History, Realm, StoredEvent
from serverwamp.backplanes import redis_stored
from serverwamp.backplanes.base import RealmEvents
from serverwamp.backplanes.envelope import packed, unpacked
from serverwamp.backplanes.memory import MemoryBackplane
from serverwamp.errors import BackplaneUnavailable, ConfigurationError, WAMPError
from serverwamp.protocol.messages import Goodbye
from serverwamp.protocol.serializers import ALL_FORMATS
from serverwamp.publication import Publication
from serverwamp.router.meta.configuration import MetaAPIs
from serverwamp.testing import connect
from tests.helpers import anybody
from tests.redis_servers import application, redis_server


async def test_a_compiled_pattern_is_a_pattern() -> None:
    app = Application()

    @app.regex_route(re.compile(r"com\.(a|b)$"))
    async def procedure() -> str:
        return "here"

    async with connect(app) as client:
        assert (await client.call("com.b")).args == ("here",)


def test_a_realm_ends_its_configuration_with_that_of_its_application() -> None:
    app, realm = Application(), Realm("com.realm")
    app.add_realm(realm)
    realm.invalidate_authorizations()
    assert realm.freeze() is not app.freeze()
    with pytest.raises(ConfigurationError, match="serving already"):
        app.add_default_arg("name", 1)


@pytest.mark.parametrize("change", ["format", "message"])
def test_frames_of_another_version_are_refused(change: str) -> None:
    frame: list[Any] = msgspec.msgpack.decode(packed(Publication("com.topic")))
    (place,) = [index for index, value in enumerate(frame) if isinstance(value, (bytes, str))][-1:]
    if change == "format":
        frame = [99 if value == 0 and type(value) is int else value for value in frame]
    else:
        frame[place] = ALL_FORMATS[0].encode(Goodbye({}, "wamp.close.normal"))
    expected = {"format": "format", "message": "event"}[change]
    with pytest.raises(ValueError, match=expected):
        unpacked(msgspec.msgpack.encode(frame))


class Forgetful(MemoryBackplane):
    """Retained events never arrive."""

    def retained(  # type: ignore[override]
        self, realm: RealmEvents, topic: str, then: Callable[[Sequence[StoredEvent]], None]
    ) -> Awaitable[None]:
        async def fail() -> None:
            raise BackplaneUnavailable("the retained events don't arrive")

        return fail()


async def test_retained_events_that_dont_arrive(caplog: pytest.LogCaptureFixture) -> None:
    app = Application(backplane=Forgetful())
    app.topic("com.topic")(anybody)
    async with connect(app) as client:
        with pytest.raises(WAMPError, match="unavailable"):
            await client.subscribe("com.topic", get_retained=True)
        subscription = await client.subscribe("com.topic")
        for _ in range(2):
            again = await client.subscribe("com.topic", get_retained=True)
            assert again.id == subscription.id
        await app.publish("com.topic", ["next"])
        assert (await client.expect_event()).args == ("next",)
    assert caplog.text.count("doesn't get a retained event") == 1


@pytest.mark.parametrize(("name", "text"), [("MOST_BYTES", "too long"), ("MOST_WAITING", "many")])
async def test_a_history_takes_no_more_than_it_can(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_stored, name, 0)
    with redis_server() as server:
        app = application(server.url, History(5))
        async with app.running():
            with pytest.raises(BackplaneUnavailable, match=text):
                await app._realms["realm1"].publish("com.topic")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="type variables have no defaults")
async def test_a_type_variable_with_a_default() -> None:
    variable = typing_extensions.TypeVar("variable", default=int)

    async def procedure(value: Any) -> Any:
        return value

    procedure.__annotations__["value"] = variable
    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        assert (await client.call("procedure", ["5"])).args == (5,)


def test_a_realm_without_a_meta_api_has_no_routes_for_it() -> None:
    assert list(MetaAPIs().routes()) == []


async def test_a_moment_without_a_time_zone_travels_in_cbor() -> None:
    app = Application()

    @app.route("procedure")
    async def procedure() -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001, RUF100

    async with connect(app, subprotocol="wamp.2.cbor") as client:
        assert "2026-01-02" in str((await client.call("procedure")).args[0])
