"""What a client may ask of the server: sizes, and how long anything may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection. Times are in seconds."""

    hello_timeout: float = 10.0
    """From the opening of a connection, or the end of a session, to HELLO."""
    authentication_timeout: float = 30.0
    """From HELLO to WELCOME, the authenticators' own time included."""
    goodbye_timeout: float = 5.0
    """From the server's GOODBYE to the client's; and for handing a last message to the network."""
    send_timeout: float = 30.0
    """How long a client may read nothing while there is much to send to it."""
    message_bytes: int = 16 * 1024 * 1024
    """The size of a WebSocket message from the client."""
    outbound_messages: int = 10_000
    """How many messages may wait for a client that doesn't keep up with its events."""
    outbound_bytes: int = 64 * 1024 * 1024
    """How many bytes of them; replies are never refused, but a client with an eighth of this
    waiting isn't read any more."""
