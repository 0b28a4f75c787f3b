"""Clients that publish, serve and call each other in any order, against a model of a router.

A program is a list of steps. In each, one of the clients, or the application, does something;
everything comes to rest, and everybody has to have received what the model expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing.peers import Network, network, no_mistakes_logged, settle
from tests.fuzzing.router import (
    CLIENTS,
    POLICIES,
    PROCEDURES,
    REGISTRABLE,
    SUBSCRIBABLE,
    TOPICS,
    WATCHER,
    Router,
    RouterPeer,
)
from tests.helpers import broker_of, dealer_of

clients = st.integers(1, CLIENTS - 1)
numbers = st.integers(0, 3)
some_clients = st.lists(clients, max_size=3)
roles = st.lists(st.sampled_from(["even", "odd"]), max_size=2)
audience = {
    "exclude": some_clients,
    "eligible": some_clients,
    "exclude_authid": some_clients,
    "eligible_authid": some_clients,
    "exclude_authrole": roles,
    "eligible_authrole": roles,
}
options = st.fixed_dictionaries(
    {},
    optional={
        **audience,
        "acknowledge": st.booleans(),
        "exclude_me": st.booleans(),
        "disclose_me": st.booleans(),
    },
)
few_options = st.just({}) | st.just({"acknowledge": True}) | options
STEPS: Sequence[tuple[int, st.SearchStrategy[Any]]] = (
    (1, st.tuples(st.just("join"), st.integers(0, CLIENTS - 1))),
    (
        1,
        st.tuples(
            st.just("leave"),
            st.integers(0, CLIENTS - 1),
            st.sampled_from(["goodbye", "vanish", "violation"]),
        ),
    ),
    (4, st.tuples(st.just("subscribe"), clients, st.sampled_from(SUBSCRIBABLE))),
    (1, st.tuples(st.just("unsubscribe"), clients, numbers)),
    (
        4,
        st.tuples(
            st.just("publish"),
            clients,
            st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3),
            few_options,
        ),
    ),
    (
        1,
        st.tuples(
            st.just("publish_by_application"),
            st.sampled_from(TOPICS[:4]),
            st.fixed_dictionaries({}, optional=audience),
        ),
    ),
    (
        4,
        st.tuples(
            st.just("register"), clients, st.sampled_from(REGISTRABLE), st.sampled_from(POLICIES)
        ),
    ),
    (1, st.tuples(st.just("unregister"), clients, numbers)),
    (
        6,
        st.tuples(
            st.just("call"), clients, st.sampled_from(PROCEDURES), st.booleans(), st.booleans()
        ),
    ),
    (
        4,
        st.tuples(
            st.just("answer"),
            clients,
            numbers,
            st.sampled_from(["result", "result", "error", "progress", "twice"]),
        ),
    ),
    (
        2,
        st.tuples(
            st.just("cancel"),
            clients,
            numbers,
            st.sampled_from([None, "skip", "kill", "kill", "killnowait"]),
        ),
    ),
)
KINDS = [kind for weight, kind in STEPS for _ in range(weight)]


@st.composite  # for `one_of` would take as much of each
def steps(draw: st.DrawFn) -> Any:
    """Return a step; of those that end something there are few, so that programs live."""
    return draw(KINDS[draw(st.integers(0, len(KINDS) - 1))])


async def step(router: Router, connections: Network, name: str, *arguments: Any) -> None:
    """Do one thing, if it is possible now, and check what everybody has received."""
    if name == "publish_by_application":
        await router.publish_by_application(*arguments)
    else:
        number, *rest = arguments
        peer = router.peer(number)
        if name == "join":
            if peer is None:
                peer = RouterPeer(number)
                connections.add(peer)
                router.join(peer)
        elif peer is not None:
            getattr(router, name)(peer, *rest)
    await settle()
    router.check()


@pytest.mark.spec("PUB-03", "PUB-04", "PUB-05", "PAT-02", "PRE-03", "SHR-04", "CAN-12", "REG-08")
@pytest.mark.spec("MSE-01", "MSE-02", "MSU-01", "MRE-01", "CAL-01")
@given(program=st.lists(steps(), min_size=20, max_size=60))
async def test_everybody_receives_what_it_should(program: list[tuple[Any, ...]]) -> None:
    router = Router()
    with no_mistakes_logged():
        async with network(router.app) as connections:
            for number in range(CLIENTS):
                await step(router, connections, "join", number)
            for name, *arguments in program:
                await step(router, connections, name, *arguments)
            for number in (*range(WATCHER + 1, CLIENTS), WATCHER):
                await step(router, connections, "leave", number, "vanish")
        assert list(dealer_of(router.app)) == []
        assert list(broker_of(router.app)) == []
