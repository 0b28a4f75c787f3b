"""Which procedures clients have registered for others: synchronous, pure tables.

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
    """A procedure, or a pattern of procedures, that one or several clients serve."""

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
        """The same for all its callees."""
        self.procedure: str = procedure
        """The URI; of a pattern, what was registered."""
        self.match: MatchPolicy = match
        """How the URI is understood."""
        self.invoke: InvokePolicy = invoke
        """Which of several callees is called."""
        self.policy: Any = None
        """What allows it. A pattern brings no calls of what something else allows."""
        self.discloses_callers: bool = False
        """Whether callees are told who calls, also by who doesn't want it."""
        self.created: float = time.time()
        """When it began to exist, in seconds of the Unix clock."""
        self._callees: list[Callee] = []
        self._turn = 0

    def __repr__(self) -> str:
        match = "" if self.match == "exact" else f" as a {self.match}"
        return f"<Registration {self.id} of {self.procedure!r}{match}>"

    @property
    def callees(self) -> Sequence[Callee]:
        """Who serves it, in the order in which they have registered."""
        return self._callees

    def pick(self) -> Callee:
        """Return who is to be called now."""
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

    `policies` are what allows them to, by the URIs for which it does.
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
        """Let `callee` serve a procedure, with others if all want it by the same policy.

        Raises: ProcedureAlreadyExists.
        """
        registration = self._registrations.get(procedure, match)
        if registration is None:
            registration = Registration(self.new_id(), procedure, match, invoke)
            self._registrations.add(procedure, match, registration)
            self._by_id[registration.id] = registration
        elif invoke == "single" or invoke != registration.invoke:
            raise ProcedureAlreadyExists(
                f"{procedure!r} is registered already, to be invoked {registration.invoke}"
            )
        elif callee in registration.callees:
            raise ProcedureAlreadyExists(f"the session has registered {procedure!r} already")
        registration._callees.append(callee)
        return registration

    def unregister(self, registration: Registration[Callee], callee: Callee) -> None:
        """End what `register` began."""
        registration._leave(callee)
        if not registration.callees:
            self._registrations.remove(registration.procedure, registration.match)
            del self._by_id[registration.id]

    # ---- what there is

    def __iter__(self) -> Iterator[Registration[Callee]]:
        return iter(self._by_id.values())

    def find(self, id: int) -> Registration[Callee] | None:
        """Return the registration of that id."""
        return self._by_id.get(id)

    def lookup(self, procedure: str, match: MatchPolicy) -> Registration[Callee] | None:
        """Return the registration of just this procedure or pattern."""
        return self._registrations.get(procedure, match)

    def best(self, procedure: str) -> Registration[Callee] | None:
        """Return the registration that serves calls of `procedure`."""
        best = self._registrations.best(procedure)
        if best is None or best.match == "exact":
            return best
        policy = self._policies.best(procedure)
        matching = self._registrations.matching(procedure)
        return next((r for r in matching if r.policy is policy), None)
