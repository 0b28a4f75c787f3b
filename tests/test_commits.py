"""What is opened for a request is closed before its answer: success means that it is committed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from serverwamp import (
    Application,
    CRAAuthRequirement,
    RPCErrorResult,
    RPCProgressReport,
    RPCResult,
    Session,
    WAMPError,
)
from serverwamp.errors import NoSuchProcedure
from serverwamp.testing import Client, connect
from tests.helpers import wait_all_tasks_blocked

FAILED = "wamp.error.runtime_error"
SUBPROTOCOLS = ["wamp.2.json", "wamp.2.msgpack", "wamp.2.cbor"]


class Conflict(Exception):
    """What a database raises when it can't commit."""


class Database:
    """Transactions that are noted in a log, and can't be committed if `failure` is set."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.log: list[str] = []
        self.failure = failure
        self.committing = anyio.Event()
        self.proceed = anyio.Event()
        self.proceed.set()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[str]:
        self.log.append("begin")
        try:
            yield "transaction"
            self.committing.set()
            await self.proceed.wait()
            await anyio.lowlevel.checkpoint()
            if self.failure is not None:
                raise self.failure
        except BaseException as error:
            self.log.append(f"rollback: {type(error).__name__}")
            raise
        self.log.append("commit")

    async def factory(self) -> AsyncIterator[str]:
        async with self.transaction() as transaction:
            yield transaction

    def plain_factory(self) -> Iterator[str]:
        self.log.append("begin")
        try:
            yield "transaction"
            if self.failure is not None:
                raise self.failure
        except BaseException as error:
            self.log.append(f"rollback: {type(error).__name__}")
            raise
        self.log.append("commit")


# ---- the ways to use a transaction in a procedure: each is given what is to be the answer


def generator(app: Application, database: Database, answer: Any) -> None:
    @app.route("procedure")
    async def procedure() -> AsyncIterator[Any]:
        async with database.transaction():
            yield RPCProgressReport()
            yield answer


def returned_generator(app: Application, database: Database, answer: Any) -> None:
    async def results() -> AsyncIterator[Any]:
        async with database.transaction():
            yield answer

    @app.route("procedure")
    async def procedure() -> AsyncIterator[Any]:
        return results()


def iterator(app: Application, database: Database, answer: Any) -> None:
    class Results:
        def __init__(self) -> None:
            self._stage = 0
            self._transaction = database.transaction()

        def __aiter__(self) -> Results:
            return self

        async def __anext__(self) -> Any:
            self._stage += 1
            if self._stage == 1:
                await self._transaction.__aenter__()
                return answer
            await self._transaction.__aexit__(None, None, None)
            raise StopAsyncIteration

    app.route("procedure")(Results)


def factory(app: Application, database: Database, answer: Any) -> None:
    app.add_default_arg("db", factory=database.factory)

    @app.route("procedure")
    async def procedure(db: Any) -> Any:
        return answer


def plain_factory(app: Application, database: Database, answer: Any) -> None:
    app.add_default_arg("db", factory=database.plain_factory)

    @app.route("procedure")
    async def procedure(db: Any) -> Any:
        return answer


def factory_of_a_plain_function(app: Application, database: Database, answer: Any) -> None:
    app.add_default_arg("db", factory=database.factory)
    app.route("procedure")(lambda db: answer)


def factory_of_a_generator(app: Application, database: Database, answer: Any) -> None:
    app.add_default_arg("db", factory=database.factory)

    @app.route("procedure")
    async def procedure(db: Any) -> AsyncIterator[Any]:
        yield RPCProgressReport()
        yield answer


def factory_of_a_custom_handler(app: Application, database: Database, answer: Any) -> None:
    app.add_default_arg("db", factory=database.factory)

    async def handler(request: Any, db: Any) -> Any:
        if request.uri != "procedure":
            raise NoSuchProcedure(request.uri)
        return answer

    app.set_rpc_handler(handler)


IN_THE_HANDLER = [generator, returned_generator, iterator]
IN_A_FACTORY = [
    factory,
    plain_factory,
    factory_of_a_plain_function,
    factory_of_a_generator,
    factory_of_a_custom_handler,
]
Place = Callable[[Application, Database, Any], None]


async def call_error(client: Client, *args: Any, **options: Any) -> WAMPError:
    with pytest.raises(WAMPError) as failure:
        await client.call("procedure", args, **options)
    return failure.value


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("place", IN_THE_HANDLER + IN_A_FACTORY)
async def test_a_result_means_that_it_is_committed(place: Place) -> None:
    app, database = Application(), Database()
    place(app, database, RPCResult(("answer",)))
    async with connect(app) as client:
        assert (await client.call("procedure")).args == ("answer",)
        assert database.log == ["begin", "commit"]
        await client.expect_nothing()


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize(
    ("failure", "uri", "args", "logged"),
    [
        (ValueError("secret"), FAILED, None, 1),
        (WAMPError("com.example.conflict", ["try again"]), "com.example.conflict", "try again", 0),
        (Conflict("secret"), "com.example.mapped", None, 0),
    ],
)
@pytest.mark.parametrize("place", IN_THE_HANDLER + IN_A_FACTORY)
async def test_a_commit_that_fails_is_an_error(
    place: Place,
    failure: Exception,
    uri: str,
    args: str | None,
    logged: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, database = Application(), Database(failure)
    place(app, database, "answer")
    app.add_error_handler(Conflict, "com.example.mapped")
    async with connect(app) as client:
        error = await call_error(client)
        assert error.uri == uri
        assert "secret" not in str(error.args)
        if args is not None:
            assert error.args == (args,)
        assert database.log == ["begin", f"rollback: {type(failure).__name__}"]
        await client.expect_nothing()
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == logged


@pytest.mark.parametrize("place", IN_A_FACTORY)
async def test_an_error_as_the_answer_rolls_back(place: Place) -> None:
    app, database = Application(), Database()
    place(app, database, RPCErrorResult("com.example.refused", ["text"], {"a": 1}))
    async with connect(app) as client:
        error = await call_error(client)
        assert (error.uri, error.args, error.kwargs) == ("com.example.refused", ("text",), {"a": 1})
        assert database.log == ["begin", "rollback: WAMPError"]


@pytest.mark.parametrize("place", IN_THE_HANDLER)
async def test_a_handler_that_yields_an_error_runs_to_its_end(place: Place) -> None:
    """It commits what it has opened itself, as one does that returns an error in a ``with``."""
    app, database = Application(), Database()
    place(app, database, RPCErrorResult("com.example.refused"))
    async with connect(app) as client:
        assert (await call_error(client)).uri == "com.example.refused"
        assert database.log == ["begin", "commit"]


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS)
@pytest.mark.parametrize("place", [generator, returned_generator, *IN_A_FACTORY])
async def test_a_result_that_cant_be_sent_rolls_back(place: Place, subprotocol: str) -> None:
    app, database = Application(), Database()
    place(app, database, RPCResult((object(),)))
    async with connect(app, subprotocol=subprotocol) as client:
        await call_error(client)
        assert database.log[0] == "begin"
        assert database.log[1].startswith("rollback")
        await client.expect_nothing()


async def test_a_factory_may_translate_an_error() -> None:
    """As in Python, the answer is what leaves the ``with`` statement in the end."""

    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except Conflict:
            raise WAMPError("com.example.translated") from None

    app = Application()
    app.add_default_arg("db", factory=translating)

    @app.route("procedure")
    async def procedure(db: Any) -> None:
        raise Conflict

    async with connect(app) as client:
        assert (await call_error(client)).uri == "com.example.translated"


async def test_factories_cant_swallow_an_error() -> None:
    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except WAMPError:
            pass

    app = Application()
    app.add_default_arg("db", factory=swallowing)

    async def refuse(db: Any) -> None:
        raise WAMPError("com.example.refused")

    async def refuse_subscription(db: Any) -> AsyncIterator[None]:
        raise WAMPError("com.example.refused")
        yield

    app.route("procedure")(refuse)
    app.topic("topic")(refuse_subscription)
    app.publication("published")(refuse)
    async with connect(app) as client:
        assert (await call_error(client)).uri == "com.example.refused"
        with pytest.raises(WAMPError, match=r"com\.example\.refused"):
            await client.subscribe("topic")
        with pytest.raises(WAMPError, match=r"com\.example\.refused"):
            await client.publish("published", acknowledge=True)


async def test_what_a_generator_does_after_its_result_comes_before_the_answer() -> None:
    app = Application()

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield

    @app.route("procedure")
    async def procedure(session: Session) -> AsyncIterator[Any]:
        numbers = [1]
        yield numbers
        numbers.append(2)  # too late: a result is taken when it is yielded
        session.send_event("topic", ["sent"])
        await app.publish("topic", ["published"])

    async with connect(app) as client:
        subscription = await client.subscribe("topic")
        call = await client.start_call("procedure")
        assert (await client.expect_event(subscription)).args == ("sent",)
        assert (await client.expect_event(subscription)).args == ("published",)
        assert (await call.result()).args == (1,)


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("second", [RPCResult((2,)), RPCProgressReport(), RPCErrorResult(), None])
async def test_yielding_again_after_the_result(
    second: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app, database = Application(), Database()

    @app.route("procedure")
    async def procedure() -> AsyncIterator[Any]:
        async with database.transaction():
            yield 1
            while True:
                yield second

    async with connect(app) as client:
        call = await client.start_call("procedure", receive_progress=True)
        with pytest.raises(WAMPError, match=FAILED):
            await call.result()
        assert database.log == ["begin", "rollback: GeneratorExit"]
        await client.expect_nothing()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "procedure yielded again after its final result" in str(record.exc_info[1])


# ---- calls that are over before what they opened is closed


ENDS = {
    "killnowait": "wamp.error.canceled",
    "skip": "wamp.error.canceled",
    "kill": "wamp.error.canceled",
    "timeout": "wamp.error.timeout",
    "leave": None,
    "disconnect": None,
}


@pytest.mark.spec("CAL-01")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("place", [generator, factory, factory_of_a_generator])
@pytest.mark.parametrize("synchronize", [False, True])
async def test_a_call_that_is_over_while_it_commits(
    place: Place, end: str, synchronize: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app, database = Application(synchronize_requests=synchronize), Database()
    database.proceed = anyio.Event()
    place(app, database, "answer")
    app.route("nothing")(anyio.lowlevel.checkpoint)
    uri = ENDS[end]
    # Nobody who wants to kill a call is told of its end before; and what closes isn't cancelled.
    is_told_of_result = end == "kill" and place is not generator
    async with connect(app) as client:
        with anyio.fail_after(5):
            options = {"timeout": 30} if end == "timeout" else {}
            call = await client.start_call("procedure", options=options)
            await database.committing.wait()
            if end == "leave":
                await client.leave()
            elif end == "disconnect":
                await client.disconnect()
            elif end != "timeout":
                await call.cancel(end)
            if uri is not None and not is_told_of_result:
                with pytest.raises(WAMPError, match=uri):
                    await call.result()
            await wait_all_tasks_blocked()
            assert client.take_all() == []
            database.proceed.set()
            if is_told_of_result:
                assert (await call.result()).args == ("answer",)
            if end == "leave":
                await client.join()
            if end != "disconnect":
                await client.call("nothing")
                await client.expect_nothing()
    is_cancelled = place is generator and end != "skip"
    if is_cancelled:  # of what is its own, a handler can be cancelled
        assert database.log[1] in ("rollback: CancelledError", "rollback: Cancelled")
    else:
        assert database.log == ["begin", "commit"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_commit_that_fails_after_the_call_was_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, database = Application(), Database(ValueError("secret"))
    database.proceed = anyio.Event()
    factory(app, database, "answer")
    async with connect(app) as client:
        call = await client.start_call("procedure")
        with anyio.fail_after(5):
            await database.committing.wait()
        await call.cancel("killnowait")
        with pytest.raises(WAMPError, match="canceled"):
            await call.result()
        database.proceed.set()
        await client.expect_nothing()
    (record,) = caplog.records
    assert "failed after its answer" in record.message


@pytest.mark.spec("PRG-07")
async def test_a_stream_goes_on_until_the_answer() -> None:
    app = Application()

    @app.route("procedure")
    async def procedure(numbers: AsyncIterator[int]) -> AsyncIterator[Any]:
        yield "answer"
        assert [number async for number in numbers] == [1, 2]

    async with connect(app) as client:
        call = await client.start_call("procedure", [1], progress=True)
        await client.expect_nothing()
        await call.send_chunk(2)
        await call.end_chunks()
        assert (await call.result()).args == ("answer",)


# ---- other requests


async def test_published_means_that_it_is_committed() -> None:
    app, database = Application(), Database()
    app.add_default_arg("db", factory=database.factory)

    @app.topic("topic")
    async def topic() -> AsyncIterator[None]:
        yield

    @app.publication("topic")
    async def publication(db: Any, text: str) -> Any:
        return RPCErrorResult("com.example.refused") if text == "refuse" else None

    async with connect(app) as subscriber, connect(app) as client:
        subscription = await subscriber.subscribe("topic")
        await client.publish("topic", ["first"], acknowledge=True)
        assert database.log == ["begin", "commit"]
        database.log.clear()
        with pytest.raises(WAMPError, match=r"com\.example\.refused"):
            await client.publish("topic", ["refuse"], acknowledge=True)
        assert database.log == ["begin", "rollback: WAMPError"]
        database.failure = WAMPError("com.example.conflict")
        with pytest.raises(WAMPError, match=r"com\.example\.conflict"):
            await client.publish("topic", ["second"], acknowledge=True)
        database.failure = None
        await client.publish("topic", ["third"], acknowledge=True)
        received = [await subscriber.expect_event(subscription) for _ in range(2)]
        assert [event.args for event in received] == [("first",), ("third",)]


async def test_a_subscription_that_is_refused_has_rolled_back() -> None:
    app, database = Application(), Database()
    app.add_default_arg("db", factory=database.factory)

    @app.topic("topic")
    async def topic(db: Any) -> AsyncIterator[None]:
        if len(database.log) == 1:
            raise WAMPError("com.example.refused")
        yield

    async with connect(app) as client:
        with pytest.raises(WAMPError, match=r"com\.example\.refused"):
            await client.subscribe("topic")
        assert database.log == ["begin", "rollback: WAMPError"]
        subscription = await client.subscribe("topic")
        assert database.log[2:] == ["begin"]
        await client.unsubscribe(subscription)
        assert database.log[2:] == ["begin", "commit"]


async def test_an_authenticator_that_cant_commit_admits_nobody() -> None:
    database = Database(ValueError("secret"))

    async def ticket(session: Session, ticket: str, db: Any) -> str:
        return "identity"

    async def requirement(session: Session) -> CRAAuthRequirement:
        return CRAAuthRequirement("key")

    async def identity(session: Session, db: Any) -> str:
        return "identity"

    app = Application()
    app.add_default_arg("db", factory=database.factory)
    app.set_ticket_authenticator(ticket)
    app.set_cra_handlers(requirement, identity)
    for login in ({"ticket": "ticket"}, {"secret": "key"}):
        with pytest.raises(WAMPError, match=r"wamp\.error\.authentication_failed"):
            async with connect(app, authid="joe", **login):
                pass
    assert database.log == ["begin", "rollback: ValueError"] * 2


async def test_an_authorizer_that_cant_commit_allows_nothing() -> None:
    app, database = Application(), Database(ValueError("secret"))
    app.add_default_arg("db", factory=database.factory)
    app.route("procedure")(anyio.lowlevel.checkpoint)

    @app.set_authorizer
    async def authorize(session: Session, db: Any) -> bool:
        return True

    async with connect(app) as client:
        assert (await call_error(client)).uri == "wamp.error.authorization_failed"
