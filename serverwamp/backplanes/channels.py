"""The names of the channels over which publications travel.

A topic belongs to one of a few channels of its realm, its *shard*.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from serverwamp.uris import MatchPolicy

SHARDS: Final = 16


class Channels:
    """The channels whose names start with a prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def of_node(self, node: str) -> str:
        """Return the channel of one process."""
        return f"{self._prefix}:n:{node}"

    def of_realm(self, realm: str | None) -> str:
        """Return the beginning of the names of what belongs to a whole realm."""
        return f"{self._prefix}:{{{realm or ''}}}"

    def of_topic(self, realm: str | None, topic: str) -> str:
        """Return the channel for the events of a topic."""
        return self._of_shard(realm, crc32(topic.encode()) % SHARDS)

    def of_subscription(self, realm: str | None, topic: str, match: MatchPolicy) -> list[str]:
        """Return the channels that may have events of a topic or pattern."""
        if match == "exact":
            return [self.of_topic(realm, topic)]
        return [self._of_shard(realm, number) for number in range(SHARDS)]

    def _of_shard(self, realm: str | None, number: int) -> str:
        # The braces keep a shard's keys together in a Redis Cluster.
        return f"{self._prefix}:{{{realm or ''}.s{number:02}}}"

    def realm_of(self, channel: str) -> str:
        """Return the URI of the realm to which the channel of a topic belongs; "" if it has none.

        Raises: ValueError for other channels.
        """
        return channel[len(self._prefix) + 2 : channel.rindex(".s")]
