"""What a handler of calls can return or yield, and what of it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serverwamp.errors import checked_args
from serverwamp.uris import RUNTIME_ERROR


@dataclass(init=False, slots=True)
class RPCResult:
    """A result of any combination of positional and keyword arguments."""

    args: tuple[Any, ...]
    """The positional arguments."""
    kwargs: dict[str, Any]
    """The keyword arguments."""

    def __init__(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self.args = checked_args(args)
        self.kwargs = dict(kwargs or {})


@dataclass(init=False, slots=True)
class RPCProgressReport(RPCResult):
    """An intermediate result: yielded before the final one, to callers that asked for progress."""


@dataclass(init=False, slots=True)
class RPCErrorResult:
    """An error as the result; can be returned or yielded instead of raising `WAMPError`.

    Default args from generators are rolled back as if it had been raised.
    """

    error_uri: str
    """What kind of an error it is."""
    args: tuple[Any, ...]
    """The positional arguments; by convention the first is a text for people."""
    kwargs: dict[str, Any]
    """The keyword arguments."""

    def __init__(
        self,
        error_uri: str = RUNTIME_ERROR,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.error_uri = error_uri
        self.args = checked_args(args)
        self.kwargs = dict(kwargs or {})


def as_result(value: Any) -> RPCResult | RPCErrorResult:
    """Return what a handler returned or yielded as a result.

    A list or tuple is the positional arguments, a mapping the keyword arguments; anything else,
    None included, is the single argument.
    """
    if isinstance(value, (RPCResult, RPCErrorResult)):
        return value
    if isinstance(value, (list, tuple)):
        return RPCResult(value)
    if isinstance(value, Mapping):
        return RPCResult((), value)
    return RPCResult((value,))
