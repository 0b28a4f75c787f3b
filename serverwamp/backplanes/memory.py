"""The backplane of an application in one process."""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

from serverwamp.backplanes.base import Backplane, RealmEvents
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy


class MemoryBackplane(Backplane):
    """Hands publications straight to the subscribers in this process."""

    is_shared = False

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await anyio.sleep_forever()

    def add_realm(self, realm: RealmEvents) -> None:
        pass

    async def publish(self, realm: RealmEvents, publication: Publication) -> None:
        realm.deliver(publication)

    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        pass

    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        pass
