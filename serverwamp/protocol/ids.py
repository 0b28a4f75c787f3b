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


def follows(request: int, last: int) -> bool:
    """Tell whether `request` may come after `last` in one session's sequence of requests.

    Clients leave gaps (a request that they failed to serialize has used its id), so jumps
    forward are fine; a repetition or a step back is not, but for the wrap at the end.
    """
    return request > last or (request == 1 and last == MAX_ID)
