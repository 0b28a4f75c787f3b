"""What a handler of calls can return or yield, and what of it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serverwamp.errors import checked_args


class RPCResult:
    """A result of any combination of positional and keyword arguments."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self.args: tuple[Any, ...] = checked_args(args)
        """The positional arguments."""
        self.kwargs: dict[str, Any] = dict(kwargs or {})
        """The keyword arguments."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars_of(other) == vars_of(self)

    def __hash__(self) -> int:
        raise TypeError(f"unhashable type: {type(self).__name__!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(args={self.args!r}, kwargs={self.kwargs!r})"


class RPCProgressReport(RPCResult):
    """An intermediate result: yielded before the final one, to callers that asked for progress."""

    __slots__ = ()


class RPCErrorResult(RPCResult):
    """An error as the result; can be returned or yielded instead of raising `WAMPError`."""

    __slots__ = ("error_uri",)

    def __init__(
        self,
        error_uri: str = "wamp.error.runtime_error",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(args, kwargs)
        self.error_uri: str = error_uri
        """What kind of an error it is."""

    def __repr__(self) -> str:
        return (
            f"RPCErrorResult(error_uri={self.error_uri!r}, args={self.args!r}, "
            f"kwargs={self.kwargs!r})"
        )


SCALARS: Final = frozenset((type(None), bool, int, float, str, bytes))
"""Types that are told apart at once, because most results are of one of them."""


def vars_of(result: object) -> tuple[Any, ...]:
    """Return what makes a result equal to another one."""
    return tuple(getattr(result, name, None) for name in ("error_uri", "args", "kwargs"))


def as_result(value: Any) -> RPCResult:
    """Return what a handler returned or yielded as a result.

    A list or tuple is the positional arguments, a mapping the keyword arguments; anything else,
    None included, is the single argument.
    """
    if type(value) in SCALARS:
        return RPCResult((value,))
    if isinstance(value, RPCResult):
        return value
    if isinstance(value, (list, tuple)):
        return RPCResult(value)
    if isinstance(value, Mapping):
        return RPCResult((), {str(key): item for key, item in value.items()})
    return RPCResult((value,))
