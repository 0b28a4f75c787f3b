"""The procedures that clients have registered for one another, in tables without I/O.

Spec: Basic Profile, "Remote Procedure Call"; Advanced Profile, "Pattern-based Registrations" and
"Shared Registrations".
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from serverwamp.errors import ProcedureAlreadyExists
from serverwamp.patterns import PatternTable
from serverwamp.uris import InvokePolicy, MatchPolicy

Callee = TypeVar("Callee")


class Registration(Generic[Callee]):
    """A procedure, or a pattern of procedures, that one or several clients have registered."""

    __slots__ = (
        "_callees",
        "_turn",
        "created",
        "discloses_callers",
        "id",
        "invoke",
        "match",
        "policy",
        "procedure",
    )

    def __init__(
        self, id: int, procedure: str, match: MatchPolicy = "exact", invoke: InvokePolicy = "single"
    ) -> None:
        self.id: int = id
        """The registration id; all callees have the same."""
        self.procedure: str = procedure
        """The URI of the procedure, or the pattern."""
        self.match: MatchPolicy = match
        """The match policy of the URI."""
        self.invoke: InvokePolicy = invoke
        """The policy that picks one of several callees."""
        self.policy: Any = None
        """The `RegistrationPolicy` that allows it. A pattern receives only calls governed by this
        same policy."""
        self.discloses_callers: bool = False
        """Whether callees are told the caller's session even if the caller didn't set
        ``disclose_me``."""
        self.created: float = time.time()
        """The time at which it was created, as a Unix timestamp in seconds."""
        self._callees: list[Callee] = []
        self._turn = 0

    def __repr__(self) -> str:
        match = "" if self.match == "exact" else f" as a {self.match}"
        return f"<Registration {self.id} of {self.procedure!r}{match}>"

    @property
    def callees(self) -> Sequence[Callee]:
        """The callees, in the order of registration."""
        return self._callees

    def pick(self) -> Callee:
        """Return the callee for the next call, according to the invoke policy."""
        callees = self._callees
        if self.invoke == "last":
            return callees[-1]
        if self.invoke == "random":
            return random.choice(callees)
        if self.invoke == "roundrobin":
            turn = self._turn % len(callees)
            self._turn = turn + 1
            return callees[turn]
        return callees[0]

    def _leave(self, callee: Callee) -> None:
        index = self._callees.index(callee)
        del self._callees[index]
        if index < self._turn:
            self._turn -= 1


class Dealer(Generic[Callee]):
    """The procedures that clients of a realm have registered for one another.

    `policies` are the registration policies, by the URIs and patterns that they allow.
    """

    def __init__(self, policies: PatternTable[Any]) -> None:
        self._policies = policies
        self._ids = itertools.count(1)
        self._registrations: PatternTable[Registration[Callee]] = PatternTable()
        self._by_id: dict[int, Registration[Callee]] = {}

    def new_id(self) -> int:
        """Return an id that no registration of the realm has."""
        return next(self._ids)

    def register(
        self, procedure: str, match: MatchPolicy, invoke: InvokePolicy, callee: Callee
    ) -> Registration[Callee]:
        """Add a callee to the registration of a procedure, creating it if necessary.

        Raises: ProcedureAlreadyExists when another callee has registered the procedure with another
        invoke policy or with "single", and when the callee has registered it already.
        """
        registration = self._registrations.get(procedure, match)
        if registration is None:
            registration = Registration(self.new_id(), procedure, match, invoke)
            self._registrations.add(procedure, match, registration)
            self._by_id[registration.id] = registration
        elif invoke == "single" or invoke != registration.invoke:
            raise ProcedureAlreadyExists(
                f"{procedure!r} is registered already, with invoke={registration.invoke!r}"
            )
        elif callee in registration.callees:
            raise ProcedureAlreadyExists(f"the session has registered {procedure!r} already")
        registration._callees.append(callee)
        return registration

    def unregister(self, registration: Registration[Callee], callee: Callee) -> None:
        """Remove a callee; the last one removes the registration."""
        registration._leave(callee)
        if not registration.callees:
            self._registrations.remove(registration.procedure, registration.match)
            del self._by_id[registration.id]

    # ---- lookup

    def __iter__(self) -> Iterator[Registration[Callee]]:
        return iter(self._by_id.values())

    def find(self, id: int) -> Registration[Callee] | None:
        """Return the registration with that id; None if there is none."""
        return self._by_id.get(id)

    def lookup(self, procedure: str, match: MatchPolicy) -> Registration[Callee] | None:
        """Return the registration of exactly this procedure or pattern; None if there is none."""
        return self._registrations.get(procedure, match)

    def best(self, procedure: str) -> Registration[Callee] | None:
        """Return the registration that serves calls of `procedure`; None if there is none."""
        best = self._registrations.best(procedure)
        if best is None or best.match == "exact":
            return best
        policy = self._policies.best(procedure)
        matching = self._registrations.matching(procedure)
        return next((r for r in matching if r.policy is policy), None)
