"""What clients of a realm may serve, for one another and for the application."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serverwamp import uris
from serverwamp.auth.authorization import Requirement, Requirements, Rule, checked_requirements
from serverwamp.client_call import ClientCall
from serverwamp.errors import ConfigurationError, InvalidURI, NoSuchProcedure, checked_args
from serverwamp.patterns import PatternTable
from serverwamp.router.dealer import Dealer
from serverwamp.router.endpoints import Handlers
from serverwamp.uris import MatchPolicy


@dataclass(slots=True)
class Sharing:
    """How clients may serve procedures for one another."""

    disclose_caller: bool
    requires: Requirements
    rules: Sequence[Rule] = ()
    """What it requires, once compiled."""


class Registrations:
    """The part of a realm that lets clients serve procedures, and calls them."""

    dealer: Dealer[Any]
    handlers: Handlers
    sharings: PatternTable[Sharing]

    @abstractmethod
    def _check_not_frozen(self) -> None: ...

    def client_register(
        self,
        uri: str,
        match: MatchPolicy = "exact",
        *,
        disclose_caller: bool = False,
        requires: Requirement | None = None,
    ) -> None:
        """Let clients serve `uri`, or what this pattern matches, for one another.

        Whatever else clients register can be called by the application alone. They can register
        patterns, too, where this covers all that theirs match. With `disclose_caller` they are told
        who calls, also by who doesn't ask for it. `requires` is what registering takes, as for
        `route`. What a more specific one of these is about goes to nobody who has registered
        a pattern that this one covers. The application's own procedures come first.

        Raises: ConfigurationError.

        Spec: Advanced Profile, "Pattern-based Registrations" and "Shared Registrations".
        """
        self._check_not_frozen()
        if not uris.is_valid_uri(uri, match) or uris.is_reserved(uri):
            raise ConfigurationError(f"{uri!r} is nothing that clients could register")
        try:
            sharing = Sharing(disclose_caller, checked_requirements(requires))
            self.sharings.add(uri, match, sharing)
        except KeyError:
            raise ConfigurationError(f"clients may register {uri!r} already") from None

    @property
    def shares_registrations(self) -> bool:
        """Whether clients may serve anything for one another."""
        return bool(self.sharings)

    def sharing_of(self, uri: str, match: MatchPolicy) -> Sharing | None:
        """Return how clients may serve what a pattern matches for one another, if they may."""
        return next(self.sharings.covering(uri, match), None)

    def call(
        self,
        uri: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> ClientCall:
        """Call a procedure that a client serves for all; see `client_register`.

        Of several clients one is called, as they have agreed on; what the application serves itself
        isn't called in this way. `timeout` is in seconds, and
        counts anew with each report of progress; it is `Limits.invocation_timeout` if not given.

        Raises: WAMPError when awaited; see `ClientCall`.
        """
        args, kwargs = checked_args(args), kwargs or {}

        def begin(call: ClientCall, details: Mapping[str, Any]) -> Any:
            if not uris.is_valid_uri(uri):
                raise InvalidURI(f"{uri!r} is not a valid URI")
            registration = None if self.handlers.serves(uri) else self.dealer.best(uri)
            if registration is None:
                raise NoSuchProcedure(f"no client serves {uri!r}")
            return registration.pick().invoke(registration, uri, args, kwargs, call, details)

        return ClientCall(begin, timeout)


def match_of(pattern: str) -> MatchPolicy:
    """Return how a pattern is to be understood, by its look."""
    if "" in pattern.split(".")[:-1]:
        return "wildcard"
    return "prefix" if pattern.endswith(".") or not pattern else "exact"
