"""What the server's process holds, asked for in a session that lasts as long as the soak."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from websockets.sync.client import connect

from tests.benchmark.load import Address
from tests.soak.application import COUNTS, KEPT, SESSIONS

MAY_GROW = {"Python objects": 50, "memory": 2 * 1024 * 1024}
"""By how much at most, where that isn't nothing at all."""
SETTLING_SECONDS = 45.0
"""aiohttp keeps what a client has left behind until it would have sent the next pings."""


def grown(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Return the names of the counts that have grown by more than they may."""
    return [
        name
        for name, count in before.items()
        if name != "types" and after[name] - count > MAY_GROW.get(name, 0)
    ]


class Observer:
    """A session that asks the server for its counts."""

    def __init__(self, address: Address) -> None:
        self._socket = connect(
            f"ws://{address[0]}:{address[1]}/",
            subprotocols=["wamp.2.json"],  # type: ignore[list-item]
            ping_interval=None,
            compression=None,
            max_size=None,
        )
        self._request = 1
        self._exchange([1, "realm1", {"roles": {"caller": {}, "subscriber": {}}}])
        # The first subscription has the id 1; as long as there is one, others get it too.
        self._exchange([32, 1, {}, KEPT])

    def _exchange(self, message: Any) -> Any:
        self._socket.send(json.dumps(message))
        return json.loads(self._socket.recv())

    def _result(self, procedure: str) -> Any:
        self._request += 1
        *_, result = self._exchange([48, self._request, {}, procedure])
        return result

    def wait_for_sessions(self, count: int, seconds: float) -> bool:
        """Wait until there are but `count` beside this one; tell whether that came."""
        deadline = time.monotonic() + seconds
        while self._result(SESSIONS)[0] > count + 1:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def settled(self, before: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the counts once only this session is left, and nothing has grown since `before`.

        When that takes too long, they are returned all the same.
        """
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            counts = self.counts()
            left = counts["connections"] > 1 if before is None else grown(before, counts)
            if not left or time.monotonic() > deadline:
                return counts
            time.sleep(0.2)

    def counts(self) -> Mapping[str, Any]:
        counts: Mapping[str, Any] = self._result(COUNTS)
        return counts

    def close(self) -> None:
        self._socket.close()
