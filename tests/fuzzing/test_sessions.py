"""Several sessions that say well-formed things in any order, against a model of what they hear.

A program is a list of bursts. What is in one burst happens at once: nobody has had a turn in
between, but for the application's own handlers, on some backends. After each burst everything
comes to rest, and the model is checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverwamp.protocol.serializers import SUBPROTOCOLS
from tests.fuzzing.model import (
    OPEN_TOPICS,
    PROCEDURES,
    REALMS,
    TOPICS,
    ClientPeer,
    ClientSession,
    Model,
    Request,
)
from tests.fuzzing.peers import Network, network, no_mistakes_logged, settle

CLIENTS = len(SUBPROTOCOLS)
VIOLATION = "wamp.error.protocol_violation"
ROLES = {"roles": {"caller": {}, "subscriber": {}}}
STRAYS: Sequence[list[Any]] = (
    [1, "a", ROLES],
    [5, "secret", {}],
    [2, 5, {}],
    [50, 1, {}],
    [70, 1, {}],
    [8, 68, 1, {}, "com.example.error"],
    [48],
)
"""What a client may not say in an open session."""


class Program:
    """What clients and the application can do, each method an action; a client for each format."""

    def __init__(self, model: Model, connections: Network) -> None:
        self.model = model
        self.connections = connections
        self.past: list[ClientPeer] = []
        for client in range(CLIENTS):
            self._connect(client)
            self.hello(client, REALMS[client // 3])

    def _connect(self, client: int) -> None:
        peer = ClientPeer(SUBPROTOCOLS[client])
        if len(self.model.peers) > client:
            self.past.append(self.model.peers[client])
            self.model.peers[client] = peer
        else:
            self.model.peers.append(peer)
        self.connections.add(peer)

    def _say(self, peer: ClientPeer, message: list[Any]) -> None:
        peer.outbox.append(message)
        peer.is_quiet = False

    def _flush(self) -> None:
        for peer in self.model.peers:
            if peer.outbox:
                peer.send(*peer.outbox)
                peer.outbox.clear()

    async def rest(self) -> None:
        """Let everything come to rest, and check it."""
        self._flush()
        await settle()
        self.model.check()

    async def run(self, burst: Sequence[tuple[Any, ...]], together: bool) -> None:
        """Do all of a burst; if `together`, what a client says in it arrives in one frame."""
        for name, *arguments in burst:
            action = getattr(self, name)(*arguments)
            if action is not None:
                await action
            if not together:
                self._flush()
        await self.rest()

    def _open(self, client: int) -> tuple[ClientPeer, ClientSession] | None:
        peer = self.model.peers[client]
        if peer.state == "open" and not peer.is_broken:
            return peer, peer.sessions[-1]
        return None

    def _request(self, client: int, kind: int, *rest: Any, **request: Any) -> Request | None:
        """Send a request, and note that it waits for a reply."""
        found = self._open(client)
        if found is None:
            return None
        peer, session = found
        session.last_request += 1
        noted = Request(kind, session.last_request, **request)
        session.requests[kind, noted.id] = noted
        self._say(peer, [kind, noted.id, *rest])
        return noted

    async def end(self, ending: str) -> None:
        """Let every client vanish, and everything come to its end."""
        for client in range(CLIENTS):
            self.resume(client)
        if ending == "calm":
            await self._let_all_through()
        elif ending == "shutdown":
            await self.shut_down()
        for client in range(CLIENTS):
            self.vanish(client)
        await self.rest()
        await self._let_all_through()

    async def _let_all_through(self) -> None:
        await self.rest()
        while self.model.gates:
            self.let_through(0)
            await self.rest()

    # ---- connections and sessions

    def hello(self, client: int, realm: str) -> None:
        peer = self.model.peers[client]
        if peer.state == "over" or peer.is_broken:
            if peer.is_served:
                peer.disconnect()
            self._connect(client)
            peer = self.model.peers[client]
        if peer.state != "new":
            return
        details = {**ROLES, "authmethods": ["ticket"]}
        if realm == "no roles":
            self._say(peer, [1, "a", {}])
            peer.ends(VIOLATION, 1002)
            return
        self._say(peer, [1, realm, details])
        if realm not in REALMS:
            invalid = " " in realm
            peer.ends(
                f"wamp.error.{'invalid_uri' if invalid else 'no_such_realm'}", 1000 + 2 * invalid
            )
            return
        peer.sessions.append(ClientSession(peer, realm))
        peer.state = "open"
        if realm == "guarded":
            peer.state = "challenged"

    def authenticate(self, client: int, ticket: str) -> None:
        peer = self.model.peers[client]
        if peer.state == "challenged" and not peer.is_broken:
            self._say(peer, [5, ticket, {}])
            peer.state = "open"
            if ticket != "secret":
                peer.ends("wamp.error.authentication_failed", 1000)

    def goodbye(self, client: int) -> None:
        peer = self.model.peers[client]
        if peer.is_broken or peer.state == "over":
            return
        self._say(peer, [6, {}, "wamp.close.normal"])
        if peer.state == "open":
            peer.state = "new"
            peer.sessions[-1].requests[6, 0] = Request(6, 0)
        elif peer.state == "closing":
            peer.ends(None, 1001 if peer.is_shut_down else 1000)
        else:
            peer.ends(VIOLATION, 1002)

    def abort(self, client: int) -> None:
        peer = self.model.peers[client]
        if not peer.is_broken and peer.state != "over":
            self._say(peer, [3, {}, "wamp.close.normal"])
            peer.ends(None, 1000)

    def vanish(self, client: int) -> None:
        peer = self.model.peers[client]
        self._flush()
        peer.disconnect()
        peer.state = "over"

    def lose_network(self, client: int) -> None:
        peer = self.model.peers[client]
        peer.is_broken = True
        peer.resume()
        peer.outbox.clear()

    def pause(self, client: int) -> None:
        peer = self.model.peers[client]
        peer.is_quiet = False
        peer.pause()

    def resume(self, client: int) -> None:
        self.model.peers[client].resume()

    def stray(self, client: int, message: list[Any]) -> None:
        found = self._open(client)
        if found is not None:
            self._say(found[0], message)
            found[0].ends(VIOLATION, 1002)

    def repeat_an_id(self, client: int, kind: int) -> None:
        """Use the id of a call that is open; one of a call that has ended may be used again."""
        found = self._open(client)
        if found is not None:
            peer, session = found
            self.call(client, "wait", False, 0, 0)
            self._say(peer, [kind, session.last_request, {}, "echo"])
            peer.ends(VIOLATION, 1002)

    # ---- requests

    def call(
        self, client: int, procedure: str, wants_progress: bool, timeout: int, gap: int
    ) -> None:
        found = self._open(client)
        if found is None:
            self.hello(client, "a")  # or else programs fade away
            return
        found[1].last_request += gap
        token = found[1].last_request + 1
        options = {"receive_progress": wants_progress, "timeout": timeout}
        call = self._request(
            client, 48, options, procedure, [token], uri=procedure, wants_progress=wants_progress
        )
        assert call is not None
        found[1].calls.append(call)

    def cancel(self, client: int, which: int, mode: str | None) -> None:
        found = self._open(client)
        if found is None:
            return
        peer, session = found
        request = 77_777
        if session.calls:
            call = session.calls[-1 - which % len(session.calls)]
            call.is_cancelled = True
            call.is_dropped |= mode != "kill"
            request = call.id
        self._say(peer, [49, request, {"mode": mode} if mode else {}])

    async def call_and_cancel(self, client: int, procedure: str, mode: str | None) -> None:
        self.call(client, procedure, True, 0, 0)
        await self.rest()
        self.cancel(client, 0, mode)

    def subscribe(self, client: int, topic: str) -> None:
        if self._request(client, 32, {}, topic, uri=topic) is not None:
            session = self.model.peers[client].sessions[-1]
            session.subscribed_from.setdefault(topic, len(self.model.publications))

    def unsubscribe(self, client: int, which: int) -> None:
        found = self._open(client)
        if found is None:
            return
        session = found[1]
        subscription = 77_777
        if session.subscriptions:
            subscription = sorted(session.subscriptions)[which % len(session.subscriptions)]
        is_first = all(
            request.subscription != subscription for request in session.requests.values()
        )
        self._request(
            client,
            34,
            subscription,
            uri=session.subscriptions.get(subscription, ""),
            subscription=subscription if subscription in session.subscriptions else 0,
            is_certain=is_first,
        )

    def ask_to_publish(self, client: int, acknowledge: bool) -> None:
        request = self._request(client, 16, {"acknowledge": acknowledge}, "plain")
        if request is not None and not acknowledge:
            del self.model.peers[client].sessions[-1].requests[16, request.id]

    def register(self, client: int) -> None:
        self._request(client, 64, {}, "com.example.mine")

    def unregister(self, client: int) -> None:
        found = self._open(client)
        if found is not None:
            registration = found[1].registration or 5
            self._request(client, 66, registration, subscription=registration)

    # ---- what the application does

    def let_through(self, which: int) -> None:
        waiting = [gate for gate in self.model.gates if not gate.passed.is_set()]
        if waiting:
            waiting[which % len(waiting)].passed.set()

    async def publish(
        self, realm: str, topic: str, excluded: set[int], eligible: set[int] | None
    ) -> None:
        await self.model.publish(
            realm,
            topic,
            excluded=self._ids(excluded),
            eligible=None if eligible is None else self._ids(eligible),
        )

    def _ids(self, clients: set[int]) -> frozenset[int]:
        sessions = (session for client in clients for session in self.model.peers[client].sessions)
        return frozenset(session.id for session in sessions if session.id is not None)

    def send_event(self, client: int, topic: str) -> None:
        sessions = self.model.peers[client].sessions
        if sessions and sessions[-1].id is not None:
            session = sessions[-1]
            number = self.model.note_event(
                session.realm, topic, eligible=frozenset([sessions[-1].id])
            )
            self.model.handles[sessions[-1].id].send_event(topic, ("sent", number))

    async def close(self, client: int, by_a_call: bool) -> None:
        await self.rest()
        found = self._open(client)
        if found is not None and found[0].is_quiet:
            peer, session = found
            if by_a_call and not self.model.is_busy(session):
                self.call(client, "close", False, 0, 0)
            else:
                assert session.id is not None
                await self.model.handles[session.id].close()
            peer.state = "closing"
            await self.rest()

    async def shut_down(self) -> None:
        """Close all sessions; some clients answer GOODBYE."""
        await self.rest()
        for peer in self.model.peers:
            if not peer.is_broken and peer.state != "over":
                self._expect_shutdown(peer)
        self.connections.start(self.model.app.close_sessions, 0)
        await self.rest()
        for client in range(0, CLIENTS, 2):
            self.goodbye(client)
        await self.rest()

    def _expect_shutdown(self, peer: ClientPeer) -> None:
        if peer.state == "open" and not self.model.is_held_up(peer):
            peer.state, peer.is_shut_down = "closing", True
            for request in peer.sessions[-1].requests.values():
                request.is_cancelled = request.is_dropped = True
        elif peer.state == "challenged":
            peer.ends("wamp.close.system_shutdown", 1001)
        elif peer.state == "new":
            peer.ends(None, 1001)

    async def eject(self, client: int) -> None:
        await self.rest()
        found = self._open(client)
        if found is not None and found[0].is_quiet:
            assert found[1].id is not None
            found[0].ends("wamp.error.not_authorized", 1000)
            await self.model.handles[found[1].id].abort()


clients = st.sampled_from([0, 0, 0, 1, 1, 2, 3])  # rather several things of one than one of each
groups = st.just(set()) | st.sets(clients, max_size=3)
positions = st.integers(0, 3)
modes = st.sampled_from([None, "kill", "killnowait", "skip"])
joining = st.one_of(
    st.tuples(
        st.just("hello"), clients, st.sampled_from([*REALMS, "nowhere", "not valid", "no roles"])
    ),
    st.tuples(st.just("authenticate"), clients, st.sampled_from(["secret", "secret", "wrong"])),
)
leaving = st.one_of(
    st.tuples(st.sampled_from(["goodbye", "abort", "vanish", "lose_network", "eject"]), clients),
    st.tuples(st.just("close"), clients, st.booleans()),
    st.tuples(st.just("stray"), clients, st.sampled_from(STRAYS)),
    st.tuples(st.just("repeat_an_id"), clients, st.sampled_from([48, 32, 16])),
)
serving = st.tuples(st.sampled_from(["register", "unregister"]), clients)
refused = st.tuples(st.just("ask_to_publish"), clients, st.booleans())
ACTIONS: Sequence[st.SearchStrategy[Any]] = (
    st.tuples(
        st.just("call"),
        clients,
        st.sampled_from([*PROCEDURES, *["wait", "drip", "linger"] * 3]),
        st.booleans(),
        st.sampled_from([0, 10**9]),
        st.sampled_from([0, 0, 5]),
    ),
    st.tuples(
        st.just("call_and_cancel"), clients, st.sampled_from(["wait", "drip", "linger"]), modes
    ),
    st.tuples(st.just("cancel"), clients, positions, modes),
    st.tuples(st.just("let_through"), positions),
    st.tuples(st.just("subscribe"), clients, st.sampled_from([*TOPICS, *OPEN_TOPICS * 3])),
    st.tuples(st.just("unsubscribe"), clients, positions),
    st.tuples(
        st.just("publish"),
        st.sampled_from(REALMS[:2]),
        st.sampled_from(OPEN_TOPICS),
        groups,
        st.none() | groups,
    ),
    st.tuples(st.just("send_event"), clients, st.sampled_from(OPEN_TOPICS)),
    st.tuples(st.sampled_from(["pause", "resume"]), clients),
    joining,
    leaving,
    st.one_of(serving, refused),
)


@st.composite  # for `one_of` would take as much of each part of its parts
def actions(draw: st.DrawFn) -> Any:
    """Return an action; of those that end something there are few, so that programs live."""
    return draw(ACTIONS[draw(st.integers(0, len(ACTIONS) - 1))])


bursts = st.tuples(st.lists(actions(), min_size=1, max_size=10), st.booleans())


@pytest.mark.spec("CAL-01", "CAL-11", "IDS-05", "ORD-01", "ORD-03", "ORD-07", "ORD-08", "SES-13")
@pytest.mark.spec("VIO-04", "WS-10", "PRG-03", "PRG-04", "CAN-08", "SUB-02", "SUB-03", "ABT-08")
@given(
    synchronize=st.booleans(),
    program=st.lists(bursts, min_size=1, max_size=20),
    ending=st.sampled_from(["calm", "shutdown", "sudden"]),
)
async def test_whatever_is_said_is_answered_as_it_should_be(
    synchronize: bool, program: list[Any], ending: str
) -> None:
    model = Model(synchronize=synchronize)
    with no_mistakes_logged():
        async with network(model.app) as connections:
            with model.no_gate_outlives_a_failure():
                connections.add(model.watcher)
                await settle()
                running = Program(model, connections)
                await running.rest()
                for burst, together in program:
                    await running.run(burst, together)
                await running.end(ending)
        model.check_the_end()
