"""What carries publications between the processes that serve a realm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from serverwamp.history import History, Log
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy


class RealmEvents(Protocol):
    """A realm in one process, as far as its backplane is concerned. Its methods don't wait."""

    @property
    def uri(self) -> str | None:
        """The URI of the realm; None for the default realm of an application."""
        ...

    @property
    def has_stores(self) -> bool:
        """Whether there is a topic with a `HistoryStore` of the application's own."""
        ...

    def deliver(self, publication: Publication) -> None:
        """Deliver a publication to the subscribers in this process.

        Raises: SerializationError when none of them can receive it.
        """
        ...

    def log_of(self, topic: str) -> Log | None:
        """Return the event history of a topic; None if it has none."""
        ...

    def lose_window(self, topics: str, since: float, until: float) -> None:
        """Take note that events may be missing that were published in this time.

        `topics` says which; the times are seconds of the Unix clock.
        """
        ...


class Backplane(ABC):
    """Carries publications to every process that serves a realm, including this one.

    A backplane belongs to one application. `run` keeps it connected for as long as it is open.
    """

    is_shared: bool = True
    """Whether it reaches other processes, so that it has to be run."""

    @abstractmethod
    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Connect, and carry publications until cancelled.

        `task_status` is told once publications can be sent and received.

        Raises: BackplaneUnavailable when the connection takes too long at the start.
        """

    @abstractmethod
    def add_realm(self, realm: RealmEvents) -> None:
        """Deliver what is published in a realm, from now on."""

    @abstractmethod
    async def publish(self, realm: RealmEvents, publication: Publication) -> None:
        """Return when a publication is accepted, and this process has delivered its own copy.

        One publisher's publications to a topic arrive in order.

        Raises: BackplaneUnavailable if it was not sent, BackplaneOutcomeUnknown if it may have
            been; SerializationError when no format can hold it.
        """

    @abstractmethod
    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        """Return when this process is certain to receive what is published to a topic or pattern.

        Each call is taken back by one call of `unfollow`.

        Raises: BackplaneUnavailable when that takes too long; it is then not followed.
        """

    @abstractmethod
    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        """Take back what `follow` has asked for."""

    @abstractmethod
    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        """Return the event history of a topic route; `name` is the same in all processes.

        Raises: ConfigurationError for a store that the backplane can't use.
        """
