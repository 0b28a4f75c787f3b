"""The procedures by which clients add testaments: events to publish when their session ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from serverwamp.binding.results import RPCResult
from serverwamp.protocol.messages import Publish, PublishOptions
from serverwamp.router.features import IsAllowed
from serverwamp.router.meta.events import ProtocolEndpoints
from serverwamp.session import Session

Scope: TypeAlias = Literal["detached", "destroyed"]


class TestamentAPI(ProtocolEndpoints):
    """The testaments of the sessions of a realm.

    `check_topic` raises `WAMPError` for a topic to which clients may not publish.

    Spec: Advanced Profile, "Session Testament".
    """

    prefix: ClassVar[str] = "wamp.session"
    procedures: ClassVar[Sequence[str]] = ("add_testament", "flush_testaments")

    def __init__(self, is_allowed: IsAllowed, check_topic: Callable[[str], object]) -> None:
        super().__init__(is_allowed)
        self._check_topic = check_topic

    async def _add_testament(
        self,
        caller: Session,
        topic: str,
        args: list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        /,
        *,
        publish_options: PublishOptions | None = None,
        scope: Scope = "destroyed",
    ) -> RPCResult:
        self._check(caller)
        self._check_topic(topic)
        message = Publish(1, publish_options or PublishOptions(), topic, args, kwargs)
        caller._control.testaments.add(message, scope)
        return RPCResult()

    async def _flush_testaments(
        self, caller: Session, /, *, scope: Scope = "destroyed"
    ) -> RPCResult:
        self._check(caller)
        caller._control.testaments.flush(scope)
        return RPCResult()
