"""What carries publications between the processes that serve a realm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import anyio
from anyio.abc import TaskStatus

from serverwamp.backplanes.topics import TopicRules
from serverwamp.history import History, HistoryReader, Log, StoredEvent
from serverwamp.limits import Limits
from serverwamp.publication import Publication
from serverwamp.uris import MatchPolicy

BackplaneState: TypeAlias = Literal["ready", "reconnecting", "closed"]


class RealmEvents(Protocol):
    """The part of a realm that its backplane uses. Its methods don't wait."""

    @property
    def uri(self) -> str | None:
        """The URI of the realm; None for the default realm of an application."""
        ...

    @property
    def has_stores(self) -> bool:
        """Whether there is a topic with a `HistoryStore` of the application's own."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits of the realm."""
        ...

    @property
    def topics(self) -> Sequence[TopicRules]:
        """The topic routes of the realm."""
        ...

    def serves_topic(self, topic: str) -> bool:
        """Tell whether clients can subscribe to a topic."""
        ...

    def deliver(self, publication: Publication) -> None:
        """Deliver a publication to the subscribers in this process.

        Raises: SerializationError when none of them can receive it.
        """
        ...

    def log_of(self, topic: str) -> Log | None:
        """Return the event history of a topic; None if it has none."""
        ...

    def receive(self, publication: Publication) -> None:
        """Deliver a publication that another process may have made.

        Events that no subscriber here can receive are logged, because nobody can be told.
        """
        ...


class NodeEvents(Protocol):
    """The part of an application that its backplane uses. Its methods don't wait."""

    def lose_window(self, since: float, until: float, history: HistoryReader | None = None) -> None:
        """Note that this process may have missed the events of a period.

        They are those of topics without a history or, if `history` is given, those of topics with
        this history. The times are Unix timestamps in seconds.
        """
        ...


class Backplane(ABC):
    """Carries publications to every process that serves a realm, including this one.

    A backplane belongs to one application. `run` keeps it connected while it is open.
    """

    is_shared: bool = True
    """Whether it reaches other processes. If so, it has to be run."""

    @property
    @abstractmethod
    def state(self) -> BackplaneState:
        """Whether publications can be sent and received now."""

    @abstractmethod
    async def run(
        self, node: NodeEvents, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
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

        The publications of one publisher to a topic arrive in order.

        Raises: BackplaneUnavailable if it was not sent; BackplaneOutcomeUnknown if it may have
        been; SerializationError when no format can express it.
        """

    @abstractmethod
    def post(self, realm: RealmEvents, publication: Publication) -> None:
        """Publish without waiting. A publication that can't be sent is logged.

        Raises: SerializationError when no format can express it.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Return when everything was sent, or has failed."""

    @abstractmethod
    async def follow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        """Return when this process is certain to receive what is published to a topic or pattern.

        Undo each call with one call of `unfollow`.

        Raises: BackplaneUnavailable when that takes too long; then there is nothing to undo.
        """

    @abstractmethod
    def unfollow(self, realm: RealmEvents, topic: str, match: MatchPolicy) -> None:
        """Undo one call of `follow`."""

    @abstractmethod
    def new_log(self, realm: RealmEvents, name: str, history: History) -> Log:
        """Return the event history of a topic route; `name` is the same in all processes.

        Raises: ConfigurationError for a store that the backplane can't use.
        """

    @abstractmethod
    def retained(
        self, realm: RealmEvents, topic: str, then: Callable[[Sequence[StoredEvent]], None]
    ) -> Awaitable[None] | None:
        """Call `then` with the retained events of a topic, the newest first.

        It is called when everything that was published before them has been delivered in this
        process, and nothing that was published after them. Returns None if that was done, or else
        what does it.

        Raises: BackplaneUnavailable when awaited and they don't arrive.
        """
