"""How long the backplane over Redis waits for what, in seconds."""

from __future__ import annotations

ACCEPT_SECONDS: float = 2.0
"""How long a publication may wait to be sent."""
REPLY_SECONDS: float = 1.5
"""How long Redis may take to answer."""
CONNECT_SECONDS: float = 1.0
PROBE_SECONDS: float = 1.0
"""How often a message to oneself proves that messages arrive."""
DEAF_SECONDS: float = 1.0
"""The connection that receives is replaced if such a message was accepted so long ago, and nothing
has arrived since."""
LATE_SECONDS: float = 3.0
"""The same, if other messages arrive but this one doesn't."""
TOPICS_SECONDS: float = 5.0
"""How often a publisher outside looks whether the application has other topic routes."""
SETTLING_SECONDS: float = 0.6
"""How long publishing waits after a reconnection: other processes have to reconnect as well."""
BACK_OFF: tuple[float, float] = (0.05, 0.5)
"""The shortest and the longest wait before the next attempt to connect."""
EXPIRY_SECONDS: float = 0.1
"""How often publications that have waited for too long are looked for."""
