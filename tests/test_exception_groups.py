"""Errors that come out of task groups, and what plain functions raise in their threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import Application, CRAAuthRequirement, Limits, RPCRequest, Session, WAMPError
from serverwamp.testing import Client, connect
from tests.helpers import anybody, raising

FAILED = "wamp.error.runtime_error"
REFUSED = "wamp.error.authentication_failed"
UNDECIDED = "wamp.error.authorization_failed"


class Mapped(Exception):
    pass


class Strange(BaseException):
    pass


def in_task_group(*errors: Exception) -> Callable[[], Awaitable[None]]:
    async def fault() -> None:
        async def fail(error: Exception) -> None:
            raise error

        async with anyio.create_task_group() as tasks:
            for error in errors:
                tasks.start_soon(fail, error)

    return fault


def refusing(uri: str = "com.example.refused", text: str = "text") -> WAMPError:
    return WAMPError(uri, [text], {"key": "value"})


Fault = Callable[[], Awaitable[None]]
Provoke = Callable[[Client], Awaitable[Any]]


# ---- where a group comes from: each adds a handler, and returns what makes it fail


def procedure(app: Application, fault: Fault) -> Provoke:
    app.route("failing")(fault)
    return lambda client: client.call("failing")


def procedure_with_request(app: Application, fault: Fault) -> Provoke:
    @app.route("failing")
    async def failing(request: RPCRequest) -> None:
        await fault()

    return lambda client: client.call("failing")


def generator(app: Application, fault: Fault) -> Provoke:
    @app.route("failing")
    async def failing() -> AsyncIterator[Any]:
        yield "result"
        await fault()

    return lambda client: client.call("failing")


def rpc_handler(app: Application, fault: Fault) -> Provoke:
    async def handler(request: RPCRequest) -> None:
        await fault()

    app.set_rpc_handler(handler)
    return lambda client: client.call("failing")


def opening_factory(app: Application, fault: Fault) -> Provoke:
    async def factory() -> AsyncIterator[int]:
        await fault()
        yield 1

    app.add_default_arg("value", factory=factory)
    app.route("failing")(lambda value: value)
    return lambda client: client.call("failing")


def closing_factory(app: Application, fault: Fault) -> Provoke:
    async def factory() -> AsyncIterator[int]:
        yield 1
        await fault()

    app.add_default_arg("value", factory=factory)
    app.route("failing")(lambda value: value)
    return lambda client: client.call("failing")


def topic(app: Application, fault: Fault) -> Provoke:
    @app.topic("failing")
    async def failing() -> AsyncIterator[None]:
        await fault()
        yield

    return lambda client: client.subscribe("failing")


def subscription_handler(app: Application, fault: Fault) -> Provoke:
    async def handler(topic: str, session: Session) -> AsyncIterator[None]:
        await fault()
        yield

    app.set_subscription_handler(handler)
    return lambda client: client.subscribe("failing")


def publication(app: Application, fault: Fault) -> Provoke:
    app.publication("failing")(fault)
    return lambda client: client.publish("failing", acknowledge=True)


def authorizer(app: Application, fault: Fault) -> Provoke:
    async def authorize() -> bool:
        await fault()
        return True

    app.set_authorizer(authorize)
    return lambda client: client.call("failing")


def requirement(app: Application, fault: Fault) -> Provoke:
    async def require() -> bool:
        await fault()
        return True

    app.route("failing", requires=require)(lambda: None)
    return lambda client: client.call("failing")


ANSWERED_AS_MAPPED = [
    procedure,
    procedure_with_request,
    generator,
    rpc_handler,
    opening_factory,
    closing_factory,
    topic,
    subscription_handler,
    publication,
]
REQUESTS = [*ANSWERED_AS_MAPPED, authorizer, requirement]


async def only_victims(fault: Fault, session: Session) -> str:
    if session.auth_extra:
        await fault()
    return "identity"


def transport(app: Application, fault: Fault) -> dict[str, Any]:
    app.add_transport_authenticator(lambda session: only_victims(fault, session))
    return {}


def ticket(app: Application, fault: Fault) -> dict[str, Any]:
    async def authenticator(session: Session, ticket: str) -> str:
        return await only_victims(fault, session)

    app.set_ticket_authenticator(authenticator)
    return {"ticket": "ticket"}


def cra_requirement(app: Application, fault: Fault) -> dict[str, Any]:
    async def provide(session: Session) -> CRAAuthRequirement:
        await only_victims(fault, session)
        return CRAAuthRequirement("key")

    app.set_cra_handlers(provide, lambda session: "identity")
    return {"secret": "key"}


def cra_identity(app: Application, fault: Fault) -> dict[str, Any]:
    async def provide(session: Session) -> str:
        return await only_victims(fault, session)

    app.set_cra_handlers(lambda session: CRAAuthRequirement("key"), provide)
    return {"secret": "key"}


def custom(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> str:
        return await only_victims(fault, session)

    app.set_authentication_handler(handler)
    return {}


def lifespan(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> AsyncIterator[None]:
        await only_victims(fault, session)
        yield

    app.add_session_lifespan_handler(handler)
    return {}


def early_lifespan(app: Application, fault: Fault) -> dict[str, Any]:
    async def handler(session: Session) -> AsyncIterator[None]:
        await only_victims(fault, session)
        yield

    app.add_session_lifespan_handler(handler, authenticated_only=False)
    return {}


AUTHENTICATORS = [transport, ticket, cra_requirement, cra_identity, custom]
LIFESPANS = [lifespan, early_lifespan]
Login = Callable[[Application, Fault], dict[str, Any]]


# ---- what comes of it


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the names of the exceptions in the log, and check that there is one line at most."""

    def names(error: BaseException) -> Iterator[str]:
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from names(each)
        else:
            yield type(error).__name__

    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) <= 1
    return [
        name
        for record in records
        if record.exc_info is not None and record.exc_info[1] is not None
        for name in names(record.exc_info[1])
    ]


