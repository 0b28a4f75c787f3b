"""Compiles the functions of a realm, with its default args and converters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any, Final

from serverwamp.auth.authorization import SOURCES_OF_QUESTIONS, Requirements, Rule
from serverwamp.binding.annotations import Converter
from serverwamp.binding.default_args import DefaultArg
from serverwamp.binding.handler import Handler
from serverwamp.binding.signature import Function
from serverwamp.errors import ConfigurationError
from serverwamp.publication import Publication
from serverwamp.router.broker import Subscription
from serverwamp.router.lost_windows import LostWindow
from serverwamp.routing import Definition, PublicationRoute, TopicRoute
from serverwamp.session import RPCRequest, Session

Sources = Mapping[str, type | None]
"""The names of the values that the server can fill in, and their types.

A parameter gets a value by this name, or by this type as its annotation.
"""

SOURCES_OF_CALLS: Final[Sources] = {"request": RPCRequest, "session": Session}
# topic_uri is the name of the topic in serverwamp 2.0.
SOURCES_OF_TOPICS: Final[Sources] = {
    "topic": None,
    "topic_uri": None,
    "match": None,
    "session": Session,
    "subscription": Subscription,
}
SOURCES_OF_PUBLICATIONS: Final[Sources] = {
    "topic": None,
    "session": Session,
    "publication": Publication,
}
SOURCES_OF_SESSIONS: Final[Sources] = {"session": Session}
SOURCES_OF_LOST_WINDOWS: Final[Sources] = {"window": LostWindow}
SOURCES_OF_OVERFLOWS: Final[Sources] = {"session": Session, "topic": None, "policy": None}


_handlers_of_the_protocol: dict[tuple[Any, ...], Handler] = {}
"""The handlers of WAMP's own procedures and topics, which are the same in every realm."""


class HandlerCompiler:
    """Compiles functions to handlers, all with the same default args and converters."""

    def __init__(
        self,
        default_args: Mapping[str, DefaultArg],
        converters: Mapping[object, Converter],
        *,
        camel_snake_conversion: bool,
    ) -> None:
        self._default_args = default_args
        self._converters = converters
        self._camel_snake_conversion = camel_snake_conversion

    def handler(
        self,
        function: Function,
        sources: Sources = SOURCES_OF_SESSIONS,
        leading: Sequence[str] = (),
    ) -> Handler:
        """Compile a function that takes no arguments from clients.

        The first parameters get the sources named in `leading`, whatever the parameters are called.

        Raises: ConfigurationError when its parameters can't be filled in.
        """
        return Handler(function, sources=sources, default_args=self._default_args, leading=leading)

    def authenticator(self, function: Function, leading: Sequence[str]) -> Handler:
        """Compile an authenticator, whose parameters are those in `leading`."""
        return self.handler(function, dict.fromkeys(leading), leading)

    def rules(self, requires: Requirements) -> Sequence[Rule]:
        """Compile the functions among some requirements."""
        return [self.rule(item) if callable(item) else item for item in requires]

    def rule(self, function: Function) -> Handler:
        """Compile an authorizer, or a function that is a requirement.

        Raises: ConfigurationError when it is an async generator, or when its parameters can't be
        filled in.
        """
        handler = Handler(
            function,
            sources=SOURCES_OF_QUESTIONS,
            default_args=self._default_args,
            in_thread=False,
        )
        if handler.is_generator:
            raise ConfigurationError(
                f"{handler.name} can't authorize requests: it is an async generator"
            )
        return handler

    def route_handler(self, route: Definition) -> Handler:
        """Compile the handler of a route.

        Raises: ConfigurationError when its parameters can't be filled in; NameError when it has an
        annotation that isn't defined yet.
        """
        method = route.handler
        if not route.is_of_protocol or self._converters or not isinstance(method, MethodType):
            return self._route_handler(route)
        # Compiling these again for each realm would take most of the time of freezing it.
        key = (type(route), method.__func__, self._camel_snake_conversion)
        if key not in _handlers_of_the_protocol:
            # The method is bound to an object of one realm, so only its function is kept.
            handler = self._route_handler(route)
            _handlers_of_the_protocol[key] = handler.with_function(method.__func__)
        return _handlers_of_the_protocol[key].with_function(method)

    def _route_handler(self, route: Definition) -> Handler:
        # The application's default args mustn't take the parameters of WAMP's own procedures.
        default_args = {} if route.is_of_protocol else self._default_args
        if isinstance(route, TopicRoute):
            return Handler(route.handler, sources=SOURCES_OF_TOPICS, default_args=default_args)
        is_publication = isinstance(route, PublicationRoute)
        handler = Handler(
            route.handler,
            sources=SOURCES_OF_PUBLICATIONS if is_publication else SOURCES_OF_CALLS,
            default_args=default_args,
            takes_arguments=True,
            camel_snake_conversion=self._camel_snake_conversion or route.camel_snake_conversion,
            converters=self._converters,
        )
        if is_publication and handler.stream is not None:
            raise ConfigurationError(f"{handler.name} takes a stream: only procedures can")
        return handler
