"""What the server's process holds, asked for in a session that lasts as long as the soak."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from websockets.sync.client import connect

from tests.benchmark.load import Address, reached
from tests.soak.application import COUNTS, KEPT

Counts: TypeAlias = Mapping[str, int]

OBJECTS, MEMORY, ERRORS = "Python objects", "memory, bytes", "errors in the log"
SETTLING_SECONDS = 45.0
"""aiohttp keeps what a client has left behind until it would have sent the next pings."""


def grown(before: Counts, after: Counts, allowances: Counts) -> Sequence[str]:
    """Return what has grown by more than it may, which is nothing where `allowances` are silent."""
    return [name for name in before if after[name] - before[name] > allowances.get(name, 0)]


class Observer:
    """A session that asks the server for its counts."""

    def __init__(self, address: Address) -> None:
        self._socket = connect(
            f"ws://{address[0]}:{address[1]}/",
            sock=reached(address),
            subprotocols=["wamp.2.json"],  # type: ignore[list-item]
            ping_interval=None,
            compression=None,
            max_size=None,
        )
        self._request = 1
        self._exchange([1, "realm1", {"roles": {"caller": {}, "subscriber": {}}}])
        # The first subscription has the id 1; as long as there is one, others get it too.
        self._exchange([32, 1, {}, KEPT])
        self.types: Counts = {}
        """How many objects there were of each type when they were last counted."""

    def _exchange(self, message: Any) -> Any:
        self._socket.send(json.dumps(message))
        return json.loads(self._socket.recv())

    def counts(self) -> Counts:
        """Return what there is now."""
        self._request += 1
        *_, counts = self._exchange([48, self._request, {}, COUNTS])
        self.types = counts.pop("types")
        return dict(counts)

    def settled(self, before: Counts, allowances: Counts) -> Counts:
        """Return what there is once nothing has grown by too much, or that takes too long."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            counts = self.counts()
            if not grown(before, counts, allowances) or time.monotonic() > deadline:
                return counts
            time.sleep(0.2)

    def close(self) -> None:
        self._socket.close()
