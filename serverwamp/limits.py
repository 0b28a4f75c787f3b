"""Limits on what a client may ask of the server: how much, how long, and how often."""

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
    """Limits on what a client may ask of the server.

    Times are in seconds. ``math.inf`` means no limit.

    Raises: ConfigurationError for a value that isn't a positive number, or a count below 1.
    """

    hello_timeout: float = 10.0
    """Maximum time from the start of a connection, or the end of a session, to HELLO."""
    authentication_timeout: float = 30.0
    """Maximum time from HELLO to WELCOME, including the time that authenticators take."""
    authorization_timeout: float = 10.0
    """Maximum time that an authorizing function may take. Until it returns, the server reads
    nothing more from that client."""
    authorizations: float = 1_000
    """How many answers of a realm's authorizer are cached for a session."""
    goodbye_timeout: float = 5.0
    """Maximum time from the server's GOODBYE to the client's. The same time is allowed for handing
    the last message to the network, and for completing a leaving client's publications."""
    idle_timeout: float = math.inf
    """Maximum silence of a client with no running call; checked every quarter of that time. A
    client that only receives events is always silent."""
    call_timeout: float = math.inf
    """Maximum duration of a call; if the call reports progress, maximum time until the next report.
    A client may ask for less."""
    send_timeout: float = 30.0
    """How long a client may read nothing while many messages wait for it."""
    message_bytes: float = 1024 * 1024
    """Maximum size of a WebSocket message from the client. The ASGI server has its own limit, often
    16 MiB."""
    unauthenticated_message_bytes: float = 64 * 1024
    """Maximum size of a WebSocket message before WELCOME."""
    message_depth: float = 64
    """How deep arrays and maps may be nested in a message. The message itself is level one, and its
    arguments are level two."""
    message_values: float = 200_000
    """How many values a message may hold. Every array, map, key and other value counts. Values are
    counted before they are decoded. Each takes at most about 100 bytes, not counting the contents
    of texts and binary data."""
    array_length: float = 100_000
    """How many elements an array in a message may have."""
    map_length: float = 10_000
    """How many entries a map in a message may have."""
    uri_length: float = 1024
    """How many characters the URI of a realm, procedure or topic may have."""
    sessions: float = 10_000
    """How many sessions the application may have at once."""
    unauthenticated_sessions: float = 1_000
    """How many further connections may have no session, or a session before WELCOME."""
    subscriptions: float = 1_000
    """How many subscriptions a session may have at once, including those that are being opened or
    closed."""
    calls_in_flight: float = 1_000
    """How many calls of a session may be running or queued. At this limit, the server reads nothing
    more from the client until a call ends."""
    publications_in_flight: float = 1_000
    """How many publications of a session may wait for earlier ones. At this limit, the server reads
    nothing more from the client until a publication is complete."""
    testaments: float = 100
    """How many testaments (publications that are made when the session ends) a session may have."""
    busy_timeout: float = 30.0
    """How long reading may pause at one of these limits. After that, the next call or publication
    is refused, and reading resumes. A call whose handler takes none of its waiting chunks for so
    long is ended."""
    stream_chunks: float = 64
    """How many chunks of a call may wait for its handler. At this limit, the server reads nothing
    more from the client until the handler takes a chunk."""
    stream_bytes: float = 1024 * 1024
    """How many bytes these chunks may have together. A single chunk may be larger."""
    retained_topics: float = 10_000
    """How many topics of a realm may have a retained event. Beyond that, the oldest are dropped."""
    retained_bytes: float = 64 * 1024 * 1024
    """About how many bytes all retained events of a realm may take."""
    registrations: float = 1_000
    """How many procedures a session may have registered at once."""
    invocations_in_flight: float = 10_000
    """How many unanswered calls a client may have. Further calls to it are refused, and so are
    calls to a client that doesn't read what it is sent."""
    invocation_timeout: float = 30.0
    """How long a client has to answer a call that the application makes. The application can set
    another timeout for a single call."""
    message_rate: float = 20_000
    """How many messages per second are read from a client. Each message in a batch counts."""
    outbound_messages: float = 10_000
    """How many messages may wait for a client that is too slow for its events."""
    outbound_bytes: float = 64 * 1024 * 1024
    """How many bytes these messages may have together. Replies are never dropped. When an eighth of
    this is waiting, the server stops reading from the client."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name.endswith("_timeout") else 1
            if not isinstance(value, (int, float)) or not (value >= least and value > 0):
                raise ConfigurationError(f"Limits.{field.name} can't be {value!r}")


MAX_EXPONENT: Final = 6144
"""The exponent of the largest decimal number, which is that of IEEE 754's widest decimal type. With
a much larger exponent, converting a number to an integer or to text takes too much time and memory,
and arithmetic raises exceptions."""

MOST_NOTED: Final = 100
"""How many different subjects are logged for one connection."""


class LimitLog:
    """Logs each subject only once per connection, so that no client can flood the log.

    It counts in `exceeded` how often the client exceeds each limit.
    """

    __slots__ = ("_exceeded", "_noted")

    def __init__(self, exceeded: MutableMapping[str, int]) -> None:
        self._exceeded = exceeded
        self._noted: tuple[str, ...] = ()

    def record(self, limit: str, text: str, *args: Any) -> None:
        """Count, and log once, that the client exceeded `limit`, the name of a field of `Limits`.

        `text % args` is the message to log.
        """
        self._exceeded[limit] = self._exceeded.get(limit, 0) + 1
        if self.is_first(limit):
            logger.warning("Limits.%s: %s", limit, text % args)

    def wants(self, doing: str, error: BaseException) -> bool:
        """Tell whether to log that `doing` something failed with `error`.

        A client's own values can make it impossible to serialize an event or a report. If that is
        the only failure, it is logged once. Every other failure is logged each time.
        """
        return self.is_first(doing) if all(map(_is_unsendable, parts_of(error))) else True

    def is_first(self, what: str) -> bool:
        """Return True the first time that this is called with `what`, if it is to be logged."""
        if what in self._noted or len(self._noted) >= MOST_NOTED:
            return False
        self._noted += (what,)
        return True


def _is_unsendable(part: BaseException) -> bool:
    return isinstance(part, (SerializationError, BaseExceptionGroup)) or isinstance(
        part.__cause__, SerializationError
    )
