"""Which procedures clients may serve for one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serverwamp.auth.authorization import Rule


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """How clients may serve procedures for one another."""

    disclose_caller: bool
    """Whether they are told who calls, even if the caller didn't set `disclose_me`."""
    rules: Sequence[Rule] = ()
    """What registering requires."""
