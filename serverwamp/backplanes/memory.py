"""The backplane of an application in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskStatus

from serverwamp.backplanes.base import Backplane, BackplaneState, NodeEvents, RealmEvents
from serverwamp.backplanes.retained import Retained
from serverwamp.errors import SerializationError
from serverwamp.history import History, Log, StoredEvent
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy


class MemoryBackplane(Backplane):
    """Delivers publications directly to the subscribers in this process."""

    is_shared = False

    def __init__(self) -> None:
        self._retained: dict[str | None, Retained] = {}  # by the URIs of realms

    @property
    def state(self) -> BackplaneState:
        return "ready"

    async def run(
        self, node: NodeEvents, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await anyio.sleep_forever()

    def add_realm(self, realm: RealmEvents) -> None:
        self._retained[realm.uri] = Retained(realm.limits)

    async def publish(self, realm: RealmEvents, publication: Publication) -> None:
        if realm.has_stores:
            log = realm.log_of(publication.topic)
            if log is not None and log.store is not None:
                await self._store_and_deliver(log, realm, publication)
                return
        realm.deliver(publication)
        if publication.retain:
            self._keep(realm, publication)

    async def _store_and_deliver(
        self, log: Log, realm: RealmEvents, publication: Publication
    ) -> None:
        async with log.order:
            await log.append(publication)
            with suppress(SerializationError):  # no subscriber can receive it, but others may
                realm.deliver(publication)
            if publication.retain:
                self._keep(realm, publication)

    def _keep(self, realm: RealmEvents, publication: Publication) -> None:
        if realm.serves_topic(publication.topic):
            self._retained[realm.uri].keep(publication)

    def post(self, realm: RealmEvents, publication: Publication) -> None:
        realm.deliver(publication)

    async def flush(self) -> None:
        pass

    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        pass

    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        pass

    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        store = history.new_store()
        return Log(store, store)

    def retained(
        self, realm: RealmEvents, topic: str, then: Callable[[Sequence[StoredEvent]], None]
    ) -> None:
        then(self._retained[realm.uri].of_topic(topic))
