"""Identifiers: random ones for the global scope, counted ones for the rest.

Spec: Basic Profile, "IDs".
"""

from __future__ import annotations

import random
import secrets
from typing import Final

MAX_ID: Final = 2**53
"""Ids are integers from 1 to this, which every JSON parser holds exactly."""


def new_session_id() -> int:
    """Return an unpredictable id from the whole range."""
    return (int.from_bytes(secrets.token_bytes(7)) >> 3) + 1  # 56 random bits are 3 too many


def new_publication_id() -> int:
    """Return a random id from the whole range: unique, but no secret, so that it may be cheap."""
    return random.getrandbits(53) + 1
