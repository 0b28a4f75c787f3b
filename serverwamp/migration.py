"""The method names of serverwamp 2.0, as aliases of the present ones.

They let applications migrate step by step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class _Realm(Protocol):
    def add_routes(self, routes: Iterable[Any]) -> None: ...
    def add_topics(self, routes: Iterable[Any]) -> None: ...
    def add_default_arg(
        self, name: str, value: Any = None, *, factory: Callable[..., Any] | None = None
    ) -> None: ...
    def add_session_lifespan_handler(
        self, handler: Callable[..., Any], authenticated_only: bool = True
    ) -> None: ...


class RealmSpellings:
    """The 2.0 method names of `Realm` and `Application`."""

    def add_rpc_routes(self: _Realm, routes: Iterable[Any]) -> None:
        """Do what `add_routes` does."""
        self.add_routes(routes)

    def add_topic_routes(self: _Realm, routes: Iterable[Any]) -> None:
        """Do what `add_topics` does."""
        self.add_topics(routes)

    def set_default_arg(
        self: _Realm, arg_name: str, value: Any = None, factory: Callable[..., Any] | None = None
    ) -> None:
        """Do what `add_default_arg` does."""
        self.add_default_arg(arg_name, value, factory=factory)

    def add_session_state_handler(
        self: _Realm, handler: Callable[..., Any], authenticated_only: bool = True
    ) -> None:
        """Do what `add_session_lifespan_handler` does."""
        self.add_session_lifespan_handler(handler, authenticated_only)


class _TopicDecorators(Protocol):
    def topic(self, uri: str) -> Callable[[Decorated], Decorated]: ...
    def prefix_topic(self, uri_prefix: str) -> Callable[[Decorated], Decorated]: ...
    def regex_topic(
        self, uri_pattern: str | re.Pattern[str]
    ) -> Callable[[Decorated], Decorated]: ...


class TopicRouteSetSpellings:
    """The 2.0 method names of `TopicRouteSet`."""

    def route(self: _TopicDecorators, uri: str) -> Callable[[Decorated], Decorated]:
        """Do what `topic` does."""
        return self.topic(uri)

    def prefix_route(self: _TopicDecorators, uri_prefix: str) -> Callable[[Decorated], Decorated]:
        """Do what `prefix_topic` does."""
        return self.prefix_topic(uri_prefix)

    def regex_route(
        self: _TopicDecorators, uri_pattern: str | re.Pattern[str]
    ) -> Callable[[Decorated], Decorated]:
        """Do what `regex_topic` does."""
        return self.regex_topic(uri_pattern)
