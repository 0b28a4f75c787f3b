"""Handlers: call a Python function with the arguments of a message.

A `Handler` is compiled once, when a function is registered. It knows which parameters the server
fills in, which a client can never supply. The others take arguments from the message, by position
or by name, and convert them to the annotated types.

One module despite its length: compiling the parameters and binding arguments to them have to agree.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AsyncContextDecorator, AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from serverwamp.binding.annotations import Converter
from serverwamp.binding.conversion import (
    Conversion,
    check_default,
    chunk_type,
    conversion_to,
    invalid,
    no_default,
)
from serverwamp.binding.default_args import DefaultArg, shielded_exit_stack
from serverwamp.binding.shadowing import check_not_shadowed
from serverwamp.binding.signature import (
    MISSING,
    OMITTED,
    VARIABLE,
    Function,
    bound_names,
    called,
    is_async_generator,
    name_of,
    named_type,
    names_around,
    parameters_of,
    resolved,
)
from serverwamp.concurrency.tasks import run_in_thread
from serverwamp.errors import ConfigurationError

POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
NO_CHUNK: Final[Any] = object()
"""Marks that a CALL brings no chunk."""
NONE_BY_NAME: Final[Mapping[str, Any]] = MappingProxyType({})
NO_CONVERTERS: Final[Mapping[Any, Converter]] = MappingProxyType({})
OTHER_FRAMEWORKS: Final = frozenset(("fastapi", "fast_depends", "litestar", "pydantic", "typer"))
"""Packages that fill in parameters themselves. Their objects mark such parameters, as defaults."""


@dataclass(frozen=True)
class Parameter:
    """A parameter that takes an argument of the message."""

    name: str
    by_position: bool
    """Whether it can take a positional argument."""
    by_name: bool
    """Whether it can take a keyword argument."""
    default: Any
    """The default value; `MISSING` if it has none, `NO_CHUNK` if it takes a stream of chunks."""
    convert: Conversion | None
    """None if any value is accepted unchanged."""

    def converted(self, value: Any, place: int | str) -> Any:
        """Return an argument converted for the function; `place` is its position or its name.

        Raises: InvalidArgument.
        """
        convert = self.convert
        if convert is None or type(value) is convert.exact_type:
            return value
        return convert(value, place)


def _with_exact_numbers(parameter: Parameter | None, value: Any, exact: Any) -> Any:
    if parameter is None or parameter.convert is None:
        return value
    return parameter.convert.with_exact_numbers(value, exact)


class Handler:
    """A function, and how to call it.

    `sources` maps the names of values that the server supplies to their types. Such a value is
    passed to the parameter with that name, or to one annotated with that type. `leading` names the
    sources that are passed to the first parameters, whatever their names. Every other parameter
    takes the default arg of its name if there is one. The rest take arguments of the message if
    `takes_arguments` is true.

    A plain function is called in a thread unless `in_thread` is false. `converters` are declared
    for types that aren't data types. The constructor is long because it computes everything that
    calls need.

    Raises: ConfigurationError when the function can't be called like this; NameError when an
        annotation can't be resolved (yet).
    """

    def __init__(
        self,
        function: Function,
        *,
        sources: Mapping[str, type | None],
        default_args: Mapping[str, DefaultArg],
        leading: Sequence[str] = (),
        takes_arguments: bool = False,
        camel_snake_conversion: bool = False,
        in_thread: bool = True,
        converters: Mapping[Any, Converter] = NO_CONVERTERS,
    ) -> None:
        self.function = function
        self.name: str = name_of(function)
        self.is_generator: bool = is_async_generator(function)
        self.is_coroutine: bool = inspect.iscoroutinefunction(called(function))
        if inspect.isgeneratorfunction(called(function)):
            raise ConfigurationError(
                f"{self.name} is a generator: write it as an async generator (async def)"
            )
        self._in_thread = in_thread and not self.is_generator
        self._converters = converters
        self._camel_snake_conversion = camel_snake_conversion
        self._filled_in: list[tuple[inspect.Parameter, str]] = []  # with the names of the sources
        self._default_args: dict[str, DefaultArg] = {}
        self._parameters: list[Parameter] = []
        self._rest: Parameter | None = None  # *args
        self._named_rest: Parameter | None = None  # **kwargs
        # The positional parameters in order; those that are filled in by the name of the source.
        self._order: list[Parameter | str] = []
        self.stream: Parameter | None = None
        """The parameter that takes an async iterator, for which each CALL brings a chunk."""
        self._stream_place = 0  # its index in `_parameters`
        self._compile(sources, default_args, list(leading), takes_arguments)

        self._by_name = {p.name: p for p in self._parameters if p.by_name}
        self._names_not_for_clients = bound_names(function).union(
            name for parameter, source in self._filled_in for name in (parameter.name, source)
        )
        self._plain = (
            not self._filled_in
            and self._named_rest is None
            and all(p.by_position for p in self._parameters)
        )
        self._exact_types = self._types_that_need_no_conversion()
        self._floats = [i for i, kind in enumerate(self._exact_types or ()) if kind is float]
        self.wants_exact_numbers: bool = any(
            p is not None and p.convert is not None and p.convert.wants_exact_numbers
            for p in (*self._parameters, self._rest, self._named_rest)
        )
        """Whether an argument may become a ``Decimal``."""
        self.takes_request: bool = self.takes("request")
        self.is_direct: bool = (
            self._plain
            and self.is_coroutine
            and takes_arguments
            and self.stream is None
            and not self.wants_exact_numbers
        )
        """Whether it is an async function that takes only the positional values of `bind`."""
        self.has_factories: bool = any(arg.factory for arg in self._default_args.values())
        """Whether a default arg needs an exit stack."""

    def with_function(self, function: Function) -> Handler:
        """Return a handler that differs only in its function, which takes the same parameters."""
        other = copy(self)
        other.function = function
        return other

    def _compile(
        self,
        sources: Mapping[str, type | None],
        default_args: Mapping[str, DefaultArg],
        leading: list[str],
        takes_arguments: bool,
    ) -> None:
        bound = bound_names(self.function)
        for parameter in parameters_of(self.function):
            if parameter.name in bound and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                continue  # a partial has set it, and passing it again would replace that value
            source = self._source_of(parameter, sources, default_args, leading)
            if source is not None:
                self._add_filled_in(parameter, source, takes_arguments)
            elif takes_arguments:
                self._add_argument(parameter)
            else:
                self._add_defaulted(parameter)

    def _source_of(
        self,
        parameter: inspect.Parameter,
        sources: Mapping[str, type | None],
        default_args: Mapping[str, DefaultArg],
        leading: list[str],
    ) -> str | None:
        """Return the name of the source or default arg for a parameter; None if there is none.

        Takes used names out of `leading`, and puts used default args into `_default_args`.
        """
        if parameter.kind in POSITIONAL and leading:
            return leading.pop(0)
        if parameter.kind in VARIABLE:
            return None
        if parameter.name in sources:
            return parameter.name
        if parameter.name in default_args:
            self._default_args[parameter.name] = default_args[parameter.name]
            return parameter.name
        if parameter.annotation is not MISSING:
            try:
                annotation = named_type(parameter.annotation, names_around(self.function))
            except NameError:
                return None
            for name, kind in sources.items():
                if kind is not None and annotation is kind:
                    return name
        return None

    def _add_filled_in(
        self, parameter: inspect.Parameter, source: str, takes_arguments: bool
    ) -> None:
        """Add a parameter that the server fills in."""
        self._filled_in.append((parameter, source))
        if takes_arguments and source in self._default_args:
            kind = self._default_args[source].value_type
            check_not_shadowed(parameter, names_around(self.function), kind, self.name)
        if parameter.kind in POSITIONAL:
            self._order.append(source)

    def _add_defaulted(self, parameter: inspect.Parameter) -> None:
        """Add a parameter that keeps its default value, because the handler takes no arguments."""
        if parameter.default is MISSING and parameter.kind not in VARIABLE:
            raise ConfigurationError(
                f"no value is known for parameter {parameter.name!r} of {self.name}:"
                f" add a default arg of that name, or give it a default value"
            )
        if type(parameter.default).__module__.partition(".")[0] in OTHER_FRAMEWORKS:
            text = f"parameter {parameter.name!r} of {self.name}: "
            raise ConfigurationError(text + no_default(parameter.default))
        if parameter.kind in POSITIONAL:
            self._order.append(self._compiled(parameter, converts=False))

    def _add_argument(self, parameter: inspect.Parameter) -> None:
        """Add a parameter that takes arguments of the message."""
        compiled = self._compiled(parameter, converts=True)
        if compiled.default is NO_CHUNK:
            if self.stream is not None or parameter.kind in VARIABLE:
                text = f"{self.name} has more than one parameter for an async iterator"
                raise ConfigurationError(text)
            self.stream, self._stream_place = compiled, len(self._parameters)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            self._rest = compiled
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            self._named_rest = compiled
        else:
            self._parameters.append(compiled)
            if compiled.by_position:
                self._order.append(compiled)

    def _compiled(self, parameter: inspect.Parameter, *, converts: bool) -> Parameter:
        convert, default = None, parameter.default
        if converts:
            try:
                hint = Any
                if parameter.annotation is not MISSING:
                    hint = resolved(self.function, parameter.annotation)
                of_chunks = chunk_type(hint)
                if of_chunks is not None:
                    hint, default = of_chunks, NO_CHUNK
                check_default(parameter.default, hint, names_around(self.function))
                convert = conversion_to(hint, names_around(self.function), self._converters)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"parameter {parameter.name!r} of {self.name}: {error}"
                ) from None
        return Parameter(
            name=parameter.name,
            by_position=parameter.kind in POSITIONAL,
            by_name=parameter.kind is not inspect.Parameter.POSITIONAL_ONLY,
            default=default,
            convert=convert,
        )

    def _types_that_need_no_conversion(self) -> Sequence[Any] | None:
        """Return the types of positional arguments that can be passed on without `bind`'s loop.

        None if the handler always needs it.
        """
        types = [
            p.convert.unchanged_type if p.convert is not None else None for p in self._parameters
        ]
        needs_more = not self._plain or self._rest is not None or self.stream is not None
        return None if needs_more or None in types else types

    def takes(self, source: str) -> bool:
        """Tell whether a parameter takes the value of that source or default arg."""
        return any(name == source for _, name in self._filled_in)

    # ---- arguments

    def bind(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        exact: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Convert the arguments of a message; return positional values, and keyword-only values.

        `exact` holds the same arguments with numbers as they were written, for parameters that are
        annotated with ``Decimal``. This is a single long function for speed, because every call
        uses it.

        Raises: InvalidArgument.
        """
        if not kwargs and [*map(type, args)] == self._exact_types:
            for position in self._floats:
                if not isfinite(args[position]):
                    break
            else:
                return args, NONE_BY_NAME
        named = self._renamed(kwargs) if kwargs else {}
        if exact is not None:
            args, named = self._with_exact_numbers(args, named, exact)
        values: list[Any] = []
        values_by_name: dict[str, Any] = {}
        position = 0
        given = len(args)
        for parameter in self._parameters:
            if parameter.by_position and position < given:
                if named and parameter.by_name and parameter.name in named:
                    raise invalid(f"argument {parameter.name!r} is given twice", parameter.name)
                value = parameter.converted(args[position], position)
                position += 1
            elif parameter.by_name and parameter.name in named:
                value = parameter.converted(named.pop(parameter.name), parameter.name)
            elif parameter.default is OMITTED:
                continue
            elif parameter.default is not MISSING:
                value = parameter.default
            else:
                place = parameter.name if parameter.by_name else position
                raise invalid(f"argument {parameter.name!r} is missing", place)
            if parameter.by_position:
                values.append(value)
            else:
                values_by_name[parameter.name] = value
        if position < given:
            self._bind_rest(args, position, values)
        if named:
            self._bind_named_rest(named, values_by_name)
        return values, values_by_name

    def _bind_rest(self, args: Sequence[Any], position: int, values: list[Any]) -> None:
        if self._rest is None:
            raise invalid(f"at most {position} positional arguments are allowed", position)
        values.extend(
            self._rest.converted(value, index)
            for index, value in enumerate(args[position:], position)
        )

    def _bind_named_rest(self, named: dict[str, Any], values_by_name: dict[str, Any]) -> None:
        for name, value in named.items():
            if self._named_rest is None or name in self._names_not_for_clients:
                raise invalid(f"argument {name!r} is unknown", name)
            values_by_name[name] = self._named_rest.converted(value, name)

    def _renamed(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not self._camel_snake_conversion:
            return dict(kwargs)
        named: dict[str, Any] = {}
        for given, value in kwargs.items():
            name = given if given in self._by_name else camel_to_snake(given)
            if name in named:
                raise invalid(f"argument {name!r} is given twice", name)
            named[name] = value
        return named

    def _with_exact_numbers(
        self,
        args: Sequence[Any],
        named: dict[str, Any],
        exact: tuple[Sequence[Any], Mapping[str, Any]],
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        exact_args, exact_named = exact[0], self._renamed(exact[1])
        by_position = [p for p in self._parameters if p.by_position]
        return [
            _with_exact_numbers(
                by_position[index] if index < len(by_position) else self._rest, value, exact_value
            )
            for index, (value, exact_value) in enumerate(zip(args, exact_args, strict=True))
        ], {
            name: _with_exact_numbers(
                self._by_name.get(name, self._named_rest), value, exact_named[name]
            )
            for name, value in named.items()
        }

    def put_stream(
        self, stream: Any, values: Sequence[Any], values_by_name: Mapping[str, Any]
    ) -> tuple[Any, Sequence[Any], Mapping[str, Any]]:
        """Return the first chunk, and the result of `bind` with `stream` in the chunk's place."""
        parameter, place = self.stream, self._stream_place
        assert parameter is not None
        if parameter.by_position:
            return values[place], [*values[:place], stream, *values[place + 1 :]], values_by_name
        return values_by_name[parameter.name], values, {**values_by_name, parameter.name: stream}

    def chunk(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        exact: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    ) -> Any:
        """Return the converted chunk of a further CALL; `NO_CHUNK` if it has none.

        The chunk is the only argument, or it is at the same place as in the first CALL; other
        arguments are ignored. `exact` is as for `bind`.

        Raises: InvalidArgument.
        """
        parameter, place = self.stream, self._stream_place
        assert parameter is not None
        named = self._renamed(kwargs) if kwargs else NONE_BY_NAME
        for name in named:
            if name not in self._by_name:
                raise invalid(f"argument {name!r} is unknown", name)
        exact_args, exact_kwargs = exact or (args, kwargs)
        if parameter.by_name and parameter.name in named:
            exact_value = self._renamed(exact_kwargs)[parameter.name]
            value = _with_exact_numbers(parameter, named[parameter.name], exact_value)
            return parameter.converted(value, parameter.name)
        if not args:
            return NO_CHUNK
        if len(args) == 1:
            place = 0
        elif not place < len(args) <= len(self._parameters):
            raise invalid("every CALL after the first has one argument, the chunk", 1)
        value = _with_exact_numbers(parameter, args[place], exact_args[place])
        return parameter.converted(value, place)

    def invoke(
        self,
        sources: Mapping[str, Any],
        stack: AsyncExitStack | None = None,
        values: Sequence[Any] = (),
        values_by_name: Mapping[str, Any] | None = None,
    ) -> Awaitable[Any]:
        """Call the function; awaiting this gives its result, or an async iterator of results.

        `sources` holds the values that the server supplies. `values` and `values_by_name` are the
        result of `bind`. Default args from factories are released when `stack` is closed. A handler
        without factories needs no stack.
        """
        if self._plain and self.is_coroutine:
            result: Awaitable[Any] = self.function(*values)
            return result
        return self._invoke(sources, stack, list(values), dict(values_by_name or {}))

    async def _invoke(
        self,
        sources: Mapping[str, Any],
        stack: AsyncExitStack | None,
        values: list[Any],
        values_by_name: dict[str, Any],
    ) -> Any:
        positional, named = await self._arranged(sources, stack, values, values_by_name)
        if self.is_coroutine:
            return await self.function(*positional, **named)
        if not self._in_thread:
            value = self.function(*positional, **named)
            return await value if inspect.isawaitable(value) else value

        def run() -> tuple[Any]:  # a tuple, because trio doesn't let a thread return a coroutine
            return (self.function(*positional, **named),)

        (value,) = await run_in_thread(run)
        return await value if inspect.isawaitable(value) else value

    async def _arranged(
        self,
        sources: Mapping[str, Any],
        stack: AsyncExitStack | None,
        values: list[Any],
        values_by_name: dict[str, Any],
    ) -> tuple[list[Any], dict[str, Any]]:
        filled_in: dict[str, Any] = {}
        for _, name in self._filled_in:
            default_arg = self._default_args.get(name)
            filled_in[name] = (
                sources[name] if default_arg is None else await default_arg.provide(stack)
            )
        remaining = iter(values)
        positional = [
            filled_in[slot] if isinstance(slot, str) else next(remaining, slot.default)
            for slot in self._order
        ]
        positional.extend(remaining)
        for parameter, name in self._filled_in:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                values_by_name[parameter.name] = filled_in[name]
        return positional, values_by_name

    async def call(self, sources: Mapping[str, Any]) -> Any:
        """Call a handler that takes no arguments of a message, and return its result."""
        if not self.has_factories:
            return await self.invoke(sources)
        async with shielded_exit_stack() as stack:
            return await self.invoke(sources, stack)

    @asynccontextmanager
    async def opened(self, sources: Mapping[str, Any]) -> AsyncIterator[None]:
        """Run an async generator up to its only ``yield``, and the rest when the block ends.

        Raises: RuntimeError when it ends without a ``yield``, or yields again.
        """
        async with shielded_exit_stack() as stack:
            generator = await self.invoke(sources, stack)
            if isinstance(generator, AsyncContextDecorator):  # made by @asynccontextmanager
                generator = generator.gen  # type: ignore[attr-defined]
            try:
                await anext(generator)
            except StopAsyncIteration:
                raise RuntimeError(f"{self.name} ended without a yield") from None
            stack.push_async_callback(self._finish, generator)
            yield

    async def _finish(self, generator: Any) -> None:
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        await generator.aclose()
        raise RuntimeError(f"{self.name} yielded more than once")


_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def camel_to_snake(name: str) -> str:
    """Return a camelCase name as snake_case: ``countTo`` becomes ``count_to``."""
    return _WORD_START.sub("_", name).lower()
