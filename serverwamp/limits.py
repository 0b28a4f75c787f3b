"""What a client may ask of the server: how much, how long, and how often."""

from __future__ import annotations

import logging
import math
from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from typing import Any, Final

from serverwamp.errors import ConfigurationError, SerializationError, parts_of

logger: logging.Logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server. Times are in seconds; ``math.inf`` is no limit.

    Raises: ConfigurationError for what isn't a positive number, or a count below 1.
    """

    hello_timeout: float = 10.0
    """From the opening of a connection, or the end of a session, to HELLO."""
    authentication_timeout: float = 30.0
    """From HELLO to WELCOME, the authenticators' own time included."""
    authorization_timeout: float = 10.0
    """How long a function may take that decides what a session may do; meanwhile nothing more is
    read from that client."""
    authorizations: float = 1_000
    """How many answers of a realm's authorizer are remembered for a session."""
    goodbye_timeout: float = 5.0
    """From the server's GOODBYE to the client's; for handing a last message to the network; and for
    what the client has published when it leaves."""
    idle_timeout: float = math.inf
    """How long nothing may come from a client none of whose calls is running; up to a quarter more.
    Whoever only listens to events is silent by nature."""
    call_timeout: float = math.inf
    """How long a call may take; where it reports its progress, how long until the next report.
    A client may ask for less."""
    send_timeout: float = 30.0
    """How long a client may read nothing while there is much to send to it."""
    message_bytes: float = 1024 * 1024
    """The size of a WebSocket message from the client. The server has a limit of its own, often
    16 MiB."""
    unauthenticated_message_bytes: float = 64 * 1024
    """The same from a client whose session isn't welcomed yet."""
    message_depth: float = 64
    """How many arrays and maps of a message may stand in one another; the message itself is the
    first, and its arguments are the second."""
    message_values: float = 200_000
    """How many values a message may hold. Every array, map, key and other value counts. They are
    counted before any of them is made, and take some 100 bytes each at most, besides texts and
    binary data."""
    array_length: float = 100_000
    """How many elements any array in a message may have."""
    map_length: float = 10_000
    """How many entries any map in a message may have."""
    uri_length: float = 1024
    """How many characters a realm, procedure or topic may have."""
    sessions: float = 10_000
    """How many sessions the application has at once."""
    unauthenticated_sessions: float = 1_000
    """How many connections besides may have no session, or one that isn't welcomed yet."""
    subscriptions: float = 1_000
    """How many subscriptions a session may have at once, those included that are being opened or
    closed."""
    calls_in_flight: float = 1_000
    """How many calls of a session may run, or wait for their turn; until one of them ends, nothing
    more is read from the client."""
    publications_in_flight: float = 1_000
    """How many publications of a session may wait for those before them; until one of them has
    taken effect, nothing more is read from the client."""
    testaments: float = 100
    """How many publications a session may leave to be made when it is over."""
    busy_timeout: float = 30.0
    """How long that may last; then a further call or publication is refused, and reading goes on.
    The same holds for a call whose handler takes none of the chunks that wait for it: it is
    ended."""
    stream_chunks: float = 64
    """How many chunks that are streamed into a call may wait for its handler; until it takes one,
    nothing more is read from the client."""
    stream_bytes: float = 1024 * 1024
    """The same in bytes; one chunk is taken anyway."""
    retained_topics: float = 10_000
    """How many topics of a realm have retained events; those of the longest ago are forgotten."""
    retained_bytes: float = 64 * 1024 * 1024
    """How many bytes these have, about."""
    registrations: float = 1_000
    """How many procedures a session may have registered at once."""
    invocations_in_flight: float = 10_000
    """How many calls a client may be given that it hasn't answered; more are refused. So are those
    to a client that doesn't read what it is sent."""
    invocation_timeout: float = 30.0
    """How long a client has to answer a call that the application makes, which can ask for more."""
    message_rate: float = 20_000
    """How many messages of a client are read in a second, those in batches counted each."""
    outbound_messages: float = 10_000
    """How many messages may wait for a client that doesn't keep up with its events."""
    outbound_bytes: float = 64 * 1024 * 1024
    """How many bytes of them; replies are never refused, but a client with an eighth of this
    waiting isn't read any more."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name.endswith("_timeout") else 1
            if not isinstance(value, (int, float)) or not (value >= least and value > 0):
                raise ConfigurationError(f"Limits.{field.name} can't be {value!r}")


MOST_NOTED: Final = 100
"""How many different things are logged for one connection."""


class LimitLog:
    """What is logged only once for a connection, so that no client can flood the log.

    It counts in `exceeded` how often each limit is exceeded.
    """

    __slots__ = ("_exceeded", "_noted")

    def __init__(self, exceeded: MutableMapping[str, int]) -> None:
        self._exceeded = exceeded
        self._noted: tuple[str, ...] = ()

    def record(self, limit: str, text: str, *args: Any) -> None:
        """Take note that the client has exceeded a limit, which is a field of `Limits`."""
        self._exceeded[limit] = self._exceeded.get(limit, 0) + 1
        if self.is_first(limit):
            logger.warning("Limits.%s: %s", limit, text % args)

    def wants(self, doing: str, error: BaseException) -> bool:
        """Tell whether it is to be logged that `doing` something has failed with `error`.

        It is, unless nothing but an event or a report could not be sent, which can be due to what
        a client has sent: then only the first time.
        """
        return self.is_first(doing) if all(map(_is_unsendable, parts_of(error))) else True

    def is_first(self, what: str) -> bool:
        """Tell whether `what` is to be logged: only the first time that this is asked."""
        if what in self._noted or len(self._noted) >= MOST_NOTED:
            return False
        self._noted += (what,)
        return True


def _is_unsendable(part: BaseException) -> bool:
    return isinstance(part, (SerializationError, BaseExceptionGroup)) or isinstance(
        part.__cause__, SerializationError
    )
