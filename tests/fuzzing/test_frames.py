"""Arbitrary frames, at every moment of a session: it goes on, or ends as the protocol says."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverwamp import Application, Limits, Realm, RPCProgressReport, RPCResult, Session
from serverwamp.errors import ProtocolViolation, RefusedMessage
from serverwamp.protocol.messages import BY_CODE
from serverwamp.protocol.serializers import SUBPROTOCOLS, serializer_for
from tests.fuzzing.messages import LAST_ID, frames_of, utterances
from tests.fuzzing.peers import Frame, Peer, network, no_mistakes_logged, settle
from tests.malformed import INSIDE

HELLO = [1, "realm1", {"roles": {"caller": {}}}]
GUARDED_HELLO = [1, "guarded", {"roles": {"caller": {}}, "authmethods": ["ticket"]}]
GOODBYE = [6, {}, "wamp.close.close_realm"]
STAGES = {
    "new": [],
    "challenged": [GUARDED_HELLO],
    "open": [HELLO],
    "left": [HELLO, GOODBYE],
    "closing": [HELLO, [48, 1, {}, "leave"]],
}
"""What is said before; with "closing" the server has said GOODBYE."""
CLOSE_CODES = {
    "wamp.error.protocol_violation": (1002, 1009),
    "wamp.error.invalid_uri": (1002,),
    "wamp.error.no_such_realm": (1000,),
    "wamp.error.no_matching_auth_method": (1000,),
    "wamp.error.authentication_required": (1000,),
    "wamp.error.authentication_failed": (1000,),
}
"""With what a connection may be closed after an ABORT."""


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float | None = None


def application() -> Application:
    app = Application(
        allow_default_realm=False,
        limits=Limits(
            hello_timeout=600,
            authentication_timeout=600,
            goodbye_timeout=600,
            message_bytes=8192,
            message_depth=6,
            array_length=20,
            map_length=20,
            uri_length=100,
        ),
    )
    realm, guarded = Realm("realm1"), Realm("guarded")

    @realm.route("add")
    async def add(a: int, b: int) -> int:
        return a + b

    @realm.route("echo")
    async def echo(*args: Any, **kwargs: Any) -> RPCResult:
        return RPCResult(args, kwargs)

    @realm.route("typed")
    async def typed(
        a: datetime | None = None,
        b: Decimal = Decimal(0),
        c: UUID | Colour | int = 0,
        d: Point | None = None,
        e: dict[str, list[float]] | bool = False,
    ) -> list[Any]:
        return [a, b, c, d, e]

    @realm.route("count")
    async def count(n: int = 3) -> AsyncIterator[Any]:
        for i in range(min(n, 3)):
            yield RPCProgressReport((i,))
        yield "done"

    @realm.route("leave")
    async def leave(session: Session) -> None:
        await session.close()

    @realm.topic("news")
    async def news(session: Session) -> AsyncIterator[None]:
        session.send_event(args=("hello",))
        yield

    async def authenticate(session: Session, ticket: str) -> str | None:
        return "joe" if ticket == "secret" else None

    guarded.set_ticket_authenticator(authenticate)
    app.add_realm(realm)
    app.add_realm(guarded)
    return app


async def check_that_it_lives(peer: Peer) -> None:
    """Check that the session answers, or another one can begin."""
    last = next((message for message in reversed(peer.messages) if message[0] in (2, 4, 6)), None)
    match last:
        case [6, _, "wamp.close.close_realm"]:  # the server waits for the client's
            peer.send(GOODBYE)
            await settle()
            assert (peer.messages[-1], peer.close_code) == (last, 1000)
            return
        case [4, *_]:
            question, answer = [5, "secret", {}], [2]
        case [2, *_]:
            question = [48, LAST_ID, {}, "nowhere"]
            answer = [8, 48, LAST_ID, {}, "wamp.error.no_such_procedure"]
        case _:
            question, answer = HELLO, [2]
    peer.send(question)
    await settle()
    assert peer.messages[-1][: len(answer)] == answer


def check_the_end(peer: Peer) -> None:
    """Check that the connection was ended by one ABORT, or as the client wanted."""
    last = peer.messages[-1] if peer.messages else [None]
    if last[0] == 3:
        assert len(last) == 3
        assert set(last[1]) == {"message"}
        assert peer.close_code in CLOSE_CODES[last[2]]
    else:  # by the client's ABORT, or by its GOODBYE that answers the server's
        assert peer.close_code == 1000


def requests_in(subprotocol: str, frames: list[Frame]) -> Counter[int]:
    """Return how often each request id occurs, as far as frames can be decoded.

    An id may be used again when its request is answered.
    """
    serializer, ids = serializer_for(subprotocol), Counter[int]()
    for frame in frames:
        if type(frame) is not serializer.frame_type:
            continue
        with suppress(ProtocolViolation):
            for unit in serializer.split(frame):
                try:
                    message = serializer.decode(unit)
                except RefusedMessage as refused:
                    message = refused.request
                ids[getattr(message, "request", 0)] += 1
    return ids


def check_the_messages(peer: Peer, said: list[Frame]) -> None:
    """Check what was received, whatever came before it."""
    is_open = False
    requests = requests_in(peer.subprotocol, said) + Counter([1])  # of the stage "closing"
    answered: Counter[int] = Counter()
    for position, message in enumerate(peer.messages):
        kind = message[0]
        msgspec.convert(message, BY_CODE[kind])
        if kind in (2, 4):
            assert not is_open
            is_open = kind == 2
        elif kind == 6:
            assert is_open
            is_open = False
        elif kind == 3:
            assert message is peer.messages[-1]
        else:
            assert is_open, (position, peer.messages)
        if kind in (8, 33, 35) or (kind == 50 and not message[2].get("progress")):
            request = message[2] if kind == 8 else message[1]
            answered[request] += 1
            assert answered[request] <= requests[request]
        text = {3: lambda m: m[1]["message"], 8: lambda m: "".join(m[5][:1])}.get(kind)
        found = INSIDE.search(text(message)) if text is not None else None
        assert found is None or any(found[0] in str(frame) for frame in said), message


@pytest.mark.spec("VIO-01", "VIO-03", "VIO-05", "VIO-06", "ABT-04", "ABT-08", "SER-10", "CAL-11")
@given(
    subprotocol=st.sampled_from(SUBPROTOCOLS),
    stage=st.sampled_from(sorted(STAGES)),
    said=st.lists(utterances, min_size=1, max_size=6),
    at_once=st.booleans(),
)
async def test_no_frame_does_harm(
    subprotocol: str, stage: str, said: list[Any], at_once: bool
) -> None:
    with no_mistakes_logged() as records:
        async with network(application()) as connections:
            peer = Peer(subprotocol)
            connections.add(peer)
            for message in STAGES[stage]:
                peer.send(message)
            await settle()
            frames = [frame for utterance in said for frame in frames_of(peer, utterance)]
            for frame in frames:
                peer.send_frame(frame)
                if not at_once:
                    await settle()
            await settle()
            check_the_messages(peer, frames)
            if peer.is_served:
                await check_that_it_lives(peer)
            else:
                check_the_end(peer)
    for record in records:  # what a handler makes of a client's values may not be sendable
        assert "has a result that can't be sent" in record.getMessage(), record.getMessage()
