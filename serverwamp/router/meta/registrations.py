"""The meta API of registrations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar

from serverwamp.errors import NoSuchRegistration, WAMPError
from serverwamp.protocol.messages import RegisterOptions
from serverwamp.publication import Publication
from serverwamp.router.broker import Broker
from serverwamp.router.dealer import Dealer, Registration
from serverwamp.router.features import IsAllowed
from serverwamp.router.meta.tables import Holder, TableMetaAPI
from serverwamp.session import Session


class RegistrationMetaAPI(TableMetaAPI[Registration[Any]]):
    """The procedures that the sessions of a realm have registered for one another.

    It doesn't report the application's own procedures, nor registrations that only the application
    can call.

    Spec: Advanced Profile, "Registration Meta API".
    """

    prefix: ClassVar[str] = "wamp.registration"
    procedures: ClassVar[Sequence[str]] = (
        "list",
        "lookup",
        "match",
        "get",
        "list_callees",
        "count_callees",
    )
    topics: ClassVar[Sequence[str]] = ("on_create", "on_register", "on_unregister", "on_delete")
    joining: ClassVar[str] = "register"

    def __init__(
        self,
        dealer: Dealer[Any],
        is_allowed: IsAllowed,
        broker: Broker,
        deliver: Callable[[Publication], None],
    ) -> None:
        super().__init__(is_allowed, broker, deliver)
        self._dealer = dealer

    async def _lookup(
        self, caller: Session, procedure: str, options: RegisterOptions | None = None, /
    ) -> int | None:
        self._check(caller)
        registration = self._dealer.lookup(procedure, (options and options.match) or "exact")
        return None if registration is None else registration.id

    async def _match(self, caller: Session, procedure: str, /) -> int | None:
        self._check(caller)
        registration = self._dealer.best(procedure)
        return None if registration is None else registration.id

    _list_callees = TableMetaAPI._list_holders
    _count_callees = TableMetaAPI._count_holders

    # ---- the table

    def _entries(self) -> Iterator[Registration[Any]]:
        return iter(self._dealer)

    def _find(self, id_: int) -> Registration[Any] | None:
        return self._dealer.find(id_)

    def _holders(self, entry: Registration[Any]) -> Collection[Holder]:
        return entry.callees

    def _described(self, entry: Registration[Any]) -> dict[str, Any]:
        return {"uri": entry.procedure, "invoke": entry.invoke}

    def _no_such(self, id_: int) -> WAMPError:
        return NoSuchRegistration(f"there is no registration {id_}")
