"""The policies by which clients may register procedures for one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serverwamp.auth.authorization import Rule


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """The settings of `Realm.client_register` for one URI or pattern."""

    disclose_caller: bool
    """Whether callees are told the caller's session even if it didn't set ``disclose_me``."""
    rules: Sequence[Rule] = ()
    """The rules for registering."""
