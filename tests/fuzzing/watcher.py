"""A client that hears by the meta API who comes, who goes, and who is subscribed to what."""

from __future__ import annotations

from typing import Any

from serverwamp import Realm
from tests.fuzzing.peers import Peer

TOPICS = (
    "session.on_join",
    "session.on_leave",
    "subscription.on_create",
    "subscription.on_subscribe",
    "subscription.on_unsubscribe",
    "subscription.on_delete",
)


class Watcher(Peer):
    """Watches a realm from before anybody else joins it; what it hears has to make sense."""

    def __init__(self, uri: str, realm: Realm) -> None:
        super().__init__("wamp.2.json.batched")
        self.id: int | None = None
        """The id of its session."""
        self.sessions: set[int] = set()
        """Who is there, but for itself."""
        self.subscribers: dict[int, set[int]] = {}
        """Who is subscribed to what, by the ids of subscriptions and sessions."""
        self._realm = realm
        self._read = 0
        self._topics: dict[int, str] = {}
        roles = {"caller": {}, "subscriber": {}}
        self.send([1, uri, {"roles": roles}])
        self.send(*([32, number, {}, f"wamp.{name}"] for number, name in enumerate(TOPICS, 1)))

    def check(self) -> None:
        """Check that what it has heard is the case, now that everything has come to rest."""
        for message in self.messages[self._read :]:
            self._hear(message)
        self._read = len(self.messages)
        if self.id is None:
            return
        assert len(self._topics) == len(TOPICS)
        router = self._realm.freeze()
        assert self.sessions == set(router.members) - {self.id}
        subscribers = {
            subscription.id: {
                subscriber.session.id for subscriber in router.broker.subscribers(subscription)
            }
            for subscription in router.broker
            if not subscription.topic.startswith("wamp.")
        }
        assert self.subscribers == {id_: ids for id_, ids in subscribers.items() if ids}

    def _hear(self, message: list[Any]) -> None:
        match message:
            case [2, id_, _]:
                self.id = id_
            case [33, request, subscription]:
                self._topics[subscription] = TOPICS[request - 1]
            case [36, subscription, _, {}, args]:
                self._note(self._topics[subscription], *args)
            case [6, {}, "wamp.close.system_shutdown"]:
                self.id = None  # nothing is told to it any more
            case _:
                raise AssertionError(message)

    def _note(self, topic: str, subject: Any, object_: Any = None, *_: Any) -> None:
        match topic:
            case "session.on_join":
                assert subject["session"] not in self.sessions
                self.sessions.add(subject["session"])
            case "session.on_leave":
                self.sessions.remove(subject)
                assert not any(subject in ids for ids in self.subscribers.values())
            case "subscription.on_create":
                assert subject in self.sessions
                assert object_["id"] not in self.subscribers
                self.subscribers[object_["id"]] = set()
            case "subscription.on_subscribe":
                assert subject not in self.subscribers[object_]
                self.subscribers[object_].add(subject)
            case "subscription.on_unsubscribe":
                self.subscribers[object_].remove(subject)
            case "subscription.on_delete":
                assert self.subscribers.pop(object_) == set()
