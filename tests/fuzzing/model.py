"""A model of what clients may see of an application, and the application itself.

What clients send is noted in the model when it is sent. Whatever they receive has to be explained
by it; and when everything has come to rest, nothing that had to come may be missing, but for what
waits at a gate, where the application's handlers stay until they are let through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio

from serverwamp import (
    Application,
    Limits,
    Realm,
    RPCProgressReport,
    RPCRequest,
    RPCResult,
    Session,
    WAMPError,
)
from tests.fuzzing.peers import Peer
from tests.fuzzing.watcher import Watcher

REALMS = ("a", "b", "guarded")
PROCEDURES = {
    # what is answered: RESULT with the token, or ERROR of this URI
    "echo": None,
    "who": None,
    "count": None,
    "drip": None,
    "wait": None,
    "linger": None,
    "resource": None,
    "publish": None,
    "fail": "wamp.error.runtime_error",
    "refuse": "com.example.refused",
    "unsendable": "wamp.error.runtime_error",
    "surplus": "wamp.error.invalid_argument",
    "no.such": "wamp.error.no_such_procedure",
    "not valid": "wamp.error.invalid_uri",
}
TOPICS = {
    "plain": None,
    "greeting": None,
    "slow": None,
    "lingering": None,
    "refusing": "com.example.refused",
    "failing": "wamp.error.runtime_error",
    "no.such": "wamp.error.not_authorized",
    "not valid": "wamp.error.invalid_uri",
}
OPEN_TOPICS = tuple(topic for topic, error in TOPICS.items() if error is None)
CANCELED = "wamp.error.canceled"
NO_SUCH_SUBSCRIPTION = "wamp.error.no_such_subscription"


# ---- what the application has done


@dataclass(eq=False)
class Opening:
    """Something that a handler has opened, and has to close."""

    session: int
    name: str
    is_closed: bool = False


@dataclass(eq=False)
class Gate:
    """Where a handler waits until it is let through."""

    session: int
    key: tuple[str, Any]
    passed: anyio.Event


@dataclass(frozen=True)
class Publication:
    """An event that was published, or sent to one session."""

    number: int
    realm: str
    topic: str
    excluded: frozenset[int]
    eligible: frozenset[int] | None

    def is_for(self, session: int) -> bool:
        return session not in self.excluded and (self.eligible is None or session in self.eligible)


# ---- what clients have said and heard


@dataclass(eq=False)
class Request:
    """A request that waits for its reply."""

    kind: int
    id: int
    uri: str = ""
    wants_progress: bool = False
    progress: int = 0
    is_cancelled: bool = False
    is_dropped: bool = False
    """Whether the caller has cancelled the call so that it doesn't wait for its handler."""
    subscription: int = 0
    """What is to be ended: a subscription, or a registration."""
    is_certain: bool = True
    is_known_since: int | None = None
    """The number of the last publication before the server had certainly read the request."""


@dataclass(eq=False)
class ClientSession:
    """A session as its client knows it."""

    peer: ClientPeer
    realm: str
    id: int | None = None
    is_over: bool = False
    last_request: int = 0
    requests: dict[tuple[int, int], Request] = field(default_factory=dict)
    calls: list[Request] = field(default_factory=list)
    subscriptions: dict[int, str] = field(default_factory=dict)
    subscribed_from: dict[str, int] = field(default_factory=dict)
    """The number of the last publication before SUBSCRIBE, for each topic."""
    last_event: int = 0
    greetings: int = 0
    registration: int | None = None
    """The id of the procedure that it serves, if it does."""
    missing: set[int] = field(default_factory=set)
    """The events that have to come."""

    def waits_for(self, kind: int, uri: str) -> bool:
        """Tell whether a request of a kind about a URI isn't answered yet."""
        return any((r.kind, r.uri) == (kind, uri) for r in self.requests.values())


