"""A model of a router: what each of several clients receives when one of them says something.

The model is another implementation of the rules, as plain as can be: lists, searched from the
beginning. After each step it knows what everybody has to have received, message by message. Ids are
what the application says; they have to be the same wherever the same is meant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serverwamp import Application, Limits, Session
from serverwamp.protocol.serializers import SUBPROTOCOLS
from tests.fuzzing.peers import Peer

CLIENTS = 5
WATCHER = 0
"""The client that hears the meta events, and does nothing else."""
SUBSCRIBABLE: Sequence[tuple[str, str]] = (
    ("t.a", "exact"),
    ("t.a.x", "exact"),
    ("t.a.x", "exact"),
    ("u.a", "exact"),
    ("not valid", "exact"),
    ("t.", "prefix"),
    ("t.a", "prefix"),
    ("", "prefix"),
    ("t..x", "wildcard"),
    ("t.a.", "wildcard"),
    ("..", "wildcard"),
)
TOPICS = ("t.a", "t.a.x", "t.a.x", "t.ab", "u.a", "not valid")
REGISTRABLE: Sequence[tuple[str, str]] = (
    ("p.a.b", "exact"),
    ("p.a.b", "exact"),
    ("p.app", "exact"),
    ("q.a", "exact"),
    ("not valid", "exact"),
    ("p.", "prefix"),
    ("p.c", "prefix"),
    ("p..b", "wildcard"),
    ("p.a.", "wildcard"),
)
PROCEDURES = (
    "p.not valid",
    "p.a.b",
    "p.a.b",
    "p.c.b",
    "p.cd",
    "p.a.c",
    "p.app",
    "q.a",
    "not valid",
)
POLICIES = ("roundrobin", "roundrobin", "single", "first", "last")
FEATURES = {"features": {"progressive_call_results": True, "call_canceling": True}}
ROLES = {"caller": FEATURES, "callee": FEATURES, "publisher": {}, "subscriber": {}}
CANCELED = "wamp.error.canceled"
META_TOPICS = (
    "wamp.session.on_join",
    "wamp.session.on_leave",
    *(f"wamp.subscription.on_{what}" for what in ("create", "subscribe", "unsubscribe", "delete")),
    *(f"wamp.registration.on_{what}" for what in ("create", "register", "unregister", "delete")),
)

Pattern = tuple[str, str]


def is_valid(uri: str, match: str) -> bool:
    return " " not in uri and (match != "exact" or "" not in uri.split("."))


def matches(pattern: Pattern, uri: str) -> bool:
    text, match = pattern
    if match == "exact":
        return text == uri
    if match == "prefix":
        return uri.startswith(text)
    wanted, given = text.split("."), uri.split(".")
    return len(wanted) == len(given) and all(
        w in ("", g) for w, g in zip(wanted, given, strict=True)
    )


def rank(pattern: Pattern) -> tuple[Any, ...]:
    """Return what the best of several patterns that match has most of."""
    text, match = pattern
    if match == "exact":
        return (2,)
    return (1, len(text)) if match == "prefix" else (0, [part != "" for part in text.split(".")])


class Id:
    """An id that the application chooses: known once it was said for the first time."""

    def __init__(self) -> None:
        self.value: int | None = None

    def agrees(self, said: Any) -> bool:
        if self.value is None:
            assert isinstance(said, int)
            self.value = said
        return self.value == said

    def __repr__(self) -> str:
        return f"Id({self.value})"


ANYTHING = object()


def agrees(expected: Any, said: Any) -> bool:
    """Tell whether something that was said is what was expected, as far as that is known."""
    if expected is ANYTHING:
        return True
    if isinstance(expected, Id):
        return isinstance(said, int) and expected.value in (None, said)
    if isinstance(expected, list) and isinstance(said, list):
        return len(expected) == len(said) and all(map(agrees, expected, said))
    if isinstance(expected, dict) and isinstance(said, dict):
        return expected.keys() == said.keys() and all(agrees(expected[k], said[k]) for k in said)
    return bool(expected == said)


def learn(expected: Any, said: Any) -> None:
    """Take over the ids of what was said."""
    if isinstance(expected, Id):
        assert expected.agrees(said), (expected, said)
    elif isinstance(expected, list):
        for item, value in zip(expected, said, strict=True):
            learn(item, value)
    elif isinstance(expected, dict):
        for key, item in expected.items():
            learn(item, said[key])


@dataclass(eq=False)
class Entry:
    """A subscription or registration, and who has it, in the order in which they came."""

    pattern: Pattern
    invoke: str = "single"
    holders: list[RouterPeer] = field(default_factory=list)
    id: Id = field(default_factory=Id)
    turn: int = 0

    def leave(self, peer: RouterPeer) -> None:
        place = self.holders.index(peer)
        self.holders.remove(peer)
        if place < self.turn:
            self.turn -= 1


@dataclass(eq=False)
class ForwardedCall:
    """A call that a client is to answer."""

    caller: RouterPeer
    request: int
    callee: RouterPeer
    invocation: int
    wants_progress: bool
    is_killed: bool = False


class RouterPeer(Peer):
    """A client, as the model knows it."""

    def __init__(self, number: int) -> None:
        super().__init__(SUBPROTOCOLS[number % len(SUBPROTOCOLS)])
        self.number = number
        self.session: Id = Id()
        self.is_open = False
        self.last_request = 0
        self.invocations = 0
        self.expected: list[list[Any]] = []
        self.read = 0

    @property
    def role(self) -> str:
        return "even" if self.number % 2 == 0 else "odd"

    def next_request(self) -> int:
        self.last_request += 1
        return self.last_request


class Router:
    """The application, and what everybody has to hear of it."""

    def __init__(self) -> None:
        self.app = self._application()
        self.peers: list[RouterPeer | None] = [None] * CLIENTS
        self.subscriptions: list[Entry] = []
        self.registrations: list[Entry] = []
        self.private: list[tuple[RouterPeer, Pattern, Id]] = []
        self.calls: list[ForwardedCall] = []
        self.tokens = 0

    def _application(self) -> Application:
        limits = Limits(hello_timeout=600, goodbye_timeout=600, invocation_timeout=600)
        app = Application(limits=limits)
        app.client_register("p.", match="prefix")
        app.set_meta_api(lambda session: session.auth_id == f"client{WATCHER}")

        async def authenticate(session: Session) -> str:
            number = int(session.auth_extra["number"])
            session.auth_id = f"client{number}"
            session.auth_role = "even" if number % 2 == 0 else "odd"
            return session.auth_id

        app.add_transport_authenticator(authenticate)

        @app.prefix_topic("t.", client_publish=True)
        async def listen() -> AsyncIterator[None]:
            yield

        @app.route("p.app")
        async def served_by_the_application(token: int) -> int:
            return token

        return app

    def token(self) -> int:
        self.tokens += 1
        return self.tokens

    def open_peers(self) -> list[RouterPeer]:
        return [peer for peer in self.peers if peer is not None and peer.is_open]

    def peer(self, number: int) -> RouterPeer | None:
        peer = self.peers[number]
        return peer if peer is not None and peer.is_open else None

    # ---- what is expected

    def meta(self, topic: str, *args: Any) -> None:
        """Expect a meta event at the client that hears them."""
        watcher = self.peer(WATCHER)
        if watcher is not None and watcher.last_request == len(META_TOPICS):
            watcher.expected.append([36, Id(), Id(), {}, [*args]])

    def check(self) -> None:
        """Check that everybody has received what was expected, and nothing else."""
        for peer in self.peers:
            if peer is None:
                continue
            assert peer.faults == []
            said, peer.read = peer.messages[peer.read :], len(peer.messages)
            for message in said:
                found = next((e for e in peer.expected if agrees(e, message)), None)
                assert found is not None, (peer.number, message, peer.expected)
                learn(found, message)
                peer.expected.remove(found)
            assert peer.expected == [], (peer.number, said)
        assert len({entry.id.value for entry in self.subscriptions}) == len(self.subscriptions)

    # ---- sessions

    def join(self, peer: RouterPeer) -> None:
        self.peers[peer.number] = peer
        peer.send([1, "realm1", {"roles": ROLES, "authextra": {"number": peer.number}}])
        peer.expected.append([2, peer.session, ANYTHING])
        self.meta("wamp.session.on_join", ANYTHING)
        peer.is_open = True
        if peer.number == WATCHER:
            for topic in META_TOPICS:
                request = peer.next_request()
                peer.send([32, request, {}, topic])
                peer.expected.append([33, request, Id()])

    def leave(self, peer: RouterPeer, how: str) -> None:
        """Let a client go: by GOODBYE, without a word, or by what it must not say."""
        if how == "goodbye":
            peer.send([6, {}, "wamp.close.close_realm"])
            peer.expected.append([6, {}, "wamp.close.goodbye_and_out"])
        elif how == "violation":
            peer.send([70, peer.invocations + 1, {}])
            peer.expected.append([3, ANYTHING, "wamp.error.protocol_violation"])
        else:
            peer.disconnect()
        peer.is_open = False
        for call in [c for c in self.calls if c.caller is peer]:
            self.calls.remove(call)
            if call.callee is not peer:
                self._tell(call.callee, [69, call.invocation, {"mode": "killnowait"}])
        for call in [c for c in self.calls if c.callee is peer]:
            self.calls.remove(call)
            self._tell(call.caller, self._error(48, call.request, CANCELED))
        self.private = [private for private in self.private if private[0] is not peer]
        for entry in [entry for entry in self.registrations if peer in entry.holders]:
            self._leave_entry(self.registrations, "registration", entry, peer)
        for entry in [entry for entry in self.subscriptions if peer in entry.holders]:
            self._leave_entry(self.subscriptions, "subscription", entry, peer)
        self.meta("wamp.session.on_leave", peer.session, f"client{peer.number}", peer.role)

    def _tell(self, peer: RouterPeer, message: list[Any]) -> None:
        if peer.is_open:
            peer.expected.append(message)

    @staticmethod
    def _error(kind: int, request: int, uri: str) -> list[Any]:
        return [8, kind, request, {}, uri, ANYTHING]

    # ---- subscriptions and registrations

    def _enter_entry(self, table: list[Entry], what: str, entry: Entry, peer: RouterPeer) -> None:
        joined = {"subscription": "subscribe", "registration": "register"}[what]
        if not entry.holders:
            table.append(entry)
            self.meta(f"wamp.{what}.on_create", peer.session, ANYTHING)
        entry.holders.append(peer)
        self.meta(f"wamp.{what}.on_{joined}", peer.session, entry.id)

    def _leave_entry(self, table: list[Entry], what: str, entry: Entry, peer: RouterPeer) -> None:
        left = {"subscription": "unsubscribe", "registration": "unregister"}[what]
        entry.leave(peer)
        self.meta(f"wamp.{what}.on_{left}", peer.session, entry.id)
        if not entry.holders:
            table.remove(entry)
            self.meta(f"wamp.{what}.on_delete", peer.session, entry.id)

    def subscribe(self, peer: RouterPeer, pattern: Pattern) -> None:
        request, (topic, match) = peer.next_request(), pattern
        peer.send([32, request, {"match": match}, topic])
        if not is_valid(topic, match):
            peer.expected.append(self._error(32, request, "wamp.error.invalid_uri"))
        elif not topic.startswith("t."):
            peer.expected.append(self._error(32, request, "wamp.error.not_authorized"))
        else:
            known = (entry for entry in self.subscriptions if entry.pattern == pattern)
            entry = next(known, None) or Entry(pattern)
            if peer not in entry.holders:
                self._enter_entry(self.subscriptions, "subscription", entry, peer)
            peer.expected.append([33, request, entry.id])

    def unsubscribe(self, peer: RouterPeer, number: int) -> None:
        held = [entry for entry in self.subscriptions if peer in entry.holders]
        request = peer.next_request()
        if not held:
            peer.send([34, request, 4711])
            peer.expected.append(self._error(34, request, "wamp.error.no_such_subscription"))
            return
        entry = held[number % len(held)]
        peer.send([34, request, entry.id.value])
        peer.expected.append([35, request])
        self._leave_entry(self.subscriptions, "subscription", entry, peer)

    def register(self, peer: RouterPeer, pattern: Pattern, invoke: str) -> None:
        request, (uri, match) = peer.next_request(), pattern
        peer.send([64, request, {"match": match, "invoke": invoke}, uri])
        entry = next((entry for entry in self.registrations if entry.pattern == pattern), None)
        is_held = any(p is peer and held == pattern for p, held, _ in self.private)
        if not is_valid(uri, match):
            peer.expected.append(self._error(64, request, "wamp.error.invalid_uri"))
        elif (
            uri == "p.app"
            or is_held
            or (
                entry is not None
                and (invoke == "single" or invoke != entry.invoke or peer in entry.holders)
            )
        ):
            peer.expected.append(self._error(64, request, "wamp.error.procedure_already_exists"))
        elif not uri.startswith("p."):
            id_ = Id()
            self.private.append((peer, pattern, id_))
            peer.expected.append([65, request, id_])
        else:
            entry = entry or Entry(pattern, invoke)
            self._enter_entry(self.registrations, "registration", entry, peer)
            peer.expected.append([65, request, entry.id])

    def unregister(self, peer: RouterPeer, number: int) -> None:
        held = [entry for entry in self.registrations if peer in entry.holders]
        request = peer.next_request()
        if not held:
            peer.send([66, request, 4711])
            peer.expected.append(self._error(66, request, "wamp.error.no_such_registration"))
            return
        entry = held[number % len(held)]
        peer.send([66, request, entry.id.value])
        peer.expected.append([67, request])
        self._leave_entry(self.registrations, "registration", entry, peer)

    # ---- events

    def publish(self, peer: RouterPeer, topics: Sequence[str], options: Mapping[str, Any]) -> None:
        """Let a client publish several events at once; sessions are named by their clients."""
        said = []
        for topic in topics:
            request, token = peer.next_request(), self.token()
            said.append([16, request, self._named(options), topic, [token]])
            acknowledged = options.get("acknowledge", False)
            if not is_valid(topic, "exact"):
                error = "wamp.error.invalid_uri"
            elif not topic.startswith("t."):
                error = "wamp.error.not_authorized"
            else:
                publication = Id()
                if acknowledged:
                    peer.expected.append([17, request, publication])
                self._expect_events(topic, token, publication, options, peer)
                continue
            if acknowledged:
                peer.expected.append(self._error(16, request, error))
        peer.send(*said)

    async def publish_by_application(self, topic: str, options: Mapping[str, Any]) -> None:
        token, publication = self.token(), Id()
        self._expect_events(topic, token, publication, options, None)
        publication.agrees(await self.app.publish(topic, [token], **self._named(options)))

    def _named(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options with ids instead of the numbers of clients."""
        named = dict(options)
        for name in ("exclude", "eligible"):
            if name in named:
                peers = [self.peer(number) for number in named[name]]
                named[name] = [p.session.value for p in peers if p is not None]
        for name in ("exclude_authid", "eligible_authid"):
            if name in named:
                named[name] = [f"client{number}" for number in named[name]]
        return named

    def _expect_events(
        self,
        topic: str,
        token: int,
        publication: Id,
        options: Mapping[str, Any],
        publisher: RouterPeer | None,
    ) -> None:
        for entry in self.subscriptions:
            if not matches(entry.pattern, topic):
                continue
            details: dict[str, Any] = {} if entry.pattern[1] == "exact" else {"topic": topic}
            if publisher is not None and options.get("disclose_me"):
                details["publisher"] = publisher.session
                details["publisher_authid"] = f"client{publisher.number}"
                details["publisher_authrole"] = publisher.role
            for peer in entry.holders:
                if peer is publisher and options.get("exclude_me", True):
                    continue
                values = {"": peer.number, "_authid": peer.number, "_authrole": peer.role}
                if all(
                    value not in options.get(f"exclude{kind}", ())
                    and value in options.get(f"eligible{kind}", (value,))
                    for kind, value in values.items()
                ):
                    peer.expected.append([36, entry.id, publication, details, [token]])

    # ---- calls

    def call(self, peer: RouterPeer, uri: str, discloses: bool, progress: bool) -> None:
        request, token = peer.next_request(), self.token()
        peer.send(
            [48, request, {"disclose_me": discloses, "receive_progress": progress}, uri, [token]]
        )
        if not is_valid(uri, "exact"):
            peer.expected.append(self._error(48, request, "wamp.error.invalid_uri"))
            return
        if uri == "p.app":
            peer.expected.append([50, request, {}, [token]])
            return
        serving = [entry for entry in self.registrations if matches(entry.pattern, uri)]
        if not serving:
            peer.expected.append(self._error(48, request, "wamp.error.no_such_procedure"))
            return
        entry = max(serving, key=lambda entry: rank(entry.pattern))
        details: dict[str, Any] = {"receive_progress": True} if progress else {}
        if entry.pattern[1] != "exact":
            details["procedure"] = uri
        if discloses:
            details["caller"] = peer.session
            details["caller_authid"] = f"client{peer.number}"
            details["caller_authrole"] = peer.role
        callee = self._callee(entry)
        callee.invocations += 1
        callee.expected.append([68, callee.invocations, entry.id, details, [token]])
        self.calls.append(ForwardedCall(peer, request, callee, callee.invocations, progress))

    def _callee(self, entry: Entry) -> RouterPeer:
        if entry.invoke == "roundrobin":
            callee = entry.holders[entry.turn % len(entry.holders)]
            entry.turn = entry.turn % len(entry.holders) + 1
            return callee
        return entry.holders[-1 if entry.invoke == "last" else 0]

    def answer(self, peer: RouterPeer, number: int, how: str) -> None:
        """Let a client answer a call that it has been given, or one that is over."""
        given = [call for call in self.calls if call.callee is peer]
        token = self.token()
        if not given:
            if peer.invocations:  # it is late
                peer.send([70, peer.invocations, {}, [token]])
            return
        call = given[number % len(given)]
        if how == "progress":
            peer.send([70, call.invocation, {"progress": True}, [token]])
            if call.wants_progress:
                self._tell(call.caller, [50, call.request, {"progress": True}, [token]])
            return
        self.calls.remove(call)
        if how == "error":
            peer.send([8, 68, call.invocation, {}, "com.example.error", [token]])
            error = CANCELED if call.is_killed else "com.example.error"
            self._tell(call.caller, self._error(48, call.request, error))
            return
        peer.send([70, call.invocation, {}, [token]])
        self._tell(call.caller, [50, call.request, {}, [token]])
        if how == "twice":
            peer.send([70, call.invocation, {}, ["once more"]])

    def cancel(self, peer: RouterPeer, number: int, mode: str | None) -> None:
        made = [call for call in self.calls if call.caller is peer]
        if not made:
            peer.send([49, max(peer.last_request, 1), {}])
            return
        call = made[number % len(made)]
        peer.send([49, call.request, {"mode": mode} if mode else {}])
        if mode == "kill":
            if not call.is_killed:
                self._tell(call.callee, [69, call.invocation, {"mode": "kill"}])
            call.is_killed = True
            return
        self.calls.remove(call)
        self._tell(peer, self._error(48, call.request, CANCELED))
        if mode != "skip":
            self._tell(call.callee, [69, call.invocation, {"mode": "killnowait"}])
