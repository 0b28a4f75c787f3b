"""Values from a message to the annotated types of Python parameters.

Which library converts for an annotation is decided once: pydantic where its models or constraints
are in it, msgspec otherwise. Constraint metadata never falls to the library that would ignore it.
"""

from __future__ import annotations

import functools
import logging
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

import msgspec

from serverwamp.errors import ConfigurationError, InvalidArgument

try:
    import pydantic
except ImportError:  # pragma: no cover - whether it is installed is the user's choice
    pydantic = None  # type: ignore[assignment]

logger: logging.Logger = logging.getLogger(__name__)

STREAM_TYPES: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)
"""What annotates a parameter whose argument comes bit by bit."""
EXACT_TYPES: Final = (int, str, float, bool, bytes)
"""Types whose instances need no conversion to themselves."""


class Converter:
    """Convert values to one annotated type."""

    __slots__ = ("_convert", "exact_type", "wants_exact_numbers")

    def __init__(self, convert: Callable[[Any], Any], hint: Any, wants_exact_numbers: bool) -> None:
        self._convert = convert
        self.exact_type: Any = hint if hint in EXACT_TYPES else None
        """A value of exactly this type needs no conversion."""
        self.wants_exact_numbers: bool = wants_exact_numbers

    def __call__(self, value: Any, place: int | str) -> Any:
        """Return `value` converted; `place` is its position or its name.

        Raises: InvalidArgument, with the path to what is wrong, which may be inside of the value.
        """
        if type(value) is self.exact_type:
            return value
        try:
            return self._convert(value)
        except msgspec.ValidationError as error:
            message, _, inner = str(error).partition(" - at `$")
            if isinstance(error.__cause__, TypeError):  # of a class's own: a bug, with its text
                logger.error("a value can't be converted", exc_info=error)
                message = "can't be converted"
            raise self._refused(message, place, inner.rstrip("`")) from None
        except RecursionError:
            raise self._refused("nested too deeply", place) from None
        except Exception as error:
            if pydantic is None or not isinstance(error, pydantic.ValidationError):
                raise
            details = error.errors(include_url=False, include_input=False, include_context=False)
            raise self._refused(details[0]["msg"], place, _dotted(details[0]["loc"])) from None

    @staticmethod
    def _refused(message: str, place: int | str, inner: str = "") -> InvalidArgument:
        path = path_of(place) + inner
        return InvalidArgument(f"{message} - at {path}", message=message, path=path)


def path_of(place: int | str) -> str:
    """Return how a caller is told of the argument at a position, or of a name."""
    return f"args[{place}]" if isinstance(place, int) else f"kwargs.{place}"


def invalid(message: str, place: int | str) -> InvalidArgument:
    """Return the error that tells a caller which argument is wrong."""
    return InvalidArgument(message, message=message, path=path_of(place))


def _dotted(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def converter_for(hint: Any) -> Converter | None:
    """Return what converts to the type that `hint` stands for; None where anything may pass.

    Raises: ConfigurationError when no library can.
    """
    if hint is Any or hint is object:
        return None
    if _belongs_to_pydantic(hint):
        return _pydantic_converter(hint)
    try:
        msgspec.json.Decoder(hint)  # raises where msgspec doesn't know how
    except TypeError as error:
        if pydantic is not None:
            return _pydantic_converter(hint)
        raise ConfigurationError(f"{error} (installing pydantic may help)") from None

    convert = functools.partial(msgspec.convert, type=hint, strict=False, dec_hook=_construct)
    return Converter(convert, hint, wants_exact_numbers=_holds_decimal(hint))


def _construct(kind: type[Any], value: Any) -> Any:
    """Make an instance of a class that msgspec doesn't know: by calling it."""
    plain: Any = typing.get_origin(kind) or kind
    validate = getattr(plain, "model_validate", None)  # a pydantic model inside a dataclass
    try:
        return validate(value) if validate is not None else plain(value)
    except Exception:  # what it says is the server's business
        raise ValueError(f"Expected `{plain.__name__}`") from None  # msgspec adds the path


def chunk_type(hint: Any) -> Any:
    """Return the type of what an async iterator yields; None where `hint` isn't that of one."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if hint not in STREAM_TYPES and typing.get_origin(hint) not in STREAM_TYPES:
        return None
    of_chunks = (*typing.get_args(hint), Any)[0]
    return type(None) if of_chunks is None else of_chunks


# ---- pydantic


def _belongs_to_pydantic(hint: Any) -> bool:
    """Tell whether pydantic's models, dataclasses or constraints are part of `hint`."""
    if hasattr(hint, "__pydantic_validator__"):
        return True
    metadata = getattr(hint, "__metadata__", ())
    if any(
        type(item).__module__.partition(".")[0] in ("pydantic", "annotated_types")
        for item in metadata
    ):
        if pydantic is None:
            raise ConfigurationError(f"the constraints in {hint} need pydantic")
        return True
    return any(_belongs_to_pydantic(part) for part in typing.get_args(hint))


def _pydantic_converter(hint: Any) -> Converter:
    try:
        adapter = pydantic.TypeAdapter(hint)
    except pydantic.errors.PydanticUserError as error:
        raise ConfigurationError(str(error)) from None
    # Where a Decimal is, the schema says so.
    return Converter(
        adapter.validate_python, hint, wants_exact_numbers="'decimal'" in repr(adapter.core_schema)
    )


# ---- numbers


def _holds_decimal(hint: Any) -> bool:
    """Tell whether a Decimal is somewhere inside of `hint`, through dataclasses and the like."""
    seen: set[int] = set()

    def holds(node: Any) -> bool:
        if isinstance(node, msgspec.inspect.DecimalType):
            return True
        if isinstance(node, (list, tuple)):
            return any(holds(item) for item in node)
        if not isinstance(node, (msgspec.inspect.Type, msgspec.inspect.Field)) or id(node) in seen:
            return False
        seen.add(id(node))
        return any(
            holds(getattr(node, name)) for name in node.__struct_fields__ if name != "default"
        )

    return holds(msgspec.inspect.type_info(hint))
