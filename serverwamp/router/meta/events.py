"""What the protocol lets clients ask about a realm itself, and hear of it: what its parts share.

Nothing of it is about the protocol's own procedures and topics, and while nobody listens to its
events they cost nothing.

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
    """Return a requirement of routes, if it is one that needs no time.

    Raises: ConfigurationError.
    """
    checked_requirements(requirement)
    if callable(requirement) and inspect.iscoroutinefunction(requirement):
        raise ConfigurationError(f"{name_of(requirement)} has to be a plain function")
    return requirement


def is_allowed_by(requirement: Requirement | None) -> IsAllowed:
    """Return what tells whether a session meets a requirement; without one, whoever is known does.

    That is a role, or one of several roles, or else a function decides; if it fails, against it.
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
            logger.exception("whether %r may use the meta API is not known", session)
            return False

    return is_allowed


class ProtocolEndpoints:
    """Procedures and topics of the protocol, for those whom `is_allowed` is true for."""

    prefix: ClassVar[str]
    """What stands before their names."""
    procedures: ClassVar[Sequence[str]]
    """The names, each that of a method that begins with ``_``."""
    topics: ClassVar[Sequence[str]] = ()

    def __init__(self, is_allowed: IsAllowed) -> None:
        self._is_allowed = is_allowed

    def routes(self) -> Iterator[ProtocolRoute | ProtocolTopicRoute]:
        """Yield the routes by which clients reach them."""
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
    """A part of what clients may ask about a realm, and hear of it."""

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
