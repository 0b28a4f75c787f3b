"""The base classes of the meta API.

The meta API doesn't report WAMP's own procedures and topics. Meta events without subscribers are
not created.

Spec: Advanced Profile, "Meta API".
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar

from serverwamp.auth.authorization import Requirement, checked_requirements
from serverwamp.binding.signature import name_of
from serverwamp.errors import ConfigurationError, NotAuthorized
from serverwamp.publication import Audience, Publication
from serverwamp.router.broker import Broker
from serverwamp.router.features import IsAllowed
from serverwamp.routing import ProtocolRoute, ProtocolTopicRoute
from serverwamp.session import Session

logger: logging.Logger = logging.getLogger(__name__)


def checked(requirement: Requirement | None) -> Requirement | None:
    """Check that a requirement can be decided without waiting, and return it.

    Raises: ConfigurationError when it is not a requirement, or is an async function.
    """
    checked_requirements(requirement)
    if callable(requirement) and inspect.iscoroutinefunction(requirement):
        raise ConfigurationError(f"{name_of(requirement)} has to be a plain function")
    return requirement


def is_allowed_by(requirement: Requirement | None) -> IsAllowed:
    """Return a function that tells whether a session satisfies a requirement.

    Without a requirement, authenticated sessions are allowed. If a function is the requirement and
    raises, the session isn't allowed.
    """
    if requirement is None:
        return lambda session: session.is_authenticated and session.auth_role != "anonymous"
    if not callable(requirement):
        roles = {requirement} if isinstance(requirement, str) else frozenset(requirement)
        return lambda session: session.auth_role in roles

    def is_allowed(session: Session) -> bool:
        try:
            return requirement(session) is True
        except Exception:
            logger.exception("the requirement of the meta API failed for %r", session)
            return False

    return is_allowed


class ProtocolEndpoints:
    """Procedures and topics of WAMP, for the sessions for which `is_allowed` returns True."""

    prefix: ClassVar[str]
    """The URI of a procedure or topic is the prefix, a dot, and its name."""
    procedures: ClassVar[Sequence[str]]
    """The names of the procedures. The method for a procedure has its name with a leading ``_``."""
    topics: ClassVar[Sequence[str]] = ()
    """The names of the topics."""

    def __init__(self, is_allowed: IsAllowed) -> None:
        self._is_allowed = is_allowed

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes to the procedures and topics."""
        for name in self.procedures:
            yield ProtocolRoute(f"{self.prefix}.{name}", getattr(self, f"_{name}"))
        for name in self.topics:
            yield ProtocolTopicRoute(f"{self.prefix}.{name}", self._listen)

    def _check(self, caller: Session) -> None:
        if not self._is_allowed(caller):
            raise NotAuthorized("the session may not do that here")

    async def _listen(self, caller: Session) -> AsyncIterator[None]:
        self._check(caller)
        yield


class MetaAPI(ProtocolEndpoints):
    """A part of the meta API that publishes events."""

    def __init__(
        self, is_allowed: IsAllowed, broker: Broker, deliver: Callable[[Publication], None]
    ) -> None:
        super().__init__(is_allowed)
        self._broker = broker
        self._deliver = deliver

    def _is_heard(self, name: str) -> bool:
        return self._broker.has_subscribers(f"{self.prefix}.{name}")

    def _tell(self, name: str, args: Sequence[Any], exclude: Collection[int] = ()) -> None:
        if self._is_heard(name):
            audience = Audience(exclude=exclude) if exclude else None
            self._deliver(Publication(f"{self.prefix}.{name}", args, audience=audience))
