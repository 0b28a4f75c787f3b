"""The state machine of a session: every message in every state, received and sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from serverwamp.errors import ProtocolViolation
from serverwamp.protocol.messages import (
    Abort,
    Authenticate,
    Call,
    CallOptions,
    Cancel,
    CancelOptions,
    Challenge,
    Error,
    Event,
    Goodbye,
    Hello,
    HelloDetails,
    Interrupt,
    Invocation,
    Message,
    Publish,
    Published,
    PublishOptions,
    Register,
    Registered,
    RegisterOptions,
    Result,
    Role,
    Subscribe,
    Subscribed,
    SubscribeOptions,
    Unregister,
    Unregistered,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    Yield,
    YieldOptions,
)
from serverwamp.protocol.state import SessionState, State
from tests.malformed import MESSAGE_CLASSES

HELLO = Hello("realm1", HelloDetails(roles={"caller": Role()}))
MESSAGES: Sequence[Message] = (
    HELLO,
    Welcome(1, {}),
    Abort({}, "wamp.close.normal"),
    Challenge("ticket", {}),
    Authenticate("secret", {}),
    Goodbye({}, "wamp.close.normal"),
    Error(48, 1, {}, "com.example.error"),
    Publish(10, PublishOptions(), "com.example.topic"),
    Published(10, 1),
    Subscribe(10, SubscribeOptions(), "com.example.topic"),
    Subscribed(10, 1),
    Unsubscribe(10, 1),
    Unsubscribed(10),
    Event(1, 1, {}),
    Call(10, CallOptions(), "com.example.procedure"),
    Cancel(10, CancelOptions()),
    Result(10, {}),
    Register(10, RegisterOptions(), "com.example.procedure"),
    Registered(10, 1),
    Unregister(10, 1),
    Unregistered(10),
    Invocation(1, 1, {}),
    Interrupt(1, {}),
    Yield(1, YieldOptions()),
)

# How a session comes into each state: what is received (<) and sent (>).
HISTORIES: dict[State, Sequence[tuple[str, Message]]] = {
    State.AWAITING_HELLO: (),
    State.AUTHENTICATING: (("<", HELLO),),
    State.CHALLENGED: (("<", HELLO), (">", Challenge("ticket", {}))),
    State.OPEN: (("<", HELLO), (">", Welcome(1, {}))),
    State.LEAVING: (("<", HELLO), (">", Welcome(1, {})), ("<", Goodbye({}, "a.b"))),
    State.CLOSING: (("<", HELLO), (">", Welcome(1, {})), (">", Goodbye({}, "a.b"))),
    State.CLOSED: (("<", Abort({}, "a.b")),),
}

IGNORED = "ignored"
RECEIVED: dict[State, dict[str, Any]] = {
    State.AWAITING_HELLO: {"Hello": State.AUTHENTICATING, "Abort": State.CLOSED},
    State.AUTHENTICATING: {"Abort": State.CLOSED},
    State.CHALLENGED: {"Authenticate": State.AUTHENTICATING, "Abort": State.CLOSED},
    State.OPEN: {
        "Publish": State.OPEN,
        "Subscribe": State.OPEN,
        "Unsubscribe": State.OPEN,
        "Call": State.OPEN,
        "Cancel": State.OPEN,
        "Register": State.OPEN,
        "Unregister": State.OPEN,
        "Yield": State.OPEN,
        "Error": State.OPEN,
        "Goodbye": State.LEAVING,
        "Abort": State.CLOSED,
    },
    State.LEAVING: {},
    State.CLOSING: {
        **{cls.__name__: IGNORED for cls in MESSAGE_CLASSES},
        "Goodbye": State.CLOSED,
        "Abort": State.CLOSED,
    },
    State.CLOSED: {},
}
SENT: dict[State, dict[str, State]] = {
    State.AWAITING_HELLO: {"Abort": State.CLOSED},
    State.AUTHENTICATING: {
        "Welcome": State.OPEN,
        "Challenge": State.CHALLENGED,
        "Abort": State.CLOSED,
    },
    State.CHALLENGED: {"Abort": State.CLOSED},
    State.OPEN: {
        "Result": State.OPEN,
        "Error": State.OPEN,
        "Subscribed": State.OPEN,
        "Unsubscribed": State.OPEN,
        "Event": State.OPEN,
        "Published": State.OPEN,
        "Registered": State.OPEN,
        "Unregistered": State.OPEN,
        "Invocation": State.OPEN,
        "Interrupt": State.OPEN,
        "Goodbye": State.CLOSING,
        "Abort": State.CLOSED,
    },
    State.LEAVING: {"Goodbye": State.CLOSED},
    State.CLOSING: {},
    State.CLOSED: {},
}


def session_in(state: State) -> SessionState:
    session = SessionState()
    for direction, message in HISTORIES[state]:
        if direction == "<":
            assert session.receive(message)
        else:
            session.send(message)
    assert session.state is state
    return session


def name_of(value: Any) -> str:
    return value.name if isinstance(value, State) else type(value).__name__


def test_the_tables_are_complete() -> None:
    assert {type(message) for message in MESSAGES} == set(MESSAGE_CLASSES)
    assert set(HISTORIES) == set(RECEIVED) == set(SENT) == set(State)


@pytest.mark.spec("SES-01", "SES-12", "ABT-03", "ABT-05", "ABT-06", "ABT-08", "ABT-09")
@pytest.mark.spec("AUT-07", "VIO-02")
@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
@pytest.mark.parametrize("state", State, ids=name_of)
def test_every_message_in_every_state_is_received(state: State, message: Message) -> None:
    session = session_in(state)
    following = RECEIVED[state].get(type(message).__name__)
    if following is None:
        with pytest.raises(ProtocolViolation) as violation:
            session.receive(message)
        assert type(message).__name__.upper() in violation.value.message
        assert session.state is state
    elif following is IGNORED:
        assert session.receive(message) is False
        assert session.state is state
    else:
        assert session.receive(message) is True
        assert session.state is following


@pytest.mark.spec("ABT-04", "ABT-06", "ABT-08", "SES-02", "AUT-01")
@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
@pytest.mark.parametrize("state", State, ids=name_of)
def test_every_message_in_every_state_is_sent(state: State, message: Message) -> None:
    session = session_in(state)
    following = SENT[state].get(type(message).__name__)
    if following is None:
        with pytest.raises(RuntimeError):
            session.send(message)
        assert session.state is state
    else:
        session.send(message)
        assert session.state is following


@pytest.mark.spec("WS-10")
@pytest.mark.parametrize("state", State, ids=name_of)
def test_a_lost_transport_ends_every_session(state: State) -> None:
    session = session_in(state)
    session.lose()
    assert session.state is State.CLOSED


@pytest.mark.spec("AUT-01")
def test_challenges_can_follow_one_another() -> None:
    session = session_in(State.CHALLENGED)
    for _ in range(3):
        assert session.receive(Authenticate("x", {}))
        session.send(Challenge("ticket", {}))
    session.receive(Authenticate("x", {}))
    session.send(Welcome(1, {}))
    assert session.state is State.OPEN


@pytest.mark.spec("SES-03", "SES-04")
@pytest.mark.parametrize(
    ("hello", "uri"),
    [
        (Hello("realm1", HelloDetails()), "wamp.error.protocol_violation"),
        (Hello("realm1", HelloDetails(roles={})), "wamp.error.protocol_violation"),
        (Hello("realm1", HelloDetails(roles={"broker": Role()})), "wamp.error.protocol_violation"),
        (Hello("", HELLO.details), "wamp.error.invalid_uri"),
        (Hello("my realm", HELLO.details), "wamp.error.invalid_uri"),
        (Hello("realm1.", HELLO.details), "wamp.error.invalid_uri"),
    ],
    ids=str,
)
def test_a_refused_hello_leaves_the_state_alone(hello: Hello, uri: str) -> None:
    session = SessionState()
    with pytest.raises(ProtocolViolation) as violation:
        session.receive(hello)
    assert violation.value.uri == uri
    assert session.state is State.AWAITING_HELLO
    assert session.receive(HELLO)


@pytest.mark.spec("SES-03")
@pytest.mark.parametrize("role", ["caller", "callee", "publisher", "subscriber"])
def test_one_role_is_enough(role: str) -> None:
    session = SessionState()
    assert session.receive(Hello("realm1", HelloDetails(roles={role: Role(), "other": Role()})))


@pytest.mark.spec("URI-07", "ABT-07")
@pytest.mark.parametrize(
    ("reason", "valid"),
    [
        ("wamp.close.normal", True),
        ("wamp.close.close_realm", True),
        ("wamp.close.system_shutdown", True),
        ("wamp.error.goodbye_and_out", True),
        ("com.example.tired", True),
        ("", False),
        ("so long", False),
        ("wamp.close.normal\n", False),
    ],
)
@pytest.mark.parametrize("kind", [Goodbye, Abort])
def test_the_reasons_to_leave(kind: Any, reason: str, valid: bool) -> None:
    session = session_in(State.OPEN)
    if valid:
        assert session.receive(kind({}, reason))
        assert session.state is (State.LEAVING if kind is Goodbye else State.CLOSED)
    else:
        with pytest.raises(ProtocolViolation):
            session.receive(kind({}, reason))
        assert session.state is State.OPEN


def requests_with(id_: int) -> Sequence[Message]:
    return (
        Publish(id_, PublishOptions(), "a.b"),
        Subscribe(id_, SubscribeOptions(), "a.b"),
        Unsubscribe(id_, 1),
        Call(id_, CallOptions(), "a.b"),
        Register(id_, RegisterOptions(), "a.b"),
        Unregister(id_, 1),
    )


@pytest.mark.spec("IDS-04", "IDS-07", "T-05")
def test_an_open_request_has_its_id_for_itself() -> None:
    session = session_in(State.OPEN)
    acknowledged = Publish(6, PublishOptions(acknowledge=True), "a.b")
    opened = [acknowledged, *requests_with(6)[1:]]
    for request in opened:
        assert session.receive(request)
        for other in [*opened, *requests_with(6)]:
            with pytest.raises(ProtocolViolation, match="request id 6 is in use"):
                session.receive(other)
        session.answered(6)


@pytest.mark.spec("IDS-08")
def test_a_publication_without_acknowledgement_is_never_open() -> None:
    session = session_in(State.OPEN)
    for _ in range(2):
        assert session.receive(requests_with(6)[0])
    assert session.receive(Subscribe(6, SubscribeOptions(), "a.b"))


@pytest.mark.spec("IDS-04", "IDS-05")
def test_cancel_is_no_request_of_its_own() -> None:
    session = session_in(State.OPEN)
    assert session.receive(Call(5, CallOptions(), "a.b"))
    for id_ in (5, 5, 1, 99):
        assert session.receive(Cancel(id_, CancelOptions()))
    assert session.receive(Call(1, CallOptions(), "a.b"))


@pytest.mark.spec("ABT-08")
def test_ids_dont_matter_any_more_while_closing() -> None:
    session = session_in(State.CLOSING)
    for _ in range(2):
        assert session.receive(Call(1, CallOptions(), "a.b")) is False


@pytest.mark.spec("IDS-07", "WS-09")
def test_every_session_has_ids_of_its_own() -> None:
    for _ in range(2):
        assert session_in(State.OPEN).receive(Call(7, CallOptions(), "a.b"))
