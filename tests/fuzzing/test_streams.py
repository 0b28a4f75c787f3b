"""Streams into several calls of one session at once, in any order, against what has to arrive.

Whatever happens, every call has one answer, its handler has taken the chunks from the first one on
without a gap, and it has seen the end only if the client has sent all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverwamp import Application, Limits, RPCProgressReport, RPCResult, WAMPError
from serverwamp.testing import Client, PendingCall, connect
from tests.helpers import wait_all_tasks_blocked

PROCEDURES = ("all", "two", "echo", "slow", "nothing", "nobody")
OPTIONS = {"progress": True, "receive_progress": True}

actions = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(PROCEDURES)),
    st.tuples(st.just("chunk"), st.integers(0, 3)),
    st.tuples(st.just("chunk"), st.integers(0, 3)),
    st.tuples(st.just("chunk"), st.integers(0, 3)),
    st.tuples(st.just("rubbish"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 3), st.sampled_from(("kill", "skip", None))),
    st.tuples(st.just("call")),
    st.tuples(st.just("let"), st.integers(0, 9)),
    st.tuples(st.just("rest")),
)


@dataclass
class Sent:
    """A call as its client knows it."""

    procedure: str
    call: PendingCall
    chunks: list[int | str] = field(default_factory=list)
    is_complete: bool = False
    is_cancelled: bool = False


class Taking:
    """The application, and what its handlers have taken."""

    def __init__(self, *, synchronize: bool) -> None:
        limits = Limits(stream_chunks=2, busy_timeout=60)
        self.app = Application(synchronize_requests=synchronize, limits=limits)
        for procedure in (self.all, self.two, self.echo, self.slow, self.nothing, self.plain):
            self.app.route(procedure.__name__)(procedure)
        self.taken: dict[int, list[int]] = {}
        self.complete: set[int] = set()
        self.gates: list[anyio.Event] = []
        self.is_open = False

    async def _take(self, token: int, chunks: AsyncIterator[int]) -> AsyncIterator[int]:
        taken = self.taken[token] = []
        async for chunk in chunks:
            taken.append(chunk)
            yield chunk
        self.complete.add(token)

    async def all(self, token: int, chunks: AsyncIterator[int]) -> int:
        return len([chunk async for chunk in self._take(token, chunks)])

    async def two(self, token: int, chunks: AsyncIterator[int]) -> int:
        taken = self._take(token, chunks)
        async for _ in taken:
            if len(self.taken[token]) == 2:
                await taken.aclose()  # type: ignore[attr-defined]
        return len(self.taken[token])

    async def echo(self, token: int, chunks: AsyncIterator[int]) -> AsyncIterator[RPCResult]:
        async for chunk in self._take(token, chunks):
            yield RPCProgressReport([chunk])
        yield RPCResult([len(self.taken[token])])

    async def slow(self, token: int, chunks: AsyncIterator[int]) -> int:
        async for _ in self._take(token, chunks):
            if not self.is_open:
                self.gates.append(anyio.Event())
                await self.gates[-1].wait()
        return len(self.taken[token])

    async def nothing(self, token: int, chunks: AsyncIterator[int]) -> int:
        return 0

    async def plain(self) -> str:
        return "plain"

    def open(self) -> None:
        self.is_open = True
        for gate in self.gates:
            gate.set()


async def act(taking: Taking, client: Client, sent: list[Sent], action: Any) -> None:
    kind, *arguments = action
    open_calls = [call for call in sent if not call.is_complete]
    if kind == "start":
        (procedure,) = arguments
        call = await client.start_call(procedure, [len(sent)], **OPTIONS)
        sent.append(Sent(procedure, call))
    elif kind == "call":
        sent.append(Sent("plain", await client.start_call("plain"), is_complete=True))
    elif kind == "let":
        gates = [gate for gate in taking.gates if not gate.is_set()]
        if gates:
            gates[arguments[0] % len(gates)].set()
    elif kind == "rest":
        await wait_all_tasks_blocked()
    elif open_calls:
        one = open_calls[arguments[0] % len(open_calls)]
        if kind == "end":
            one.is_complete = True
            await one.call.end_chunks()
        elif kind == "cancel":
            one.is_cancelled = True
            await one.call.cancel(arguments[1])
        else:
            one.chunks.append(len(one.chunks) if kind == "chunk" else "rubbish")
            await one.call.send_chunk(one.chunks[-1])


def check(taking: Taking, token: int, sent: Sent, answer: Any) -> None:
    rubbish = "rubbish" in sent.chunks
    valid = sent.chunks[: sent.chunks.index("rubbish")] if rubbish else sent.chunks
    taken = taking.taken.get(token, [])
    assert taken == valid[: len(taken)]
    if token in taking.complete:
        assert taken == sent.chunks
        assert not sent.is_cancelled  # which came before the end
    match sent.procedure, answer:
        case _, "wamp.error.canceled":
            assert sent.is_cancelled
        case "nobody", error:
            assert error == "wamp.error.no_such_procedure"
        case "plain", result:
            assert result == "plain"
        case procedure, "wamp.error.invalid_argument":
            assert rubbish
            assert procedure in ("all", "two", "echo", "slow")
            assert taken == valid
        case procedure, count:
            assert count == len(taken)
            if procedure in ("all", "echo", "slow"):
                assert token in taking.complete


@pytest.mark.spec("PCI-01", "PCI-06", "PCI-08", "CAL-01", "CAL-11")
@given(program=st.lists(actions, max_size=40), synchronize=st.booleans())
async def test_streams_arrive_without_a_gap(program: list[Any], synchronize: bool) -> None:
    taking, sent = Taking(synchronize=synchronize), list[Sent]()
    async with connect(taking.app) as client:
        for action in program:
            await act(taking, client, sent, action)
        taking.open()
        for one in sent:
            if not one.is_complete:
                one.is_complete = True
                await one.call.end_chunks()
        for token, one in enumerate(sent):
            try:
                answer: Any = (await one.call.result()).args[0]
            except WAMPError as error:
                answer = error.uri
            await wait_all_tasks_blocked()
            check(taking, token, one, answer)
            if one.procedure == "echo" and isinstance(answer, int):
                reports = [(await one.call.progress()).args[0] for _ in range(answer)]
                assert reports == taking.taken[token]
        left = client.take_all()  # calls that were cancelled leave progress, and nothing else
        assert [m for m in left if m[0] != 50 or "progress" not in m[2]] == []
        await client.expect_nothing()