class ClientPeer(Peer):
    """A connection, its sessions, and how it has to end."""

    def __init__(self, subprotocol: str) -> None:
        super().__init__(subprotocol)
        self.state = "new"
        """What the server's state will be when it has read everything."""
        self.end: tuple[str | None, int] | None = None
        """The reason of the ABORT, if there is to be one, and the close code."""
        self.sessions: list[ClientSession] = []
        self.heard = 0
        """How many sessions have ended with GOODBYE, so that what comes is of the next."""
        self.read = 0
        """How many messages have been looked at."""
        self.is_quiet = True
        """Whether all that was sent has been dealt with, and all that was answered received."""
        self.outbox: list[Any] = []
        self.is_shut_down = False

    def ends(self, reason: str | None, code: int) -> None:
        self.state, self.end = "over", (reason, code)


class Model:
    """The application, and what every client may and must see of it."""

    def __init__(self, *, synchronize: bool) -> None:
        self.synchronize = synchronize
        self.openings: list[Opening] = []
        self.gates: list[Gate] = []
        self.handles: dict[int, Session] = {}
        self.publications: dict[int, Publication] = {}
        self.peers: list[ClientPeer] = []
        self.is_failed = False
        self.app = self._application()
        self.watcher = Watcher("a", self.realms["a"])

    # ---- the application

    def _application(self) -> Application:
        limits = Limits(hello_timeout=600, authentication_timeout=600, goodbye_timeout=600)
        app = Application(False, synchronize_requests=self.synchronize, limits=limits)
        self.realms = {uri: Realm(uri) for uri in REALMS}
        for realm in self.realms.values():
            self._add_procedures(realm)
            self._add_topics(realm)
            self._add_the_rest(realm)
            app.add_realm(realm)
        self.realms["a"].set_meta_api("anonymous")

        async def authenticate(session: Session, ticket: str) -> str | None:
            return "joe" if ticket == "secret" else None

        self.realms["guarded"].set_ticket_authenticator(authenticate)
        return app

    @contextmanager
    def _open(self, name: str, session: int) -> Iterator[None]:
        opening = Opening(session, name)
        self.openings.append(opening)
        try:
            yield
        finally:
            opening.is_closed = True

    async def _pass_gate(self, session: int, *key: Any) -> None:
        if self.is_failed:
            return
        gate = Gate(session, key, anyio.Event())
        self.gates.append(gate)
        try:
            await gate.passed.wait()
        finally:
            self.gates.remove(gate)

    @contextmanager
    def no_gate_outlives_a_failure(self) -> Iterator[None]:
        """Let everybody through when something fails, for some gates hold out a cancellation."""
        try:
            yield
        except BaseException:
            self.is_failed = True
            for gate in self.gates:
                gate.passed.set()
            raise

    def _add_the_rest(self, realm: Realm) -> None:
        async def lifespan(session: Session) -> AsyncIterator[None]:
            self.handles[session.id] = session
            with self._open("lifespan", session.id):
                yield

        async def resource() -> AsyncIterator[str]:
            with self._open("resource", 0):
                yield "resource"

        realm.add_session_lifespan_handler(lifespan)
        realm.add_default_arg("resource", factory=resource)

    def _add_procedures(self, realm: Realm) -> None:
        @realm.route("echo")
        async def echo(token: int) -> int:
            return token

        @realm.route("who")
        async def who(token: int, session: Session) -> RPCResult:
            return RPCResult((token, session.id, session.realm))

        @realm.route("count")
        async def count(token: int, request: RPCRequest) -> AsyncIterator[Any]:
            with self._open("call", request.session.id):
                for n in range(3):
                    yield RPCProgressReport((token, n))
                yield token

        @realm.route("drip")
        async def drip(token: int, request: RPCRequest) -> AsyncIterator[Any]:
            with self._open("call", request.session.id):
                for n in range(2):
                    yield RPCProgressReport((token, n))
                    await self._pass_gate(request.session.id, "call", request.id)
                yield token

        @realm.route("wait")
        async def wait(token: int, request: RPCRequest) -> int:
            with self._open("call", request.session.id):
                await self._pass_gate(request.session.id, "call", request.id)
            return token

        @realm.route("linger")
        async def linger(token: int, request: RPCRequest, resource: str) -> int:
            with self._open("call", request.session.id):
                try:
                    await self._pass_gate(request.session.id, "call", request.id)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._pass_gate(request.session.id, "call", request.id)
            return token

        @realm.route("resource")
        async def use_resource(token: int, resource: str) -> int:
            assert resource == "resource"
            return token

        @realm.route("publish")
        async def publish(token: int, session: Session) -> RPCResult:
            return RPCResult((token, await self.publish(session.realm, "plain")))

        @realm.route("fail")
        async def fail(token: int) -> None:
            raise RuntimeError("this belongs to the test")

        @realm.route("refuse")
        async def refuse(token: int, resource: str) -> None:
            raise WAMPError("com.example.refused", (token,))

        @realm.route("unsendable")
        async def unsendable(token: int) -> object:
            return object()

        @realm.route("surplus")
        async def surplus() -> None: ...

        @realm.route("close")
        async def close(token: int, session: Session) -> None:
            await session.close()

    def _add_topics(self, realm: Realm) -> None:
        @realm.topic("plain")
        async def plain(session: Session, resource: str) -> AsyncIterator[None]:
            with self._open("plain", session.id):
                yield

        @realm.topic("greeting")
        async def greeting(session: Session) -> AsyncIterator[None]:
            with self._open("greeting", session.id):
                session.send_event(args=("greeting", session.id))
                yield

        @realm.topic("slow")
        async def slow(session: Session) -> AsyncIterator[None]:
            await self._pass_gate(session.id, "topic", "slow")
            with self._open("slow", session.id):
                yield

        @realm.topic("lingering")
        async def lingering(session: Session) -> AsyncIterator[None]:
            with self._open("lingering", session.id):
                yield
                await self._pass_gate(session.id, "topic", "lingering")

        @realm.topic("refusing")
        async def refusing(session: Session, resource: str) -> AsyncIterator[None]:
            session.send_event(args=("never",))
            raise WAMPError("com.example.refused")
            yield

        @realm.topic("failing")
        async def failing() -> AsyncIterator[None]:
            raise RuntimeError("this belongs to the test")
            yield

    # ---- events

    def note_event(
        self,
        realm: str,
        topic: str,
        excluded: frozenset[int] = frozenset(),
        eligible: frozenset[int] | None = None,
    ) -> int:
        """Note an event that is about to be sent, and to whom it has to come."""
        number = len(self.publications) + 1
        publication = Publication(number, realm, topic, excluded, eligible)
        self.publications[number] = publication
        for peer in self.peers:
            session = peer.sessions[-1] if peer.state == "open" and peer.is_quiet else None
            if (
                session is not None
                and session.realm == realm
                and session.id is not None
                and topic in session.subscriptions.values()
                and not session.waits_for(34, topic)
                and publication.is_for(session.id)
            ):
                session.missing.add(number)
        return number

    async def publish(self, realm: str, topic: str, **to: Any) -> int:
        number = self.note_event(realm, topic, **to)
        excluded, eligible = to.get("excluded", ()), to.get("eligible")
        await self.realms[realm].publish(
            topic, ("published", number), exclude=excluded, eligible=eligible
        )
        return number

    # ---- what clients receive

    def read(self, peer: ClientPeer) -> None:
        """Check what a peer has received since it was last looked at."""
        while peer.read < len(peer.messages):
            message = peer.messages[peer.read]
            peer.read += 1
            if message[0] == 3:
                assert peer.end is not None
                assert message[2] == peer.end[0]
                assert peer.read == len(peer.messages), "something after ABORT"
                return
            self._read(peer, peer.sessions[peer.heard], message)

    def _read(self, peer: ClientPeer, session: ClientSession, message: list[Any]) -> None:
        match message:
            case [4, "ticket", {}]:
                assert session.realm == "guarded"
                assert session.id is None
            case [2, int(id_), dict(details)]:
                assert session.id is None
                assert details["realm"] == session.realm
                others = (other.id for peer in self.peers for other in peer.sessions)
                assert id_ not in others
                session.id = id_
            case [6, {}, "wamp.close.goodbye_and_out"]:
                assert (6, 0) in session.requests
                self._end(session)
                peer.heard += 1
            case [6, {}, "wamp.close.close_realm" | "wamp.close.system_shutdown" as reason]:
                assert peer.state in ("closing", "over")
                assert (reason == "wamp.close.system_shutdown") == peer.is_shut_down
                self._end(session)
            case [int(), *_]:
                assert session.id is not None
                assert not session.is_over
                self._read_in_session(session, message)
            case _:
                raise AssertionError(message)

    def _end(self, session: ClientSession) -> None:
        session.is_over = True
        session.requests.clear()
        session.missing.clear()

    def _read_in_session(self, session: ClientSession, message: list[Any]) -> None:
        match message:
            case [50, request, {"progress": True}, [_, number]]:
                call = session.requests[48, request]
                assert call.wants_progress
                assert message[3] == [call.id, call.progress]
                assert number == call.progress
                call.progress += 1
            case [50, request, {}, args]:
                call = session.requests.pop((48, request))
                self._check_result(session, call, args)
            case [33, request, subscription]:
                topic = session.requests.pop((32, request)).uri
                assert TOPICS[topic] is None
                known = {uri: id_ for id_, uri in session.subscriptions.items()}
                assert known.get(topic, subscription) == subscription
                assert session.subscriptions.get(subscription, topic) == topic
                session.subscriptions[subscription] = topic
            case [35, request]:
                unsubscribe = session.requests.pop((34, request))
                topic = session.subscriptions.pop(unsubscribe.subscription)
                session.missing = {
                    n for n in session.missing if self.publications[n].topic != topic
                }
            case [36, subscription, int(), {}, args]:
                self._check_event(session, session.subscriptions[subscription], args)
            case [65, request, registration]:
                del session.requests[64, request]
                assert session.registration is None
                session.registration = registration
            case [67, request]:
                unregister = session.requests.pop((66, request))
                assert unregister.subscription == session.registration
                session.registration = None
            case [8, 64, request, {}, "wamp.error.procedure_already_exists", *_]:
                del session.requests[64, request]
                assert session.registration is not None
            case [8, 66, request, {}, "wamp.error.no_such_registration", *_]:
                unregister = session.requests.pop((66, request))
                assert unregister.subscription != session.registration
            case [8, kind, request, {}, error, *_]:
                refused = session.requests.pop((kind, request))
                self._check_error(refused, error)
                if error == CANCELED and self._holds_out(refused):
                    assert ("call", request) not in [g.key for g in self._gates_of(session)]
            case _:
                raise AssertionError(message)

    def _check_result(self, session: ClientSession, call: Request, args: list[Any]) -> None:
        assert PROCEDURES[call.uri] is None
        if call.uri == "who":
            assert args == [call.id, session.id, session.realm]
        elif call.uri == "publish":
            assert args[0] == call.id
            assert self.publications[args[1]].realm == session.realm
        else:
            assert args == [call.id]
        if call.wants_progress:
            assert call.progress == {"count": 3, "drip": 2}.get(call.uri, 0)

    def _check_event(self, session: ClientSession, topic: str, args: list[Any]) -> None:
        if args[0] == "greeting":
            assert (topic, args[1]) == ("greeting", session.id)
            session.greetings += 1
            return
        number = args[1]
        publication = self.publications[number]
        assert session.id is not None
        assert (publication.realm, publication.topic) == (session.realm, topic)
        assert publication.is_for(session.id)
        assert number > session.subscribed_from[topic], "an event from before the subscription"
        assert number > session.last_event, "an event out of order"
        for request in session.requests.values():
            if request.kind == 34 and request.uri == topic and request.is_known_since is not None:
                assert number <= request.is_known_since, "an event after UNSUBSCRIBE"
        session.last_event = number
        session.missing.discard(number)

    def _check_error(self, request: Request, error: str) -> None:
        match request.kind:
            case 48:
                assert error == PROCEDURES[request.uri] or (
                    error == CANCELED and request.is_cancelled
                )
            case 32:
                assert error == TOPICS[request.uri]
            case 34:
                assert error == NO_SUCH_SUBSCRIPTION
                assert not (request.subscription and request.is_certain)
            case 16:
                assert error == "wamp.error.not_authorized"
            case _:
                raise AssertionError(error)

    # ---- when everything has come to rest

    def check(self) -> None:
        """Check that nothing is missing, and nothing is left of what is over."""
        self.watcher.check()
        for peer in self.peers:
            assert peer.faults == []
            self.read(peer)
            if peer.is_paused or peer.is_broken or self.is_held_up(peer):
                continue
            if peer.end is not None:
                assert peer.close_code == peer.end[1], (peer.close_code, peer.end)
                assert (peer.messages[-1:] or [[0]])[0][0] == 3 or peer.end[0] is None
            else:
                assert peer.close_code is None
                if peer.state == "open":
                    self._check_session(peer.sessions[-1])
            peer.is_quiet = True
        self._check_what_is_open()

    def _gates_of(self, *sessions: ClientSession) -> list[Gate]:
        ids = [session.id for session in sessions]
        return [gate for gate in self.gates if gate.session in ids]

    def is_held_up(self, peer: ClientPeer) -> bool:
        """Tell whether a session that has ended is still closing what it has opened."""
        return bool(self._gates_of(*peer.sessions[: peer.heard]))

    def _check_session(self, session: ClientSession) -> None:
        assert session.id is not None
        for request in session.requests.values():
            assert self._may_wait(session, request), request
            if request.is_known_since is None:
                request.is_known_since = len(self.publications)
        assert session.missing == set()
        greetings = [o for o in self._openings_of(session) if o.name == "greeting"]
        assert session.greetings == len(greetings)
        opened = {o.name for o in self._openings_of(session) if not o.is_closed}
        closing = {gate.key[1] for gate in self._gates_of(session)}
        assert opened & set(OPEN_TOPICS) - closing == set(session.subscriptions.values()) - closing
        assert "lifespan" in opened
        if self.synchronize:
            assert sum(gate.key[0] == "call" for gate in self._gates_of(session)) <= 1

    def _may_wait(self, session: ClientSession, request: Request) -> bool:
        keys = [gate.key for gate in self._gates_of(session)]
        if request.kind == 48:
            if ("call", request.id) in keys:
                return not request.is_cancelled or self._holds_out(request)
            return self.is_busy(session) and not request.is_cancelled
        return request.kind in (32, 34) and ("topic", request.uri) in keys

    @staticmethod
    def _holds_out(request: Request) -> bool:
        """Tell whether a call that was cancelled isn't to be answered before its handler ends."""
        return request.uri == "linger" and not request.is_dropped

    def is_busy(self, session: ClientSession) -> bool:
        """Tell whether calls wait for another one's end."""
        return self.synchronize and any(g.key[0] == "call" for g in self._gates_of(session))

    def _openings_of(self, session: ClientSession) -> list[Opening]:
        return [opening for opening in self.openings if opening.session == session.id]

    def _check_what_is_open(self) -> None:
        certain = [p for p in self.peers if not p.is_paused and not p.is_broken]
        open_now = {
            peer.sessions[-1].id
            for peer in certain
            if peer.state == "open" and not self.is_held_up(peer)
        }
        all_open = set(self.app.sessions) - {self.watcher.id}
        assert open_now <= all_open
        if len(certain) == len(self.peers):
            assert open_now == all_open
        ids: dict[tuple[str, str], int] = {}
        for peer in certain:
            if peer.end is not None and not self._gates_of(*peer.sessions):
                assert not peer.is_served
            for session in peer.sessions:
                if session.id in open_now:
                    for id_, topic in session.subscriptions.items():
                        assert ids.setdefault((session.realm, topic), id_) == id_
                elif session.id is not None and not self._gates_of(session):
                    left = {o.name for o in self._openings_of(session) if not o.is_closed}
                    is_closing = peer.state == "closing" and session is peer.sessions[-1]
                    assert left == ({"lifespan"} if is_closing else set())

    def check_the_end(self) -> None:
        """Check that all that was opened is closed, once everybody is gone."""
        assert self.gates == []
        assert all(opening.is_closed for opening in self.openings)
        lifespans = [opening.session for opening in self.openings if opening.name == "lifespan"]
        assert len(lifespans) == len(set(lifespans))
