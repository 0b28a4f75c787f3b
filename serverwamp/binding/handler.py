"""Between a message's arguments and a Python function: compiled once, when a handler is registered.

A `Handler` knows how its function is called: which parameters the server fills in (they can never
be supplied by a client), which take arguments from the message, by position and by name, and how
those are converted to the annotated types.

One module, though a long one: what a handler is given and how it is called belong together.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AsyncContextDecorator,
    AsyncExitStack,
    ContextDecorator,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType, NoneType
from typing import Any, Final, TypeAlias

import anyio

from serverwamp.binding.annotations import (
    Converter,
    Names,
    behind,
    evaluated,
    is_typed_dict,
    members_of,
)
from serverwamp.binding.conversion import (
    Conversion,
    check_default,
    chunk_type,
    conversion_to,
    invalid,
    no_default,
)
from serverwamp.binding.records import record_of
from serverwamp.binding.shadowing import check_not_shadowed, type_of_result
from serverwamp.concurrency.tasks import defer_cancellation, deliver_cancellation, run_in_thread
from serverwamp.errors import ConfigurationError

Function: TypeAlias = Callable[..., Any]

POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MISSING: Final = inspect.Parameter.empty
NO_CHUNK: Final[Any] = object()
"""Stands for the chunk of a CALL that brings none."""
OMITTED: Final[Any] = object()
"""Stands for the default of a ``NotRequired`` item: where a CALL brings none, none is passed."""
NONE_BY_NAME: Final[Mapping[str, Any]] = MappingProxyType({})
NO_CONVERTERS: Final[Mapping[Any, Converter]] = MappingProxyType({})
OTHER_FRAMEWORKS: Final = frozenset(("fastapi", "fast_depends", "litestar", "pydantic", "typer"))
"""Packages whose objects, as default values, mark parameters that those packages fill in."""


# ---- default args


@dataclass(frozen=True)
class DefaultArg:
    """A value, or a factory of values, for every parameter of its name."""

    value: Any = None
    factory: Function | None = None

    @property
    def value_type(self) -> type | None:
        """The type of the value, if it is known; None stands for any."""
        if self.factory is not None:
            return type_of_result(self.factory)
        return None if self.value is None else type(self.value)

    async def provide(self, stack: AsyncExitStack | None) -> Any:
        """Return the value; what has to happen when it is no longer needed goes on `stack`."""
        if self.factory is None:
            return self.value
        assert stack is not None
        made = self.factory()
        if inspect.isawaitable(made):
            made = await made
        if inspect.isasyncgen(made):
            made = asynccontextmanager(lambda: made)()
        elif inspect.isgenerator(made):
            made = contextmanager(lambda: made)()
        if isinstance(made, AsyncContextDecorator):  # what @asynccontextmanager makes is one
            return await stack.enter_async_context(made)  # type: ignore[arg-type]
        if isinstance(made, ContextDecorator):
            return stack.enter_context(made)  # type: ignore[arg-type]
        return made


def check_factory(name: str, factory: Function) -> None:
    """Check that the factory of a default arg can be called without arguments.

    Raises: ConfigurationError.
    """
    if not callable(factory):
        raise ConfigurationError(f"the factory of default arg {name!r} can't be called")
    try:
        signature = inspect.signature(factory, follow_wrapped=False)
        if any(parameter.kind in VARIABLE for parameter in signature.parameters.values()):
            signature = inspect.signature(factory)  # it passes on what it is given
        signature.bind()
    except ValueError:
        pass  # a builtin, which doesn't tell its signature
    except TypeError as error:
        raise ConfigurationError(
            f"{name_of(factory)}, the factory of default arg {name!r}, is called without arguments:"
            f" {error}"
        ) from None


@asynccontextmanager
async def shielded_exit_stack() -> AsyncIterator[AsyncExitStack]:
    """Give an exit stack whose closing can't be cancelled, while the block before it can.

    The scope that shields spans all of it: what is on the stack may have scopes of its own open.
    What the block raises is raised again, even if something on the stack swallows it.
    """
    failure: BaseException | None = None
    try:
        with anyio.CancelScope() as scope:
            async with AsyncExitStack() as stack:
                try:
                    yield stack
                except BaseException as error:
                    failure = error
                    raise
                finally:
                    scope.shield = True
                    defer_cancellation()
            if failure is not None:
                raise failure
    finally:
        del failure  # which refers to this frame
        deliver_cancellation()


# ---- handlers


@dataclass(frozen=True)
class Parameter:
    """A parameter that takes an argument of the message."""

    name: str
    by_position: bool
    by_name: bool
    default: Any
    convert: Conversion | None

    def converted(self, value: Any, place: int | str) -> Any:
        """Return an argument as the function wants it; `place` is its position or name."""
        convert = self.convert
        if convert is None or type(value) is convert.exact_type:
            return value
        return convert(value, place)


def _with_exact_numbers(parameter: Parameter | None, value: Any, exact: Any) -> Any:
    if parameter is None or parameter.convert is None:
        return value
    return parameter.convert.with_exact_numbers(value, exact)


class Handler:
    """A function and how to call it.

    `sources` are the names of what the server fills in: a parameter of that name, or annotated
    with the type that `sources` gives for it, takes it. `leading` names the sources that are
    passed to the first parameters, whatever those are called. Every further parameter takes the
    default arg of its name, or else an argument of the message, where `takes_arguments` is true.
    A plain function is called in a thread, unless `in_thread` is false. `converters` are declared
    for types that aren't data types by themselves.

    Raises: ConfigurationError when the function can't be called in that way; NameError when an
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
        self._converters = converters
        self.name: str = name_of(function)
        self.is_generator: bool = is_async_generator(function)
        self._in_thread = in_thread and not self.is_generator
        self.is_coroutine: bool = inspect.iscoroutinefunction(_called(function))
        if inspect.isgeneratorfunction(_called(function)):
            raise ConfigurationError(
                f"{self.name} is a generator: write it as an async generator (async def)"
            )
        self._camel_snake_conversion = camel_snake_conversion
        self._filled_in: list[tuple[inspect.Parameter, str]] = []
        self._parameters: list[Parameter] = []
        self._order: list[Parameter | str] = []  # the positional parameters; names: filled in
        self._rest: Parameter | None = None  # *args
        self._named_rest: Parameter | None = None  # **kwargs
        self.stream: Parameter | None = None
        """The parameter that takes an async iterator, to which each CALL brings a chunk."""
        self._default_args: dict[str, DefaultArg] = {}
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
        self.takes_request: bool = self.takes("request")
        self.is_direct: bool = (
            self._plain
            and self.is_coroutine
            and takes_arguments
            and self.stream is None
            and not self.wants_exact_numbers
        )
        """Whether it is an async function of what `bind` returns by position, and nothing else."""
        self.has_factories: bool = any(arg.factory for arg in self._default_args.values())

    def _compile(
        self,
        sources: Mapping[str, type | None],
        default_args: Mapping[str, DefaultArg],
        leading: list[str],
        takes_arguments: bool,
    ) -> None:
        bound = bound_names(self.function)
        for parameter in _parameters(self.function):
            if parameter.name in bound and parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                continue  # as a default value, which would be replaced
            source = self._source_of(parameter, sources, default_args, leading)
            if source is not None:
                self._filled_in.append((parameter, source))
                if takes_arguments and source in self._default_args:
                    kind = self._default_args[source].value_type
                    names = names_around(self.function)
                    check_not_shadowed(parameter, names, kind, self.name)
                if parameter.kind in POSITIONAL:
                    self._order.append(source)
                continue
            if not takes_arguments:
                if parameter.default is MISSING and parameter.kind not in VARIABLE:
                    raise ConfigurationError(
                        f"nothing is known to pass to parameter {parameter.name!r} of {self.name}:"
                        f" add a default arg of that name, or give it a default value"
                    )
                if type(parameter.default).__module__.partition(".")[0] in OTHER_FRAMEWORKS:
                    text = f"parameter {parameter.name!r} of {self.name}: "
                    raise ConfigurationError(text + no_default(parameter.default))
                if parameter.kind in POSITIONAL:
                    self._order.append(self._compiled(parameter, converts=False))
                continue
            compiled = self._compiled(parameter, converts=True)
            if compiled.default is NO_CHUNK:
                if self.stream is not None or parameter.kind in VARIABLE:
                    text = f"{self.name} has more than one async iterator as its arguments"
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

    def _source_of(
        self,
        parameter: inspect.Parameter,
        sources: Mapping[str, type | None],
        default_args: Mapping[str, DefaultArg],
        leading: list[str],
    ) -> str | None:
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
                annotation = _named_type(parameter.annotation, names_around(self.function))
            except NameError:
                return None
            for name, kind in sources.items():
                if kind is not None and annotation is kind:
                    return name
        return None

    def _compiled(self, parameter: inspect.Parameter, *, converts: bool) -> Parameter:
        convert, default = None, parameter.default
        if converts:
            try:
                hint = Any
                if parameter.annotation is not MISSING:
                    hint = _resolved(self.function, parameter.annotation)
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
        """Return those of the arguments that can be passed on as they are, if there are such."""
        types = [
            p.convert.unchanged_type if p.convert is not None else None for p in self._parameters
        ]
        needs_more = not self._plain or self._rest is not None or self.stream is not None
        return None if needs_more or None in types else types

    def takes(self, source: str) -> bool:
        """Tell whether a parameter takes what the server fills in under that name."""
        return any(name == source for _, name in self._filled_in)

    # ---- on the path of a call

    def bind(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        exact: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return converted values: of the parameters by position, and of those by name only.

        `exact` holds the same arguments with numbers as they were written, for the parameters
        that want them so.

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
            raise invalid(f"at most {position} positional arguments are taken", position)
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
        """Return what `bind` has returned with the stream in it, behind the chunk it replaces."""
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
        """Return the converted chunk of a further CALL; `NO_CHUNK` when it brings none.

        It comes alone, or where it stood among the arguments of the first CALL; the others are of
        no account. `exact` is as for `bind`.

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
            raise invalid("a further chunk is a single argument", 1)
        value = _with_exact_numbers(parameter, args[place], exact_args[place])
        return parameter.converted(value, place)

    def invoke(
        self,
        sources: Mapping[str, Any],
        stack: AsyncExitStack | None = None,
        values: Sequence[Any] = (),
        values_by_name: Mapping[str, Any] | None = None,
    ) -> Awaitable[Any]:
        """Call the function; what is awaited is its result, or an async iterator of results.

        `values` are what `bind` returned. Default args from factories are released when `stack`
        is closed; without factories no stack is needed.
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

        def run() -> tuple[Any]:  # in a tuple, because trio refuses a coroutine from a thread
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
        """Call a handler that takes no arguments from a message, and return its result."""
        if not self.has_factories:
            return await self.invoke(sources)
        async with shielded_exit_stack() as stack:
            return await self.invoke(sources, stack)

    @asynccontextmanager
    async def opened(self, sources: Mapping[str, Any]) -> AsyncIterator[None]:
        """Run an async generator to its one ``yield``, and the rest of it when the block ends.

        Raises: RuntimeError when it ends before its ``yield``, or yields again.
        """
        async with shielded_exit_stack() as stack:
            generator = await self.invoke(sources, stack)
            if isinstance(generator, AsyncContextDecorator):  # @asynccontextmanager has made it
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


def bound_names(function: Any) -> frozenset[str]:
    """Return the names of parameters that are bound already: by a partial, or as ``self``."""
    given: set[str] = set()
    for layer in _layers(function):
        if isinstance(layer, functools.partial):
            given.update(layer.keywords)
        constructors = ("__init__", "__new__") if isinstance(layer, type) else ()
        for inner in (layer, *(inspect.getattr_static(layer, name) for name in constructors)):
            given.update(_names_of(inner) - _names_of(function))
    return frozenset(given)


def _names_of(function: Any) -> frozenset[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin, which doesn't tell its signature
        return frozenset()
    variable = (inspect.Parameter.POSITIONAL_ONLY, *VARIABLE)
    return frozenset(p.name for p in parameters if p.kind not in variable)


def name_of(function: Function) -> str:
    """Return what to call a function when speaking of it to its author."""
    return getattr(function, "__qualname__", None) or repr(function)


def is_async_generator(function: Function) -> bool:
    """Tell whether calling `function` makes an async generator, whatever it is wrapped in."""
    for layer in _layers(function):
        if inspect.isasyncgenfunction(layer) or inspect.iscoroutinefunction(layer):
            return inspect.isasyncgenfunction(layer)
    return False


def _layers(function: Any) -> Iterator[Any]:
    """Yield what runs when `function` is called, from the outside in."""
    while True:
        yield function
        is_instance = not (
            inspect.isroutine(function) or isinstance(function, (functools.partial, type))
        )
        if is_instance:
            yield type(function).__call__
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif is_instance:
            function = type(function).__call__
        else:
            return


def _called(function: Function) -> Any:
    """Return what runs when `function` is called: itself, or the method of an instance."""
    if inspect.isroutine(function) or isinstance(function, (functools.partial, type)):
        return function
    return type(function).__call__


# ---- annotations

SURROUNDINGS: Final = "__serverwamp_surroundings__"
"""The attribute of a function that holds the local names that its annotations use."""


def note_surroundings(function: Function) -> None:
    """Note the local names that the annotations of `function` use, while they still exist.

    Under postponed annotations nothing else refers to a class that was defined in a function. Its
    own annotations may name further classes.
    """
    plain = _annotated(function)
    if not inspect.isfunction(plain) or "." not in plain.__qualname__:
        return
    words = set(re.findall(r"\w+", str(list(plain.__annotations__.values()))))
    names: dict[str, Any] = {}
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        encloses = plain.__qualname__.startswith(f"{code.co_qualname}.")
        if encloses and frame.f_globals is plain.__globals__:
            found = {
                name: value
                for name, value in frame.f_locals.items()
                if name in words or isinstance(value, type)
            }
            names = {**found, **names}
        frame = frame.f_back
    if names:
        setattr(plain, SURROUNDINGS, names)


def _annotated(function: Function) -> Any:
    """Return what has the annotations of `function`."""
    *_, plain = _layers(function)
    return plain.__init__ if inspect.isclass(plain) else plain


def _resolved(function: Function, annotation: Any) -> Any:
    """Return an annotation of `function` as a type, whether it was written as one or as text."""
    return evaluated({"it": annotation}, names_around(function))["it"]


def names_around(function: Function) -> Names:
    """Return what the names in the annotations of a function stand for."""
    plain = _annotated(function)
    if not inspect.isfunction(plain):
        return {}
    local = {**getattr(plain, SURROUNDINGS, {}), **inspect.getclosurevars(plain).nonlocals}
    return {**plain.__globals__, **local}


def _named_type(annotation: Any, names: Names) -> Any:
    """Return the type that an annotation names, behind aliases, metadata and ``| None``."""
    while True:
        further, members = behind(annotation, names), members_of(annotation) or ()
        if further is not None:
            annotation, names = further
        elif typing.get_origin(annotation) is typing.Annotated:
            annotation = annotation.__origin__
        elif len(members) == 2 and NoneType in members:
            annotation = members[members[0] is NoneType]
        else:
            return annotation


def _parameters(function: Function) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function, and the items of an unpacked TypedDict as parameters."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin
        raise ConfigurationError(
            f"{name_of(function)} doesn't tell its parameters: write a function that calls it"
        ) from None
    for parameter in signature.parameters.values():
        items = None
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            items = _unpacked(function, parameter.annotation)
        if items is None:
            yield parameter
        else:
            yield from items


def _unpacked(function: Function, annotation: Any) -> Sequence[inspect.Parameter] | None:
    """Return the items of an unpacked TypedDict as parameters; None where there is none."""
    if annotation is MISSING:
        return None
    unpacked = _resolved(function, annotation)
    if typing.get_origin(unpacked) is not typing.Unpack:
        return None
    (items,) = typing.get_args(unpacked)
    if not is_typed_dict(typing.get_origin(items) or items):
        raise ConfigurationError(f"{name_of(function)} unpacks {items!r}, which is no TypedDict")
    record = record_of(items, names_around(function))
    assert record is not None
    return [
        inspect.Parameter(
            field.key,
            inspect.Parameter.KEYWORD_ONLY,
            default=MISSING if field.is_required else OMITTED,
            annotation=field.hint,
        )
        for field in record.fields
    ]


_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def camel_to_snake(name: str) -> str:
    """Return a camelCase name as snake_case: ``countTo`` becomes ``count_to``."""
    return _WORD_START.sub("_", name).lower()