GROUPS: dict[str, tuple[Fault, list[str]]] = {
    "alone": (in_task_group(refusing()), []),
    "nested": (raising(ExceptionGroup("", [ExceptionGroup("", [refusing()])])), []),
    "with others": (
        raising(ExceptionGroup("", [ValueError("secret"), refusing(), KeyError("secret")])),
        ["ValueError", "KeyError"],
    ),
    "several": (
        raising(ExceptionGroup("", [ExceptionGroup("", [refusing()]), refusing("com.example.b")])),
        ["WAMPError"],
    ),
    "with what is no Exception": (
        raising(BaseExceptionGroup("", [Strange("secret"), refusing()])),
        ["Strange"],
    ),
    "with what looks like a cancellation": (
        raising(BaseExceptionGroup("", [GeneratorExit(), refusing()])),
        ["GeneratorExit"],
    ),
}


async def check_answer(awaitable: Awaitable[Any], expected: WAMPError) -> None:
    with pytest.raises(WAMPError) as failure:
        await awaitable
    error = failure.value
    assert (error.uri, error.args, error.kwargs) == (expected.uri, expected.args, expected.kwargs)


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("place", REQUESTS)
async def test_a_request_is_answered_with_the_first_error_of_a_group(
    place: Callable[[Application, Fault], Provoke], group: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault, rest = GROUPS[group]
    app = Application()
    provoke = place(app, fault)
    async with connect(app) as client:
        await check_answer(provoke(client), refusing())
    assert logged(caplog) == rest


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("place", AUTHENTICATORS + LIFESPANS)
async def test_a_session_is_refused_with_the_first_error_of_a_group(
    place: Login, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault, rest = GROUPS[group]
    app = Application()
    login = place(app, fault)
    async with connect(app, authid="ada", **login), connect(app, None) as client:
        with pytest.raises(WAMPError) as failure:
            await client.join(authid="joe", authextra={"fails": True}, **login)
        assert (failure.value.uri, failure.value.args) == ("com.example.refused", ("text",))
        assert await client.expect_close() == 1000
    assert logged(caplog) == rest


@pytest.mark.parametrize("place", ANSWERED_AS_MAPPED)
async def test_a_request_is_answered_with_what_is_mapped_in_a_group(
    place: Callable[[Application, Fault], Provoke], caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    app.add_error_handler(Mapped, lambda error: WAMPError("com.example.mapped", error.args))
    group = ExceptionGroup("", [ValueError("secret"), Mapped("text"), refusing()])
    provoke = place(app, raising(group))
    async with connect(app) as client:
        await check_answer(provoke(client), WAMPError("com.example.mapped", ["text"]))
    assert logged(caplog) == ["ValueError", "WAMPError"]


@pytest.mark.parametrize("place", LIFESPANS)
async def test_a_session_is_refused_with_what_is_mapped_in_a_group(
    place: Login, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    app.add_error_handler(Mapped, "com.example.mapped")
    login = place(app, in_task_group(Mapped("secret")))
    async with connect(app, None) as client:
        with pytest.raises(WAMPError, match=r"com\.example\.mapped"):
            await client.join(authextra={"fails": True}, **login)
    assert logged(caplog) == []


@pytest.mark.parametrize(
    ("place", "uri"),
    [
        *((place, FAILED) for place in ANSWERED_AS_MAPPED),
        (authorizer, UNDECIDED),
        (requirement, UNDECIDED),
    ],
)
async def test_a_group_of_unknown_exceptions_is_logged_as_a_whole(
    place: Callable[[Application, Fault], Provoke], uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Application()
    provoke = place(app, raising(ExceptionGroup("", [ValueError("secret"), KeyError("secret")])))
    async with connect(app) as client:
        with pytest.raises(WAMPError, match=uri) as failure:
            await provoke(client)
        assert "secret" not in str(failure.value.args)
    assert logged(caplog) == ["ValueError", "KeyError"]


async def test_a_mapping_of_groups_comes_first() -> None:
    class Several(ExceptionGroup[Exception]):
        pass

    app = Application()
    app.add_error_handler(Several, lambda group: WAMPError("com.example.several", group.args[:1]))
    app.add_error_handler(Exception, "com.example.any")
    app.route("several")(raising(Several("text", [refusing()])))
    app.route("group")(raising(ExceptionGroup("text", [refusing()])))
    app.route("one")(raising(ExceptionGroup("text", [ValueError()])))
    async with connect(app) as client:
        await check_answer(client.call("several"), WAMPError("com.example.several", ["text"]))
        await check_answer(client.call("group"), refusing())
        await check_answer(client.call("one"), WAMPError("com.example.any"))


async def test_an_error_handler_that_fails_hides_no_other_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(error: Mapped) -> str:
        raise KeyError

    app = Application()
    app.add_error_handler(Mapped, fail)
    app.route("procedure")(in_task_group(Mapped()))
    async with connect(app) as client:
        with pytest.raises(WAMPError, match=FAILED):
            await client.call("procedure")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.spec("CAL-01", "CAN-01")
async def test_an_error_beside_a_cancellation_is_the_answer() -> None:
    started = anyio.Event()

    async def procedure() -> None:
        try:
            started.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            raise BaseExceptionGroup("", [cancelled, refusing()]) from None

    app = Application()
    app.route("procedure")(procedure)
    async with connect(app) as client:
        call = await client.start_call("procedure")
        with anyio.fail_after(5):
            await started.wait()
        await call.cancel("kill")
        await check_answer(call.result(), refusing())
        await client.expect_nothing()


async def test_closing_a_subscription_logs_a_group_once(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield
        await in_task_group(refusing(), ValueError())()

    async with connect(app) as client:
        await client.unsubscribe(await client.subscribe("topic"))
    assert sorted(logged(caplog)) == ["ValueError", "WAMPError"]


async def test_a_refused_testament_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    published = anyio.Event()

    async def publication() -> None:
        published.set()
        await in_task_group(refusing())()

    app = Application()
    app.set_meta_api(testaments="anonymous")
    app.publication("topic")(publication)
    async with connect(app) as client:
        await client.call("wamp.session.add_testament", ["topic", [], {}])
    assert published.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_group_refuses_to_renew_a_session(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticator(session: Session, ticket: str) -> str:
        if ticket == "renewed":
            await in_task_group(refusing())()
        return "identity"

    app = Application()
    app.set_ticket_authenticator(authenticator)

    @app.route("renew")
    async def renew(session: Session) -> None:
        await session.refresh("renewed")

    async with connect(app, ticket="ticket") as client:
        await check_answer(client.call("renew"), refusing())
    assert logged(caplog) == []


# ---- plain functions, in their threads


ENDINGS: dict[str, Callable[[], BaseException]] = {
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "Strange": Strange,
    "group": lambda: BaseExceptionGroup("", [GeneratorExit(), SystemExit()]),
}
Plain = Callable[..., None]


def plain_procedure(app: Application, fail: Plain) -> Provoke:
    app.route("failing")(lambda: fail())
    return lambda client: client.call("failing")


def plain_rpc_handler(app: Application, fail: Plain) -> Provoke:
    app.set_rpc_handler(lambda request: fail() if request.uri == "failing" else None)
    return lambda client: client.call("failing")


def plain_publication(app: Application, fail: Plain) -> Provoke:
    app.publication("failing")(lambda: fail())
    return lambda client: client.publish("failing", acknowledge=True)


def plain_with_factory(app: Application, fail: Plain) -> Provoke:
    async def factory() -> AsyncIterator[int]:
        yield 1

    app.add_default_arg("value", factory=factory)
    app.route("failing")(lambda value: fail())
    return lambda client: client.call("failing")


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "place", [plain_procedure, plain_rpc_handler, plain_publication, plain_with_factory]
)
async def test_what_a_plain_function_raises_ends_its_request_only(
    place: Callable[[Application, Plain], Provoke], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ENDINGS[ending]()

    app = Application()
    provoke = place(app, fail)
    app.topic("topic")(anybody)
    async with connect(app) as other, connect(app) as client:
        with pytest.raises(WAMPError, match=FAILED):
            await provoke(client)
        for each in (client, other):
            await each.subscribe("topic")
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["transport", "ticket", "requirement", "identity", "custom"])
async def test_what_a_plain_authenticator_raises_refuses_its_session_only(
    kind: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    def admit(session: Session, ticket: str = "") -> str:
        if session.auth_extra:
            raise ENDINGS[ending]()
        return "identity"

    def require(session: Session) -> CRAAuthRequirement:
        if kind == "requirement":
            admit(session)
        return CRAAuthRequirement("key")

    app, login = Application(), {}
    if kind == "transport":
        app.add_transport_authenticator(lambda session: admit(session))
    elif kind == "ticket":
        app.set_ticket_authenticator(admit)
        login = {"ticket": "ticket"}
    elif kind == "custom":
        app.set_authentication_handler(lambda session: admit(session))
    else:
        app.set_cra_handlers(require, lambda session: admit(session))
        login = {"secret": "key"}
    async with connect(app, authid="ada", **login) as other, connect(app, None) as client:
        with pytest.raises(WAMPError, match=REFUSED):
            await client.join(authid="joe", authextra={"fails": True}, **login)
        await other.expect_nothing()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_a_plain_overflow_handler_raises_is_logged(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ENDINGS[ending]()

    app = Application(limits=Limits(outbound_messages=20))
    app.topic("topic", overflow="drop_newest")(anybody)
    app.add_overflow_handler(fail)
    async with connect(app) as client:
        await client.subscribe("topic")
        client.pause()
        for number in range(50):
            await app.publish("topic", [number])
        with anyio.fail_after(5):
            while caplog.records[-1].levelno < logging.ERROR:
                await anyio.lowlevel.checkpoint()
        client.resume()
        assert (await client.expect_event()).args == (0,)
    assert caplog.records[-1].message.startswith("an overflow handler failed")
