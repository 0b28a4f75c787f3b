"""Default args: values, or factories of values, for parameters that clients can't supply."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import (
    AsyncContextDecorator,
    AsyncExitStack,
    ContextDecorator,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from typing import Any

import anyio

from serverwamp.binding.shadowing import type_of_result
from serverwamp.binding.signature import VARIABLE, Function, name_of
from serverwamp.concurrency.tasks import defer_cancellation, deliver_cancellation
from serverwamp.errors import ConfigurationError


@dataclass(frozen=True)
class DefaultArg:
    """A value, or a factory of values, for all parameters with its name."""

    value: Any = None
    factory: Function | None = None

    @property
    def value_type(self) -> type | None:
        """The type of the value; None if it isn't known."""
        if self.factory is not None:
            return type_of_result(self.factory)
        return None if self.value is None else type(self.value)

    async def provide(self, stack: AsyncExitStack | None) -> Any:
        """Return the value; if a factory has created it, `stack` will release it."""
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
        if isinstance(made, AsyncContextDecorator):  # the result of an @asynccontextmanager
            return await stack.enter_async_context(made)  # type: ignore[arg-type]
        if isinstance(made, ContextDecorator):
            return stack.enter_context(made)  # type: ignore[arg-type]
        return made


def check_factory(name: str, factory: Function) -> None:
    """Check that the factory of a default arg can be called without arguments.

    Raises: ConfigurationError.
    """
    if not callable(factory):
        raise ConfigurationError(f"the factory of default arg {name!r} isn't callable")
    try:
        signature = inspect.signature(factory, follow_wrapped=False)
        if any(parameter.kind in VARIABLE for parameter in signature.parameters.values()):
            signature = inspect.signature(factory)  # a wrapper that passes its arguments on
        signature.bind()
    except ValueError:
        pass  # a builtin without a known signature
    except TypeError as error:
        raise ConfigurationError(
            f"{name_of(factory)}, the factory of default arg {name!r}, is called without arguments:"
            f" {error}"
        ) from None


@asynccontextmanager
async def shielded_exit_stack() -> AsyncIterator[AsyncExitStack]:
    """Open an exit stack; the block can be cancelled, but closing the stack can't.

    The shielding cancel scope encloses the stack, because context managers on the stack may have
    open scopes of their own. An exception of the block is raised again even if a context manager
    on the stack suppresses it.
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
        del failure  # its traceback refers to this frame
        deliver_cancellation()
