"""Random WAMP ids: those of sessions and publications.

Spec: Basic Profile, "IDs".
"""

from __future__ import annotations

import random
import secrets
from typing import Final

MAX_ID: Final = 2**53
"""The largest id. The smallest is 1. Every JSON parser can represent these integers exactly."""


def new_session_id() -> int:
    """Return an unpredictable random id."""
    return (int.from_bytes(secrets.token_bytes(7)) >> 3) + 1  # drops 3 of the 56 random bits


def new_publication_id() -> int:
    """Return a random id; it needn't be unpredictable, so a fast generator makes it."""
    return random.getrandbits(53) + 1
